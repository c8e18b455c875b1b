"""Fake identity and runs: who calls, and the run the call belongs to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import Lock

from gateway.core.call import Call, Caller, Live, Principal, Proof, Resolved, Run, RunKind
from gateway.core.errors import BudgetExhausted, NotFound, Unauthenticated
from gateway.core.usage import Reservation, Usage
from tests.fakes.journal import Journal

FAR_US = 4_000_000_000_000_000
AGENT = Principal(
    issuer="ostiary",
    user="ada",
    agent="ap-agent",
    groups=frozenset({"finance"}),
    scopes=frozenset({"tools"}),
    auth_method="local",
    jti="token-1",
    expires_us=FAR_US,
)
RUN = Run(
    id="0197a000-0000-7000-8000-000000000001",
    kind=RunKind.IMPLICIT,
    principal_key=AGENT.key,
    opened_by="ada",
    goal=None,
    scope=(),
    budget={},
    plan=(),
    started_us=0,
    expires_us=FAR_US,
)


@dataclass(slots=True)
class FakeIdentity:
    """Knows the tokens it was given; any other is not good. Vouches for nobody of the issuers in ``dropped``."""

    journal: Journal
    tokens: dict[str, Principal] = field(default_factory=lambda: {"good": AGENT})
    dropped: set[str] = field(default_factory=set)

    def vouches(self, principal: Principal) -> bool:
        """Whether it was not dropped."""
        return principal.issuer not in self.dropped

    async def authenticate(self, call: Call) -> Principal:
        """The principal of the call's token."""
        await self.journal.reach("identity.authenticate")
        principal = self.tokens.get(call.origin.token) if isinstance(call.origin, Live) else None
        if principal is None:
            raise Unauthenticated("the token is not good")
        return principal

    async def ping(self) -> None:
        """Reach the step ``identity.ping``."""
        await self.journal.reach("identity.ping")


@dataclass(slots=True)
class FakeSection:
    """A run's ledger, held by one call."""

    journal: Journal
    run: Run
    usage: Usage

    def reserve(self, target: Resolved) -> Reservation:
        """Count the call in, within the run's budget of calls."""
        self.journal.note("section.reserve")
        if self.usage.calls.total() >= self.run.budget.get("calls", FAR_US):
            raise BudgetExhausted("the run's budget of calls is used up")
        return self.usage.reserve(target.tool.fqn, {})


@dataclass(slots=True)
class FakeRuns:
    """Runs by id; a call that names none is in ``implicit``."""

    journal: Journal
    implicit: Run = RUN
    opened: dict[str, Run] = field(default_factory=dict)
    usages: dict[str, Usage] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)

    async def enter(self, call: Call, principal: Principal) -> Caller:
        """The caller, in the run the call names."""
        await self.journal.reach("runs.enter")
        run = self.implicit if call.run is None else self.opened.get(call.run)
        if run is None or run.principal_key != principal.key:
            raise NotFound("no such run")
        known = (self.proofs.get(name) for name in call.reported.evidence)
        return Caller(call, principal, run, tuple(proof for proof in known if proof is not None))

    @asynccontextmanager
    async def section(self, caller: Caller) -> AsyncIterator[FakeSection]:
        """The run's ledger, one call at a time."""
        run = caller.run
        await self.journal.reach("runs.section")
        async with self.locks.setdefault(run.id, Lock()):
            yield FakeSection(self.journal, run, self.usage(run.id))
        self.journal.note("runs.section.left")

    def usage(self, run_id: str) -> Usage:
        """What the run has used so far."""
        return self.usages.setdefault(run_id, Usage())

    async def ping(self) -> None:
        """Reach the step ``runs.ping``."""
        await self.journal.reach("runs.ping")
