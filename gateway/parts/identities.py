"""Who vouches for callers, as configured: the local issuer's key, and the foreign issuers whose tokens are taken."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.adapters.identity import (
    ApiKeyIdentity,
    LocalIdentity,
    LocalIssuer,
    Trust,
    former,
    load_key,
)
from gateway.adapters.identity.foreign import ForeignTrust
from gateway.adapters.identity.jwks import Address, IssuerKeys
from gateway.adapters.identity.oidc import ForeignIdentity, Identities
from gateway.core.api_keys import ApiKeyBook
from gateway.core.desk import Ping
from gateway.core.ports import Clock
from gateway.parts import clients
from gateway.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class Vouching:
    """What stands behind callers.

    Attributes:
        issuer: signs tokens of this gateway.
        identity: checks everybody's.
        local: checks those of this gateway.
        pings: whether the keys of each foreign issuer are at hand, by its name in the settings.
    """

    issuer: LocalIssuer
    identity: Identities
    local: LocalIdentity
    pings: Mapping[str, Ping]


def opened(settings: GatewaySettings, clock: Clock, book: ApiKeyBook, stack: AsyncExitStack) -> Vouching:
    """All issuers; no foreign one is asked for anything yet, and one that is down keeps nobody from starting.

    Raises:
        KeyFileError: the local issuer's key cannot be used.
        SettingsError: a certificate cannot be used.
    """
    vouched = frozenset(one.issuer for one in settings.identity.issuers.values())
    trust = Trust(settings.identity.issuer, frozenset(settings.identity.audience), vouched=vouched)
    key = load_key(settings.state / "keys" / "issuer.pem")
    foreign = {name: _foreign(name, settings, clock, stack) for name in settings.identity.issuers}
    local = LocalIdentity(clock, trust, [])
    for old, until_s in former(settings.state / "keys", clock.now_us() // 1_000_000):
        local.trust(old, until_s)
    local.trust(key.public_key(), None)
    api_keys = ApiKeyIdentity(clock, trust.issuer, book)
    pings = {name: one.keys.ping for name, one in foreign.items()}
    return Vouching(LocalIssuer(clock, trust, key), Identities(local, list(foreign.values()), api_keys), local, pings)


def scopes(settings: GatewaySettings) -> dict[str, tuple[str, ...]]:
    """The scopes foreign tokens may give, as their issuers name them, by their names here."""
    found: dict[str, set[str]] = {}
    for section in settings.identity.issuers.values():
        for theirs, ours in section.scopes.items():
            found.setdefault(ours, set()).add(theirs)
    return {ours: tuple(sorted(theirs)) for ours, theirs in found.items()}


def _foreign(name: str, settings: GatewaySettings, clock: Clock, stack: AsyncExitStack) -> ForeignIdentity:
    section = settings.identity.issuers[name]
    trust = ForeignTrust(
        issuer=section.issuer,
        audiences=frozenset(section.audience),
        algorithms=frozenset(section.algorithms),
        types=frozenset(section.types),
        prefix=settings.identity.prefix_of(name),
        reserved=settings.identity.reserved_for(name),
        scopes=section.scopes,
        groups_claim=section.groups_claim,
        persons=frozenset(section.person_clients),
        max_ttl_s=section.max_ttl_s,
        skew_s=section.skew_s,
    )
    session = clients.session(f"identity.issuers.{name}.ca_certificate", section.ca_certificate)
    keys = IssuerKeys(Address(section.issuer, section.jwks_url, session), clock)
    stack.push_async_callback(keys.close)
    return ForeignIdentity(clock, trust, keys)
