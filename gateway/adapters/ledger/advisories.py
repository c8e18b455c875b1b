"""The log's view of a question about what an agent will do itself: ``decision.advisory``, and no record of a call."""

from typing import NoReturn

from anyio import CancelScope
from msgspec import structs

from gateway.adapters.ledger import wording
from gateway.adapters.ledger.entry import CallEntry
from gateway.core.advice import Advice, Word
from gateway.core.call import Quota, Redacted, Resolved
from gateway.core.decision import Decision
from gateway.core.errors import Unavailable
from gateway.core.records import Draft, EventType, Role

_DENY = "deny"


class AdviceEntry(CallEntry):
    """Implements ``core.ports.Consultation``; an async context manager, used once.

    Refusals are recorded as those of a call are, but policy's word as ``decision.advisory``.
    """

    done = "advised"

    async def advise(self, word: Word) -> Advice:
        """Write what is answered durably; see ``core.ports.Consultation``.

        Raises:
            Unavailable: the log cannot be written.
        """
        target, decision = self._target, self._decision
        if target is None or decision is None:
            raise Unavailable("nothing was decided", cause_code="undecided")
        draft = self._decision_draft(target, decision)
        draft = structs.replace(draft, body={**draft.body, "answer": word})
        durable = self._desk.ledger.submit(self._allowed([draft]))
        try:
            with CancelScope(shield=True):
                await durable
        finally:
            self._is_complete = durable.done() and durable.exception() is None
        reasons = tuple(reason.id for reason in decision.reasons)
        return Advice(self._call.id, target.caller.run.id, word, reasons)

    async def commit(self, quota: Quota) -> NoReturn:  # noqa: ARG002
        """A question intends nothing."""
        raise Unavailable("a question is no call", cause_code="advisory")

    async def complete(self, output: Redacted) -> NoReturn:  # noqa: ARG002
        """A question completes nothing."""
        raise Unavailable("a question is no call", cause_code="advisory")

    def _decision_draft(
        self, target: Resolved, decision: Decision, error: BaseException | None = None, *, ends: bool = False
    ) -> Draft:
        draft = super()._decision_draft(target, decision, error, ends=ends)
        payloads = draft.payloads
        if not any(payload.role is Role.REQUEST for payload in payloads):
            payloads += (wording.refused_request_payload(self._call, self._desk.clean),)
        body = {**draft.body, "answer": _DENY}
        return structs.replace(draft, type=EventType.DECISION_ADVISORY, body=body, payloads=payloads)
