"""The log's view of one call: whatever happens inside the bracket, it ends in exactly one way, and that is recorded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from msgspec import structs

from gateway.adapters.ledger import wording
from gateway.adapters.ledger.allowance import Allowance
from gateway.adapters.ledger.books.runs import RunRegistry
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.handing import settled
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.storage.kill_records import Marks
from gateway.core.call import Answer, Call, Caller, Intent, Principal, Quota, Redacted, Resolved
from gateway.core.decision import Decision
from gateway.core.errors import Ending, GatewayError, NotFound, OutcomeUnknown, Unavailable
from gateway.core.kills import holder_of_caller
from gateway.core.ports import Meter, Said, Stage
from gateway.core.records import Draft, EventType, Payload, Role, identifier
from gateway.core.tool import EffectClass

_UNKNOWN_TOOL = "-"
_STAGES = {Stage.ASKED: (EventType.INPUT_ASKED, Role.REQUEST), Stage.ANSWERED: (EventType.INPUT_ANSWERED, Role.RESULT)}
Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Desk:
    """What every entry writes with; ``clean`` takes secrets out of an upstream's words before they are sealed."""

    ledger: Ledger
    runs: RunRegistry
    meter: Meter
    scribe: Scribe
    allowance: Allowance
    clean: Clean
    marks: Marks


