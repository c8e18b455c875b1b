"""Persons' connections as configured: the services, where they are kept, and the access tokens calls get of them."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.adapters.connections import Accounts, Client, Endpoints, Link, OAuthServer, PersonTokens, TokenParts
from gateway.adapters.connections.server import Reach
from gateway.adapters.credentials import SecretSource, read_secret
from gateway.core.connections import ConnectionJournal, Keeper
from gateway.core.errors import GatewayError, Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import Provider, Template, Vault, VaultFault
from gateway.core.needles import UnfitSecret
from gateway.core.ports import Clock
from gateway.findings import Finding
from gateway.parts import clients
from gateway.settings import GatewaySettings
from gateway.settings.connections import ConnectionSection


@dataclass(frozen=True, slots=True)
class Persons:
    """What stands behind ``[connections.*]``."""

    desk: Accounts
    tokens: PersonTokens


def opened(
    settings: GatewaySettings, vault: Vault, keeper: Keeper, parts: tuple[ConnectionJournal, KnownValues, Clock]
) -> Persons | None:
    """The connections, if any are configured; no service is asked for anything yet.

    Raises:
        SettingsError: a certificate cannot be used.
    """
    if not settings.connections:
        return None
    journal, known, clock = parts
    given = TokenParts(keeper, journal, known, clock)
    links = {name: _link(name, settings, known, clock) for name in settings.connections}
    tokens = PersonTokens(links, given)
    return Persons(Accounts(links, vault, given, tokens), tokens)


async def trial(name: str, settings: GatewaySettings, accounts: Accounts) -> Finding:
    """Try the service and the vault behind the lease template ``name``, without anybody's account."""
    lease = settings.leases[name]
    assert lease.connection is not None  # the settings say so
    part = f"lease:{name}"
    try:
        revokes = await accounts.check(lease.connection)
    except VaultFault as fault:
        return Finding(part, ok=False, text=fault.detail, fix=fault.fix)
    except GatewayError as error:
        return Finding(part, ok=False, text=error.detail, fix=f"correct [connections.{lease.connection}]")
    if lease.revoke and not revokes:
        fix = f"set revoke = false in [leases.{name}]: tokens then last until their ttl is over"
        return Finding(part, ok=False, text="the service cannot revoke access tokens after the call", fix=fix)
    return Finding(part, ok=True, text="the service and the vault answer; each person connects an account of their own")


def _link(name: str, settings: GatewaySettings, known: KnownValues, clock: Clock) -> Link:
    given = settings.connections[name]
    session = clients.session(f"connections.{name}.ca_certificate", given.ca_certificate)
    client = Client(given.client_id, _secret(name, given, known), given.client_auth == "body", given.resource)
    server = OAuthServer(given.issuer, _endpoints(given), client, Reach(session, clock, given.timeout_s))
    revokes = all(lease.revoke for lease in settings.leases.values() if lease.connection == name)
    return Link(name, server, _place(name, given), _scopes(name, settings), revokes)


def _scopes(name: str, settings: GatewaySettings) -> tuple[str, ...]:
    # All that a template could ask for: a refresh token can be used for less, never for more.
    wanted = dict.fromkeys(settings.connections[name].scopes)
    for lease in settings.leases.values():
        if lease.connection == name:
            wanted |= dict.fromkeys(lease.scopes)
    return tuple(wanted)


def _endpoints(given: ConnectionSection) -> Endpoints | None:
    if given.authorization_url is None or given.token_url is None:
        return None
    return Endpoints(given.authorization_url, given.token_url, given.revocation_url)


def _place(name: str, given: ConnectionSection) -> Template:
    return Template(
        name=f"connection-{name}",
        mount=given.mount,
        role=name,
        token_role=given.token_role,
        longest_s=given.period_s,
        policy=given.policy,
        provider=Provider.OAUTH_USER,
    )


def _secret(name: str, given: ConnectionSection, known: KnownValues) -> Callable[[], str] | None:
    if given.client_secret is None:
        return None
    what = f"connections.{name}.client_secret"
    source = SecretSource(env=given.client_secret.env, file=given.client_secret.file)

    def read() -> str:
        return _learnt(what, read_secret(what, source, os.environ), known)

    with suppress(Unavailable):  # known before anything could show it; what is missing is said when it is needed
        read()
    return read


def _learnt(what: str, value: str, known: KnownValues) -> str:
    if value not in known.needles.values:
        try:
            known.add(value)
        except UnfitSecret as error:
            raise Unavailable(f"{what} cannot be kept out of outputs: {error}", cause_code="credential") from None
    return value
