"""Logins minted for calls, as configured: the vault, the templates, and the databases that are reached with them."""

import importlib
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from gateway.adapters.credentials import Leases, SecretSource, read_secret
from gateway.adapters.credentials.leases import LeaseParts
from gateway.core.call import Login
from gateway.core.connections import ConnectionJournal, Keeper
from gateway.core.connector import Connector
from gateway.core.desk import LiveLease, Ping, Whose
from gateway.core.errors import GatewayError
from gateway.core.known import KnownValues
from gateway.core.leasing import (
    Holder,
    LeaseJournal,
    LeaseMeter,
    Provider,
    Template,
    Vault,
    VaultCause,
    VaultFault,
    is_named,
)
from gateway.core.ports import Clock
from gateway.core.tool import Tool
from gateway.findings import Finding
from gateway.parts import accounts
from gateway.parts.accounts import Persons
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.upstreams import SqlUpstream
from gateway.settings.vault import BreakGlassSection, LeaseSection, VaultSection

_SEE_LOG = "see the gateway's log"
_MOUNTS = {Provider.DATABASE: "database", Provider.KV: "secret", Provider.PKI: "pki"}
_TRIED = {
    Provider.DATABASE: "a login was minted and ended; {} statements were planned with it",
    Provider.KV: "the value was read and its token ended; the secret itself is static",
    Provider.PKI: "a certificate was issued and revoked",
}
_REAPS_NOT = "what a cut-off minting leaves cannot be dropped"
_REAPS_LATE = "what a cut-off minting leaves is dropped by a later minting, once it has ended; for at once"
_NAME_THEM = "set username_template of the vault's database connection as docs/credentials.md has it"
_EXTRA = "pip install 'ostiary[postgres]'"


class NoLeases:
    """Implements ``core.desk.LeaseDesk`` where nothing is minted."""

    def live(self) -> tuple[LiveLease, ...]:
        """None."""
        return ()

    async def revoke(self, whose: Whose) -> tuple[int, int]:  # noqa: ARG002 - the signature is the desk's
        """There are none."""
        return 0, 0


@runtime_checkable
class Planner(Protocol):
    """A connector that can say what is wrong with a statement without running it."""

    async def plan(self, login: Login, tool: Tool) -> str | None:
        """What is wrong, or None."""


@dataclass(frozen=True, slots=True)
class Means:
    """What minting needs of the other parts; ``vault``: None where none is configured."""

    vault: Vault | None
    journal: LeaseJournal
    known: KnownValues
    clock: Clock
    meter: LeaseMeter
    connections: ConnectionJournal


@dataclass(frozen=True, slots=True)
class Lending:
    """What credentials of calls come from; None each where nothing of it is configured."""

    leases: Leases | None = None
    persons: Persons | None = None


async def opened(settings: GatewaySettings, means: Means, stack: AsyncExitStack) -> Lending:
    """The leases, if any are configured; ``stack`` ends them. A vault that is down keeps nobody from starting."""
    if means.vault is None or not (settings.leases or settings.connections):
        return Lending()
    keeper: Keeper = _vaults().ConnectionKeeper(means.vault)
    persons = accounts.opened(settings, means.vault, keeper, (means.connections, means.known, means.clock))
    tokens = None if persons is None else persons.tokens
    parts = LeaseParts(means.vault, means.journal, means.known, means.clock, means.meter, tokens)
    return Lending(await stack.enter_async_context(Leases(templates(settings), parts)), persons)


def postgres(name: str, upstream: SqlUpstream) -> Any:
    """The connector of a PostgreSQL upstream.

    Raises:
        SettingsError: the extra is not installed, or the URL cannot be used.
    """
    module = _module(name)
    try:
        place = module.target(upstream.url, upstream.ca_certificate, insecure=upstream.insecure)
    except (ValueError, OSError) as error:
        raise SettingsError([f"upstreams.{name}.url: {error}"]) from None
    return module.PostgresConnector(place)


def misbound(tool: Tool) -> list[str]:
    """What is wrong with a statement for PostgreSQL, without asking it."""
    found: list[str] = _module(tool.server).check(tool)
    if tool.credential is None:
        lease = "write_lease" if tool.binding.get("mode") == "write" else "read_lease"
        found.append(f"{tool.fqn}: upstreams.{tool.server} has no {lease}")
    return found


def reach(name: str, connector: Connector, settings: GatewaySettings, leases: Leases | None) -> Ping:
    """The readiness check of one upstream: itself, and the vault where its users are minted there."""
    templates = settings.leases_of(name)
    if leases is None or not templates:
        return connector.ping

    async def both() -> None:
        for template in templates:
            await leases.ping(template)
        await connector.ping()

    return both


async def trials(
    settings: GatewaySettings, lending: Lending, connectors: Mapping[str, Connector], tools: Iterable[Tool]
) -> list[Finding]:
    """Try each template: mint a login and plan its tools' statements with it, or read the value; all is ended again."""
    leases, persons = lending.leases, lending.persons
    if leases is None:
        return []
    own = [name for name, lease in settings.leases.items() if lease.connection is not None]
    found = [await accounts.trial(name, settings, persons.desk) for name in own if persons is not None]
    by_template: dict[str, list[Tool]] = {name: [] for name in settings.leases if name not in own}
    for tool in tools:
        if tool.credential in by_template:
            by_template[tool.credential].append(tool)
    for template, mine in by_template.items():
        done = _tried(settings.leases[template], len(mine))
        found += await _trial(template, mine, leases, connectors, done)
    return found


