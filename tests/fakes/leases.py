"""A vault, a lease journal and a lease meter in memory, and the leases that stand on them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.adapters.credentials.leases import LeaseParts, Leases
from gateway.core.call import Login
from gateway.core.known import KnownValues
from gateway.core.leasing import (
    Holder,
    Leftover,
    MintedLogin,
    MintingToken,
    Provider,
    Step,
    Template,
    VaultCause,
    VaultFault,
)
from tests.clock import StepClock
from tests.fakes.journal import Journal

READ = Template("erp-read", "database", "erp-read", "erp-read", 120)
WRITE = Template("erp-write", "database", "erp-write", "erp-write", 120)
KEY = Template(
    "api-key",
    "secret",
    "erp/api",
    "api-key",
    120,
    header="Authorization",
    provider=Provider.KV,
    member="key",
    prefix="Bearer ",
)
SHARED = replace(READ, name="erp-shared", is_shared=True)
TEMPLATES = {template.name: template for template in (READ, WRITE, KEY, SHARED)}


def fault(cause: VaultCause, *, undone: bool = False) -> VaultFault:
    """What a vault in trouble raises."""
    return VaultFault(cause, "the vault is in trouble", fix="mend it", undone=undone)


@dataclass(slots=True)
class FakeVault:
    """The Vault port: tokens and logins in dictionaries; each step can be trapped by the journal.

    Attributes:
        tokens: the template of each live token, by accessor.
        logins: the accessor and login of each live lease, by lease id.
        ttl_s: how long logins last.
        value: what the one secret of kv holds.
        keeps: whether a revoked login stays, as where the database behind the vault is down.
        stuck: accessors and lease ids that cannot be ended, whatever else can.
        names: what live tokens are called, by accessor.
        lost: names of tokens by which the database has roles that the vault does not know.
        reaped: names of tokens whose roles were looked for, in order; ``stuck`` ones cannot be.
        names_users: whether users are named by the token that asks.
        trouble: why nothing is ever reaped, as where the vault is not set up for it.
    """

    journal: Journal = field(default_factory=Journal)
    tokens: dict[str, str] = field(default_factory=dict)
    logins: dict[str, tuple[str, Login]] = field(default_factory=dict)
    period_s: int = 30
    left_s: int = 30
    ttl_s: int = 60
    keeps: bool = False
    password: str | None = None
    value: str = "ak-0123456789abcdef"
    stuck: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    reaped: list[str] = field(default_factory=list)
    names_users: bool = True
    trouble: VaultCause | None = None
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def open_token(self, template: Template, name: str = "") -> MintingToken:
        """A token that can mint by this template."""
        await self.journal.reach("vault.open_token")
        if template.name not in TEMPLATES:
            raise fault(VaultCause.DENIED)
        number = next(self._numbers)
        self.tokens[f"accessor-{number}"] = template.name
        accessor, secret = f"accessor-{number}", f"s.token-secret-{number}"
        self.names[accessor] = name
        return MintingToken(accessor, secret, self.period_s, f"request-{number}", name)

    async def renew_token(self, accessor: str) -> int:
        """``left_s``, while the token lives."""
        await self.journal.reach("vault.renew_token")
        if accessor not in self.tokens:
            raise fault(VaultCause.NO_ROLE)
        return self.left_s

    async def revoke_token(self, accessor: str) -> None:
        """The token and its logins are gone."""
        await self.journal.reach("vault.revoke_token")
        if accessor in self.stuck:
            raise fault(VaultCause.FAILED)
        self.tokens.pop(accessor, None)
        self.names.pop(accessor, None)
        self.logins = {lease: held for lease, held in self.logins.items() if held[0] != accessor}

    async def mint(self, template: Template, token: MintingToken) -> MintedLogin:
        """A login; a fault at ``vault.minted`` strikes when it exists."""
        await self.journal.reach("vault.mint")
        if self.tokens.get(token.accessor) != template.name:
            raise fault(VaultCause.DENIED)
        number = next(self._numbers)
        if template.provider is Provider.KV:
            await self.journal.reach("vault.minted")
            lease_id = f"{template.mount}/data/{template.role}@{token.accessor}"
            return MintedLogin(lease_id, Login("", self.value), self.period_s, f"request-{number}", token.accessor)
        named = f"{token.name}-" if token.name and self.names_users else ""
        login = Login(f"v-{named}{template.role}-{number}", self.password or f"Passw0rdOfLogin{number:06}")
        lease_id = f"{template.mount}/creds/{template.role}/{number}"
        self.logins[lease_id] = (token.accessor, login)
        await self.journal.reach("vault.minted")
        return MintedLogin(lease_id, login, self.ttl_s, f"request-{number}")

    async def reap(self, template: Template, token: MintingToken) -> None:
        """Nothing of that name is lost any more; no other token of that name may be live."""
        await self.journal.reach("vault.reap")
        if self.trouble is not None:
            raise fault(self.trouble, undone=True)
        if self.tokens.get(token.accessor) != template.name:
            raise fault(VaultCause.DENIED)
        assert list(self.names.values()).count(token.name) == 1
        if token.name in self.stuck:
            raise fault(VaultCause.FAILED)
        self.lost.discard(token.name)
        self.reaped.append(token.name)

    async def revoke_login(self, lease_id: str, *, wait: bool) -> None:
        """The login is gone; not waiting is another step."""
        await self.journal.reach("vault.revoke_login" if wait else "vault.revoke_later")
        if lease_id in self.stuck:
            raise fault(VaultCause.FAILED)
        if not self.keeps:
            self.logins.pop(lease_id, None)

    async def login_exists(self, lease_id: str) -> bool:
        """Whether it is there."""
        await self.journal.reach("vault.login_exists")
        return lease_id in self.logins

    async def ping(self) -> None:
        """Reach the step ``vault.ping``."""
        await self.journal.reach("vault.ping")


@dataclass(slots=True)
class FakeLeaseJournal:
    """The LeaseJournal port: ``lines`` is what was journalled, in order; ``since_us`` how far back it was read."""

    journal: Journal
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    since_us: int | None = None

    async def opened(self, holder: Holder, template: Template, token: MintingToken) -> None:
        """Note it."""
        await self.journal.reach("journal.opened")
        self.lines.append(("opened", template.name, token.accessor))

    def leased(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """Note it."""
        self.journal.note("journal.leased")
        self.lines.append(("leased", template.name, minted.lease_id))

    def reused(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """Note it."""
        self.journal.note("journal.reused")
        self.lines.append(("reused", template.name, minted.lease_id))

    def pending(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """Note it."""
        self.lines.append(("pending", cause, minted.lease_id))

    def revoked(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """Note it."""
        self.lines.append(("revoked", cause, minted.lease_id))

    def closed(self, holder: Holder, template: str, accessor: str, cause: str, *, reaped: bool = False) -> None:
        """Note it."""
        self.lines.append(("reaped" if reaped else "closed", cause, accessor))

    def doubted(self, holder: Holder, template: str, accessor: str, name: str, cause: str) -> None:
        """Note it."""
        self.lines.append(("doubted", cause, accessor))

    async def leftovers(self, since_us: int) -> Sequence[Leftover]:
        """What the test left."""
        self.since_us = since_us
        await self.journal.reach("journal.leftovers")
        return tuple(self.left)

    def swept(self, leftover: Leftover, *, reaped: bool = False) -> None:
        """Note it."""
        self.left.remove(leftover)
        self.lines.append(("swept and reaped" if reaped else "swept", leftover.template, leftover.mark))

    def words(self) -> list[str]:
        """What happened, without whom it happened to."""
        return [line[0] for line in self.lines]


@dataclass(slots=True)
class FakeLeaseMeter:
    """Keeps the last numbers, and all faults."""

    live: int = 0
    pending: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)

    def leases(self, live: int, pending: int) -> None:
        """Keep them."""
        self.live, self.pending = live, pending

    def lease_fault(self, step: Step, cause: str) -> None:
        """Keep it."""
        self.faults.append((str(step), cause))


@dataclass(slots=True)
class Mint:
    """Leases on fakes, and all that stands around them."""

    journal: Journal = field(default_factory=Journal)
    clock: StepClock = field(default_factory=StepClock)
    known: KnownValues = field(default_factory=KnownValues)
    meter: FakeLeaseMeter = field(default_factory=FakeLeaseMeter)
    vault: FakeVault = field(init=False)
    lines: FakeLeaseJournal = field(init=False)

    def __post_init__(self) -> None:
        """Build the parts that share the journal."""
        self.vault, self.lines = FakeVault(self.journal), FakeLeaseJournal(self.journal)

    def leases(self) -> Leases:
        """The leases; to be entered."""
        parts = LeaseParts(self.vault, self.lines, self.known, self.clock, self.meter)
        return Leases(TEMPLATES, parts)

    def knows(self, value: str) -> bool:
        """Whether the redactor would take it out."""
        return any(part.spans(value.encode()) for part in self.known.segments)