class CallEntry:
    """Implements ``core.ports.Entry``; an async context manager, used once.

    What leaves the bracket: the error that was raised; ``Unavailable`` instead where the refusal itself could not be
    recorded (nothing was executed); ``OutcomeUnknown`` instead where an effect may have happened and its end is not
    known or could not be recorded. A cancellation stays one.
    """

    # What operators count where it ends well.
    done = "completed"

    # As long as nothing has happened.
    _target: Resolved | None = None
    _tool: str | None = None
    _decision: Decision | None = None
    _committed_at: float | None = None
    _is_out = False
    _is_complete = False
    _release: Callable[[], None] | None = None

    def __init__(self, desk: Desk, call: Call, principal: Principal) -> None:
        self._desk = desk
        self._call = call
        self._principal = principal
        self._subject = Subject(desk.scribe.actor(principal), None, call.id)
        self._draft = desk.scribe.draft
        self._now = desk.scribe.clock.monotonic
        self._decided_at = self._started = self._now()

    async def __aenter__(self) -> Self:
        self._desk.ledger.arrive()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = self.done
        try:
            if not self._is_complete:
                error = error or RuntimeError("the call's bracket was left without an ending")
                outcome = _outcome(error)
                await (self._refuse(error) if self._committed_at is None else self._end(error))
        finally:
            self._desk.ledger.leave()
            if self._release is not None:
                self._release()
            self._desk.meter.called(self._tool or _UNKNOWN_TOOL, outcome, self._now() - self._started)

    def entered(self, caller: Caller) -> Caller:
        """Note the run; see ``core.ports.Entry``."""
        self._subject = Subject(self._subject.actor, caller.run.id, self._call.id)
        self._release = self._desk.runs.hold(caller.run.id)
        return caller

    def decided(self, target: Resolved, decision: Decision) -> None:
        """Note the decision; see ``core.ports.Entry``."""
        self._know(target, decision)
        self._decided_at = self._now()

    async def commit(self, quota: Quota) -> Intent:
        """Write decision and intent durably; see ``core.ports.Entry``.

        Raises:
            Unavailable: the log cannot be written.
            NotFound: the run has ended meanwhile.
            Killed: operators have stopped it meanwhile.
        """
        permit = quota.permit
        target, decision = permit.target, permit.decision
        if target is not self._target or decision is not self._decision:
            self._know(target, decision)
        decided = self._decision_draft(target, decision)
        intent = self._draft(
            EventType.TOOL_REQUESTED,
            self._subject,
            wording.requested_body(permit, self._tool),
            wording.request_payload(self._call),
            at_us=decided.at_us,  # it is the decision that makes it an intent
            fences=self._desk.marks.stopping(holder_of_caller(target.caller, target.tool.fqn)),
        )
        handed = self._desk.ledger.hand_in([decided, intent])
        try:
            await handed.recorded()
        finally:
            # Also where a cancellation came meanwhile: it is delivered only now, and the intent is on disk.
            if handed.is_durable:
                self._committed_at = self._now()
                permit.reservation.keep()
        self._is_out = True
        return Intent(quota, intent.id)

    async def note(self, said: Said) -> None:
        """Write what is asked of the client, or what it answers, durably; see ``core.ports.Entry``.

        Raises:
            Unavailable: the log cannot be written.
            NotFound: the run has ended meanwhile.
        """
        kind, role = _STAGES[said.stage]
        content = wording.cleaned(Payload(role, said.content), self._desk.clean)
        draft = self._draft(kind, self._subject, wording.input_body(self._tool, said), content)
        durable = self._desk.ledger.submit([draft])
        await settled(durable)

    async def complete(self, output: Redacted) -> Answer:
        """Write the completion durably; see ``core.ports.Entry``.

        Raises:
            OutcomeUnknown: it could not be written.
        """
        now = self._now()
        upstream_us = _us(now - (self._committed_at or now))
        body = wording.completed_body(output, self._tool, upstream_us, _us(now - self._started))
        drafts = [self._draft(EventType.TOOL_COMPLETED, self._subject, body, Payload(Role.RESULT, output.body))]
        if body["redactions"]:
            redaction = wording.redaction_body(output, self._tool)
            drafts.insert(0, self._draft(EventType.REDACTION, self._subject, redaction))
        handed = self._desk.ledger.hand_in(drafts)
        try:
            await handed.recorded()
        except (Unavailable, NotFound) as error:
            raise OutcomeUnknown(
                "the call was made but its completion could not be recorded", cause_code="ledger"
            ) from error
        except asyncio.CancelledError:
            if not handed.is_durable:
                raise
            # It is over and recorded so: what breaks it off now comes too late, and the caller hears what the log says.
        finally:
            self._is_complete = handed.is_durable
        return Answer(
            call_id=self._call.id,
            run_id=output.intent.quota.permit.target.caller.run.id,
            body=output.body,
            is_error=body["is_error"],
            redactions=body["redactions"],
        )

    def _know(self, target: Resolved, decision: Decision) -> None:
        self._target, self._tool, self._decision = target, wording.tool_name(target), decision

    async def _refuse(self, error: BaseException) -> None:
        drafts = self._allowed(self._refusal(error))
        try:
            await self._desk.ledger.append(drafts)
        except Unavailable as failure:
            # Nothing was executed, so the stricter answer is true as well. A cancelled caller hears nothing anyway.
            if isinstance(error, Exception):
                raise failure from error

    def _refusal(self, error: BaseException) -> list[Draft]:
        drafts = []
        by_policy = self._decision is not None and not self._decision.passes
        judged = self._judged()
        if judged is not None:
            drafts.append(self._decision_draft(*judged, error, ends=by_policy))
        if not by_policy:
            # Not policy's word: the request itself, a limit, a part that is down, or the caller left.
            body = self._ending(_outcome(error), _cause(error))
            payloads = [wording.error_payload(error, self._desk.clean)]
            if not drafts:
                payloads.append(wording.refused_request_payload(self._call, self._desk.clean))
            drafts.append(self._draft(EventType.REQUEST_REFUSED, self._subject, body, *payloads))
        return drafts

    def _allowed(self, drafts: list[Draft]) -> list[Draft]:
        # Being refused costs a caller nothing: without a bound it could fill the disk with what was refused.
        size = sum(len(payload.content) for draft in drafts for payload in draft.payloads)
        if self._desk.allowance.take(self._principal.key, size):
            return drafts
        return [structs.replace(draft, payloads=(), body={**draft.body, "omitted": True}) for draft in drafts]

    def _judged(self) -> tuple[Resolved, Decision] | None:
        # Faulty arguments and a tool that does not exist are refused for what they are: policy was only asked whether
        # the caller may know of it, and "allow" would not be about this call.
        target, decision = self._target, self._decision
        if target is None or decision is None:
            return None
        is_about_the_call = not decision.passes or (target.fault is None and target.tool.listed)
        return (target, decision) if is_about_the_call else None

    async def _end(self, error: BaseException) -> None:
        kind = self._kind(error)
        body = wording.using(self._call, self._ending(_outcome(error), _cause(error)))
        drafts = [self._draft(kind, self._subject, body, wording.error_payload(error, self._desk.clean))]
        durable = self._desk.ledger.submit(drafts)
        try:
            await settled(durable)
        except (Unavailable, NotFound) as failure:
            if isinstance(error, Exception):
                raise OutcomeUnknown("the end of the call could not be recorded", cause_code="ledger") from failure
        finally:
            # Also where a cancellation came meanwhile: then it is raised here, and the failure is only in the future.
            if not durable.done() or durable.exception() is not None:
                self._desk.ledger.owe(drafts)
        if isinstance(error, Exception) and not isinstance(error, GatewayError):
            raise OutcomeUnknown("the call was made and its end is not known", cause_code="internal") from error

    def _kind(self, error: BaseException) -> EventType:
        if not self._is_out:
            return EventType(Ending.NOT_SENT)  # interrupted while the intent was being written: nobody got to see it
        if isinstance(error, GatewayError):
            return EventType(error.ending)
        if isinstance(error, asyncio.CancelledError) and self._is_read():
            return EventType(Ending.FAILED)  # a read changes nothing, whether or not it arrived
        return EventType(Ending.UNKNOWN)

    def _is_read(self) -> bool:
        return self._target is not None and self._target.tool.effect is EffectClass.READ

    def _decision_draft(
        self, target: Resolved, decision: Decision, error: BaseException | None = None, *, ends: bool = False
    ) -> Draft:
        digest = decision.input_digest
        commitment = self._desk.scribe.keys.mark("input", digest)
        words, took_us = wording.words_of(decision), _us(self._decided_at - self._started)
        body = wording.decision_body(decision, words, self._tool, commitment, took_us)
        if error is None:
            reasons = wording.reasons_payload(decision, words, digest, self._call)
            return self._draft(EventType.DECISION, self._subject, body, reasons)
        reasons = wording.cleaned_reasons(wording.refusal_payload(decision, digest), target, self._desk.clean)
        if ends:  # the one record of a call that policy refuses says how it ended, too
            body |= {"cause": identifier(_cause(error)), "code": _outcome(error)}
        request = wording.refused_request_payload(self._call, self._desk.clean)
        return self._draft(EventType.DECISION, self._subject, body, reasons, request)

    def _ending(self, code: str, cause: str) -> dict[str, Any]:
        return wording.ending_body(self._tool, code, cause, _us(self._now() - self._started))


def _outcome(error: BaseException) -> str:
    if isinstance(error, GatewayError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "internal"


def _cause(error: BaseException) -> str:
    return error.cause_code if isinstance(error, GatewayError) else _outcome(error)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