async def _trial(
    template: str, tools: list[Tool], leases: Leases, connectors: Mapping[str, Connector], done: str
) -> list[Finding]:
    part = f"lease:{template}"
    lasting_s = max((tool.limits.timeout_s for tool in tools), default=0.0)
    try:
        async with leases.login(template, Holder(), lasting_s) as login:
            wrong = [(tool, await _planned(connectors[tool.server], login, tool)) for tool in tools]
            user = login.user
    except VaultFault as fault:
        return [Finding(part, ok=False, text=fault.detail, fix=fault.fix)]
    except GatewayError as error:
        return [Finding(part, ok=False, text=error.detail, fix=_SEE_LOG)]
    fix = f"grant it to the group role of {template}, or correct the statement"
    bad = [Finding(f"tool:{tool.fqn}", ok=False, text=said, fix=fix) for tool, said in wrong if said is not None]
    return [Finding(part, ok=True, text=done), *await _reaping(template, user, leases), *bad]


async def _reaping(template: str, user: str, leases: Leases) -> list[Finding]:
    # What was not set up for it works as it did before, and is told what it does without.
    part = f"lease:{template}"
    try:
        if not await leases.prove_reaping(template):
            return []
    except VaultFault as fault:
        if fault.cause_code not in {VaultCause.NO_ROLE, VaultCause.DENIED}:
            return [Finding(part, ok=False, text=f"{_REAPS_NOT} ({fault.detail})", fix=fault.fix)]
        return [Finding(part, ok=True, text=f"{_REAPS_LATE}: {fault.fix}")]
    except GatewayError as error:
        return [Finding(part, ok=False, text=error.detail, fix=_SEE_LOG)]
    if not is_named(user):
        return [Finding(part, ok=False, text=f"{_REAPS_NOT} (users are not named by their tokens)", fix=_NAME_THEM)]
    return [Finding(part, ok=True, text="what a cut-off minting leaves is dropped at once")]


def _tried(given: LeaseSection, tools: int) -> str:
    if not given.revoke:
        return "a certificate was issued; where the role keeps no leases nothing revokes it before its ttl is over"
    return _TRIED[Provider(given.provider)].format(tools)


async def _planned(connector: Connector, login: Login, tool: Tool) -> str | None:
    return await connector.plan(login, tool) if isinstance(connector, Planner) else None


def _module(name: str) -> Any:
    try:
        return importlib.import_module("connectors.sql.postgres")
    except ModuleNotFoundError:
        raise SettingsError([f"upstreams.{name}.url: PostgreSQL needs the extra `postgres`: {_EXTRA}"]) from None


async def connected(settings: GatewaySettings, known: KnownValues, clock: Clock, stack: AsyncExitStack) -> Any:
    """The one client of the vault, which leases and rotations share; None where neither needs it. Asks nothing yet."""
    rotation = settings.rotation
    rewraps = rotation.payload_key_h is not None and settings.audit.vault_key is not None
    rotates = rotation.secret_id_h is not None or rewraps or rotation.databases or rotation.shared_keys
    if settings.vault is None or not (settings.leases or settings.connections or rotates):
        return None
    return await stack.enter_async_context(client(settings.vault, known, clock))


def client(vault: VaultSection, known: KnownValues, clock: Clock, glass: BreakGlassSection | None = None) -> Any:
    """The vault, to be entered and left; by the break-glass credential where it is given."""
    module = _vaults()
    given = vault.secret_id if vault.secret_id is not None else vault.token
    what = "vault.secret_id" if vault.secret_id is not None else "vault.token"
    role_id = vault.role_id
    if glass is not None:
        given, what, role_id = glass.secret_id, "vault.break_glass.secret_id", glass.role_id
    assert given is not None  # the settings say so
    source = SecretSource(env=given.env, file=given.file)
    access = module.Access(
        secret=lambda: read_secret(what, source, os.environ), role_id=role_id, mount=vault.approle_mount
    )
    return module.VaultClient(address(vault), access, known, clock)


def address(vault: VaultSection) -> Any:
    """Where the vault is."""
    return _vaults().Address(
        url=vault.address,
        ca_certificate=vault.ca_certificate,
        namespace=vault.namespace,
        timeout_s=vault.timeout_s,
        connections=vault.connections,
    )


def _vaults() -> Any:
    # Loaded here: whoever has no vault does not pay for its libraries.
    return importlib.import_module("gateway.adapters.vault")


def templates(settings: GatewaySettings) -> dict[str, Template]:
    """The lease templates by name."""
    return {name: _template(name, given, settings) for name, given in settings.leases.items()}


def _template(name: str, given: LeaseSection, settings: GatewaySettings) -> Template:
    provider = Provider(given.provider)
    # What a person's token is read with is the connection's business, not the template's.
    kept = settings.connections[given.connection] if given.connection is not None else None
    return Template(
        name=name,
        mount=kept.mount if kept is not None else given.mount or _MOUNTS[provider],
        role=given.template_role,
        token_role=kept.token_role if kept is not None else given.token_role or given.template_role,
        longest_s=given.ttl_s,
        policy=kept.policy if kept is not None else given.policy,
        header=given.header,
        provider=provider,
        member=given.member,
        prefix=given.prefix,
        common_name=given.common_name,
        must_revoke=given.revoke,
        is_shared=given.scope == "run",
        scopes=given.scopes,
        variable=given.variable,
        in_file=given.file is not None,
        form=given.filled_form,
    )
