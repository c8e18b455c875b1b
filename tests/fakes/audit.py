"""A log in memory that keeps the word of the real one: intents and endings, in order, one ending each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from gateway.core.advice import Advice, Word
from gateway.core.call import Answer, Call, Caller, Intent, Principal, Quota, Redacted, Resolved
from gateway.core.decision import Decision
from gateway.core.errors import Ending, GatewayError, OutcomeUnknown, Unavailable
from gateway.core.ports import Said
from tests.fakes.journal import Journal

COMPLETED = "tool.completed"
REFUSED = "call.refused"
INTENT = "tool.requested"
ADVISORY = "decision.advisory"


@dataclass(frozen=True, slots=True)
class Line:
    """One durable record: its type, its call, and what else it says (error code, effect)."""

    type: str
    call_id: str
    word: str = ""


@dataclass(slots=True)
class MemoryEntry:
    """The log's view of one call."""

    audit: "MemoryAudit"
    call: Call
    caller: Caller | None = None
    decision: Decision | None = None
    requested: bool = False
    ended: bool = False

    def entered(self, caller: Caller) -> Caller:
        """Note the run."""
        self.audit.journal.note("entry.entered")
        self.caller = caller
        return caller

    def decided(self, target: Resolved, decision: Decision) -> None:
        """Note the decision."""
        self.audit.journal.note("entry.decided")
        self.decision = decision

    async def commit(self, quota: Quota) -> Intent:
        """Write the intent and keep the reservation; a fault at ``entry.committed`` strikes after the write."""
        await self.audit.journal.reach("entry.commit")
        self._write(INTENT, quota.permit.decision.effect)
        self.requested = True
        quota.permit.reservation.keep()
        self.audit.journal.note("entry.committed")
        return Intent(quota, record_id=f"record-{len(self.audit.lines)}")

    async def note(self, said: Said) -> None:
        """Write what is asked, or answered."""
        await self.audit.journal.reach("entry.note")
        self._write(f"input.{said.stage}", said.decision.effect)

    async def complete(self, output: Redacted) -> Answer:
        """Write the completion."""
        try:
            await self.audit.journal.reach("entry.complete")
        except Unavailable:
            raise OutcomeUnknown("the completion could not be recorded") from None
        self._write(COMPLETED)
        self.ended = True
        is_error = bool(output.value.get("isError", False))
        run_id = "" if self.caller is None else self.caller.run.id
        return Answer(self.call.id, run_id, output.body, is_error, sum(output.counts.values()))

    def end(self, error: BaseException) -> None:
        """Write how a call ended that has no answer."""
        if self.ended:
            return
        self.ended = True
        word, ending = "cancelled", Ending.UNKNOWN
        if isinstance(error, GatewayError):
            word, ending = error.cause_code, error.ending
        self._write(ending if self.requested else REFUSED, word)

    def _write(self, kind: str, word: str = "") -> None:
        self.audit.lines.append(Line(kind, self.call.id, word))


@dataclass(slots=True)
class MemoryConsultation:
    """The log's view of one question about what an agent will do itself."""

    audit: "MemoryAudit"
    call: Call
    caller: Caller | None = None
    decision: Decision | None = None
    ended: bool = False

    def entered(self, caller: Caller) -> Caller:
        """Note the run."""
        self.audit.journal.note("consultation.entered")
        self.caller = caller
        return caller

    def decided(self, target: Resolved, decision: Decision) -> None:
        """Note the decision."""
        self.audit.journal.note("consultation.decided")
        self.decision = decision

    async def advise(self, word: Word) -> Advice:
        """Write the one line."""
        await self.audit.journal.reach("consultation.advise")
        self.audit.lines.append(Line(ADVISORY, self.call.id, word))
        self.ended = True
        run_id = "" if self.caller is None else self.caller.run.id
        reasons = () if self.decision is None else tuple(reason.id for reason in self.decision.reasons)
        return Advice(self.call.id, run_id, word, reasons)


@dataclass(slots=True)
class MemoryAudit:
    """The AuditLog port: ``lines`` is what is durable, in order."""

    journal: Journal
    lines: list[Line] = field(default_factory=list)
    opened: int = 0

    @asynccontextmanager
    async def open(self, call: Call, principal: Principal) -> AsyncIterator[MemoryEntry]:
        """An entry that ends exactly once, shielded from cancellation."""
        self.journal.note("audit.open")
        self.opened += 1
        entry = MemoryEntry(self, call)
        try:
            yield entry
        # The log must know every end, a cancellation too.
        except BaseException as error:
            with CancelScope(shield=True):
                await checkpoint()
                entry.end(error)
            raise

    @asynccontextmanager
    async def consult(self, call: Call, principal: Principal) -> AsyncIterator[MemoryConsultation]:
        """An entry of a question: one line, and none of a call's."""
        self.journal.note("audit.consult")
        entry = MemoryConsultation(self, call)
        try:
            yield entry
        except BaseException as error:
            if not entry.ended:
                word = error.cause_code if isinstance(error, GatewayError) else "cancelled"
                self.lines.append(Line(ADVISORY, call.id, word))
            raise

    def types(self, call_id: str) -> list[str]:
        """The record types of one call, in order."""
        return [line.type for line in self.lines if line.call_id == call_id]

    async def ping(self) -> None:
        """Reach the step ``audit.ping``."""
        await self.journal.reach("audit.ping")
