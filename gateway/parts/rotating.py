"""The keys that are replaced, as ``[rotation]`` says."""

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from gateway.adapters.identity import IssuerKeyRotation, IssuerTerms, SharedIssuerKey, Signing
from gateway.adapters.ledger.books.payload_rotation import PayloadKeyRotation
from gateway.adapters.ledger.books.rotations import Rotations
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.wrapped_keys import wrap_anew
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind, Rotatable, RotationMeter
from gateway.parts import sharing, vaulting
from gateway.parts.acquainting import learner
from gateway.parts.books import Books
from gateway.parts.identities import Vouching
from gateway.settings import GatewaySettings

_KEYS = "keys"


@dataclass(frozen=True, slots=True)
class Means:
    """What rotations need of the other parts; ``vault``: its one client, None where there is none."""

    record: Books
    vouching: Vouching
    vault: Any
    clock: Clock
    meter: RotationMeter
    known: KnownValues


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key that one function replaces; ``since`` is None where the log of rotations knows how old it is."""

    kind: KeyKind
    subject: str
    every_h: int
    once: Callable[[], Awaitable[object]]
    since: Callable[[], int] | None = None

    async def since_us(self) -> int | None:
        """See ``core.rotation.Rotatable``."""
        return None if self.since is None else self.since()

    async def settle(self) -> None:
        """Nothing is left of one that was broken off."""

    async def rotate(self) -> None:
        """See ``core.rotation.Rotatable``."""
        await self.once()


async def shared(settings: GatewaySettings, means: Means, stack: AsyncExitStack) -> SharedIssuerKey | None:
    """Give keys to the other gateways on the log, and take theirs, where a place for that is named.

    Before anything is asked of upstreams: others wait for a gateway that has begun to start.

    Raises:
        Unavailable: a key in force is not here, and the vault has no copy any more.
    """
    vouching = means.vouching
    signing = Signing(vouching.issuer, vouching.local, means.clock, learner(means.known))
    return await sharing.opened(settings, means.vault, (means.record, signing, _terms(settings, means)), stack)


async def opened(
    settings: GatewaySettings, means: Means, issuer: SharedIssuerKey | None, stack: AsyncExitStack
) -> Rotations:
    """What replaces them; ``stack`` ends it. ``issuer``: the issuer's key where others have it, too."""
    keys: list[Rotatable] = [issuer or _issuer_key(settings, means), _log_key(settings, means)]
    if settings.audit.vault_key is None and settings.audit.postgres is None:
        keys.append(_payload_file(settings, means))
    if means.vault is not None:
        keys += _in_the_vault(settings, means)
    return await stack.enter_async_context(Rotations(means.record.rotations, means.meter, keys))


def _issuer_key(settings: GatewaySettings, means: Means) -> IssuerKeyRotation:
    vouching = means.vouching
    terms = _terms(settings, means)
    return IssuerKeyRotation(settings.state / _KEYS, means.clock, vouching.issuer, vouching.local, terms)


def _terms(settings: GatewaySettings, means: Means) -> IssuerTerms:
    given = settings.rotation
    return IssuerTerms(given.issuer_key_h, given.issuer_overlap_h, means.record.others, learner(means.known))


def _log_key(settings: GatewaySettings, means: Means) -> Rotation:
    room = means.record.keys
    every_h = settings.rotation.log_key_h
    return Rotation(KeyKind.LOG_KEY, "", every_h, room.renew, lambda: room.all()[-1].since_us)


def _payload_file(settings: GatewaySettings, means: Means) -> PayloadKeyRotation:
    kept = means.record.rotations
    every_h, learn = settings.rotation.payload_key_h or 0, learner(means.known)
    return PayloadKeyRotation(settings.state, kept.scribe.keys.kek, kept.ledger, means.clock, every_h, learn)


def _in_the_vault(settings: GatewaySettings, means: Means) -> list[Rotatable]:
    given, vault, duties = settings.rotation, means.vault, vaulting.duties(settings)
    found: list[Rotatable] = [
        Rotation(KeyKind.DATABASE, one, given.database_h, _root(vault, one)) for one in given.databases
    ]
    file = settings.vault.secret_id.file if settings.vault is not None and settings.vault.secret_id else None
    if duties.secret_id is not None and file is not None:
        module = importlib.import_module("gateway.adapters.vault.secret_ids")
        found.append(module.SecretIdRotation(vault, duties.secret_id, file, given.secret_id_h or 0))
    if duties.rewraps:
        found.append(Rotation(KeyKind.PAYLOAD_KEY, "", given.payload_key_h or 0, _payload_key(settings, means)))
    return found


def _root(vault: Any, connection: str) -> Callable[[], Awaitable[object]]:
    mount, _, name = connection.rpartition("/")

    ask = importlib.import_module("gateway.adapters.vault.wire").Ask(f"{mount}/rotate-root/{name}", {}, ("update",))

    async def once() -> None:
        await vault.request_alone(ask)

    return once


def _payload_key(settings: GatewaySettings, means: Means) -> Callable[[], Awaitable[object]]:
    mount, key = settings.audit.vault_mount, settings.audit.vault_key
    transit = importlib.import_module("gateway.adapters.vault.transit").Transit(means.vault, mount, key)

    async def once() -> None:
        await means.vault.update(f"{mount}/keys/{key}/rotate", {})
        try:
            await wrap_anew(
                settings.state / _KEYS, settings.audit.origin, transit, means.record.rotations.scribe.keys.kek.newest
            )
        except StateRefused as error:
            raise Unavailable(str(error), cause_code="key_file") from None

    return once
