"""The gateway's ports with a watch on each: thin shells around the real parts that say which step is being passed.

Nothing is answered here. A shell tells the watch, hands on to the part, and tells the watch again.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from deploy.campaigns.faults.plan import Point, Side, Step
from gateway.core.bell import Bell
from gateway.core.call import (
    Answer,
    Call,
    Caller,
    Intent,
    Lease,
    Live,
    Permit,
    Principal,
    Quota,
    Raw,
    Redacted,
    Resolved,
    Resumed,
    Verified,
)
from gateway.core.decision import Decision, Evaluation
from gateway.core.ports import (
    AuditLog,
    Broker,
    Catalog,
    Consultation,
    Entry,
    Identity,
    Limits,
    PolicyEngine,
    Ports,
    Redactor,
    Runs,
    Said,
    Section,
    Verifier,
)
from gateway.core.tool import Tool
from gateway.core.usage import Reservation, Usage


@dataclass(frozen=True, slots=True)
class Watch:
    """Is told of each passing.

    Attributes:
        passed: called with the point and the call that passes it, None where the port is not told which.
    """

    passed: Callable[[Point, Call | None], None]

    def before(self, step: Step, call: Call | None) -> None:
        """The step is about to begin."""
        self.passed(Point(step, Side.BEFORE), call)

    def after(self, step: Step, call: Call | None) -> None:
        """The step is done."""
        self.passed(Point(step, Side.AFTER), call)


def watched(ports: Ports, watch: Watch) -> Ports:
    """The same ports, watched."""
    return replace(
        ports,
        identity=WatchedIdentity(ports.identity, watch),
        runs=WatchedRuns(ports.runs, watch),
        catalog=WatchedCatalog(ports.catalog, watch),
        policy=WatchedPolicy(ports.policy, watch),
        limits=WatchedLimits(ports.limits, watch),
        broker=WatchedBroker(ports.broker, watch),
        verifier=WatchedVerifier(ports.verifier, watch),
        redactor=WatchedRedactor(ports.redactor, watch),
        audit=WatchedAudit(ports.audit, watch),
    )


@dataclass(frozen=True, slots=True)
class WatchedIdentity:
    """Passes ``identity``."""

    inner: Identity
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    def vouches(self, principal: Principal) -> bool:
        """As the part does."""
        return self.inner.vouches(principal)

    async def authenticate(self, call: Call) -> Principal:
        """As the part does."""
        self.watch.before(Step.IDENTITY, call)
        principal = await self.inner.authenticate(call)
        self.watch.after(Step.IDENTITY, call)
        return principal


@dataclass(slots=True)
class WatchedSection:
    """Passes ``reserve``."""

    inner: Section
    watch: Watch
    usage: Usage

    def reserve(self, target: Resolved) -> Reservation:
        """As the part does."""
        self.watch.before(Step.RESERVE, target.call)
        reservation = self.inner.reserve(target)
        self.watch.after(Step.RESERVE, target.call)
        return reservation


@dataclass(frozen=True, slots=True)
class WatchedRuns:
    """Passes ``run`` and both ends of ``section``."""

    inner: Runs
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    async def enter(self, call: Call, principal: Principal) -> Caller:
        """As the part does."""
        self.watch.before(Step.RUN, call)
        caller = await self.inner.enter(call, principal)
        self.watch.after(Step.RUN, call)
        return caller

    @asynccontextmanager
    async def section(self, caller: Caller) -> AsyncIterator[Section]:
        """As the part does."""
        self.watch.before(Step.SECTION_OPEN, caller.call)
        try:
            async with self.inner.section(caller) as section:
                self.watch.after(Step.SECTION_OPEN, caller.call)
                try:
                    yield WatchedSection(section, self.watch, section.usage)
                finally:
                    self.watch.before(Step.SECTION_CLOSE, caller.call)
        finally:
            self.watch.after(Step.SECTION_CLOSE, caller.call)


@dataclass(frozen=True, slots=True)
class WatchedCatalog:
    """Passes ``resolve`` and ``invoke``."""

    inner: Catalog
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    def tools(self) -> Sequence[Tool]:
        """As the part does."""
        return self.inner.tools()

    def resolve(self, caller: Caller) -> Resolved:
        """As the part does."""
        self.watch.before(Step.RESOLVE, caller.call)
        target = self.inner.resolve(caller)
        self.watch.after(Step.RESOLVE, caller.call)
        return target

    def checked(self, target: Resolved) -> Resolved:
        """As the part does."""
        return self.inner.checked(target)

    @property
    def bell(self) -> Bell:
        """As the part does."""
        return self.inner.bell

    async def invoke(self, lease: Lease) -> Raw:
        """As the part does."""
        self.watch.before(Step.INVOKE, lease.intent.call)
        raw = await self.inner.invoke(lease)
        self.watch.after(Step.INVOKE, lease.intent.call)
        return raw


@dataclass(frozen=True, slots=True)
class WatchedPolicy:
    """Passes ``policy``."""

    inner: PolicyEngine
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    def known(self, about: bytes) -> Evaluation | None:  # noqa: ARG002
        """Nothing, so that every call passes."""
        return None

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """As the part does."""
        self.watch.before(Step.POLICY, None)
        evaluation = await self.inner.evaluate(decision_id, inputs)
        self.watch.after(Step.POLICY, None)
        return evaluation


@dataclass(frozen=True, slots=True)
class WatchedLimits:
    """Passes both ends of ``limits``."""

    inner: Limits
    watch: Watch

    @asynccontextmanager
    async def spend(self, permit: Permit) -> AsyncIterator[Quota]:
        """As the part does."""
        call = permit.target.call
        self.watch.before(Step.LIMITS_OPEN, call)
        try:
            async with self.inner.spend(permit) as quota:
                self.watch.after(Step.LIMITS_OPEN, call)
                try:
                    yield quota
                finally:
                    self.watch.before(Step.LIMITS_CLOSE, call)
        finally:
            self.watch.after(Step.LIMITS_CLOSE, call)


@dataclass(frozen=True, slots=True)
class WatchedBroker:
    """Passes both ends of ``lease``."""

    inner: Broker
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    @asynccontextmanager
    async def lease(self, intent: Intent) -> AsyncIterator[Lease]:
        """As the part does."""
        self.watch.before(Step.LEASE_OPEN, intent.call)
        try:
            async with self.inner.lease(intent) as lease:
                self.watch.after(Step.LEASE_OPEN, intent.call)
                try:
                    yield lease
                finally:
                    self.watch.before(Step.LEASE_CLOSE, intent.call)
        finally:
            self.watch.after(Step.LEASE_CLOSE, intent.call)


@dataclass(frozen=True, slots=True)
class WatchedVerifier:
    """Passes ``verify``."""

    inner: Verifier
    watch: Watch

    def verify(self, raw: Raw) -> Verified:
        """As the part does."""
        self.watch.before(Step.VERIFY, raw.lease.intent.call)
        verified = self.inner.verify(raw)
        self.watch.after(Step.VERIFY, raw.lease.intent.call)
        return verified


@dataclass(frozen=True, slots=True)
class WatchedRedactor:
    """Passes ``redact``."""

    inner: Redactor
    watch: Watch

    async def holds(self, body: bytes) -> bool:
        """As the part does."""
        return await self.inner.holds(body)

    def notice(self, origin: Live | Resumed, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        """As the part does."""
        return self.inner.notice(origin, body)

    async def redact(self, verified: Verified) -> Redacted:
        """As the part does."""
        call = verified.raw.lease.intent.call
        self.watch.before(Step.REDACT, call)
        redacted = await self.inner.redact(verified)
        self.watch.after(Step.REDACT, call)
        return redacted


@dataclass(frozen=True, slots=True)
class WatchedEntry:
    """Passes ``entered``, ``decided``, ``commit`` and ``complete``."""

    inner: Entry
    watch: Watch

    def entered(self, caller: Caller) -> Caller:
        """As the part does."""
        self.watch.before(Step.ENTERED, caller.call)
        entered = self.inner.entered(caller)
        self.watch.after(Step.ENTERED, caller.call)
        return entered

    def decided(self, target: Resolved, decision: Decision) -> None:
        """As the part does."""
        self.watch.before(Step.DECIDED, target.call)
        self.inner.decided(target, decision)
        self.watch.after(Step.DECIDED, target.call)

    async def commit(self, quota: Quota) -> Intent:
        """As the part does."""
        call = quota.permit.target.call
        self.watch.before(Step.COMMIT, call)
        intent = await self.inner.commit(quota)
        self.watch.after(Step.COMMIT, call)
        return intent

    async def note(self, said: Said) -> None:
        """As the part does; no call of a campaign is asked anything."""
        await self.inner.note(said)

    async def complete(self, output: Redacted) -> Answer:
        """As the part does."""
        self.watch.before(Step.COMPLETE, output.intent.call)
        answer = await self.inner.complete(output)
        self.watch.after(Step.COMPLETE, output.intent.call)
        return answer


@dataclass(frozen=True, slots=True)
class WatchedAudit:
    """Passes both ends of ``audit``, and all that its entries pass."""

    inner: AuditLog
    watch: Watch

    async def ping(self) -> None:
        """As the part does."""
        await self.inner.ping()

    def open(self, call: Call, principal: Principal) -> AbstractAsyncContextManager[Entry]:
        """As the part does."""
        return self._opened(call, principal)

    def consult(self, call: Call, principal: Principal) -> AbstractAsyncContextManager[Consultation]:
        """As the part does: advice has no effect that a fault could leave half done."""
        return self.inner.consult(call, principal)

    @asynccontextmanager
    async def _opened(self, call: Call, principal: Principal) -> AsyncIterator[Entry]:
        self.watch.before(Step.AUDIT_OPEN, call)
        try:
            async with self.inner.open(call, principal) as entry:
                self.watch.after(Step.AUDIT_OPEN, call)
                try:
                    yield WatchedEntry(entry, self.watch)
                finally:
                    self.watch.before(Step.AUDIT_CLOSE, call)
        finally:
            self.watch.after(Step.AUDIT_CLOSE, call)
