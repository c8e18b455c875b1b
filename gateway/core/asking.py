"""What an upstream asks of a client during a call: decided before the client sees it, and the answer before it leaves.

Decided on under the call's own permit and under a kind and a name of their own (``server.elicitation/TOOL``), so that
lists written for tools allow none of it. Both stages are in the log before anything is handed on. An answer is data for
the upstream and nothing else: no approval of ours is ever made of one.
"""

from dataclasses import dataclass, replace
from typing import Any

from gateway.core import canonical, policy_input
from gateway.core.call import Continuation, Quota, Redacted, Resolved
from gateway.core.canonical import Arguments
from gateway.core.decision import Decision, fold
from gateway.core.errors import Denied, GatewayError, Tainted, TooLarge, ToolFailed, Unavailable
from gateway.core.flow import NotAnswered
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import MAX_BYTES, Question
from gateway.core.mcpwire.eras import RESULT_INPUT_REQUIRED
from gateway.core.policy_input import Asked
from gateway.core.ports import Entry, Ports, Said, Stage
from gateway.core.tool import EffectClass


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked during one call, and what comes back.

    Attributes:
        target: the call during which it is asked.
        entry: the call's view of the log.
        ports: what decides, cleans and tells the time.
    """

    target: Resolved
    entry: Entry
    ports: Ports

    async def permit(self, question: Question) -> Question:
        """The question as the client may see it, once policy lets it be asked and the log has it.

        Raises:
            NotAnswered: it may not be asked.
        """
        decision = await self._decided(question, None)
        said = canonical.encode(dict(question.params))
        await self._noted(Said(Stage.ASKED, question.asks, decision, said))
        if not decision.passes:
            raise NotAnswered("denied", decision.reasons)
        try:
            clean, _ = self.ports.redactor.notice(self.target.call.origin, said)
        except Tainted:
            raise NotAnswered("unreadable") from None
        return Question(question.method, canonical.parse(clean).value)

    async def accept(self, question: Question, answer: Arguments) -> None:
        """Return when the answer may go to the upstream.

        Raises:
            NotAnswered: it may not.
        """
        if len(answer.canonical) > MAX_BYTES or answer.big_integers:
            raise NotAnswered("answer_size")
        if asking.answer_fault(question, answer.value) is not None:
            raise NotAnswered("answer_invalid")
        # A client is never given a secret of ours: one that has one is on its way out with it.
        if await self.ports.redactor.holds(answer.canonical):
            raise NotAnswered("known_secret")
        decision = await self._decided(question, answer)
        await self._noted(Said(Stage.ANSWERED, question.asks, decision, answer.canonical))
        if not decision.passes:
            raise NotAnswered("answer_denied", decision.reasons)

    async def _decided(self, question: Question, answer: Arguments | None) -> Decision:
        ports, target = self.ports, self.target
        asked: dict[str, Any] = {"request": dict(question.params)}
        if answer is not None:
            asked["answer"] = answer.value
        # Of the class that lists written for reads and writes give nothing of.
        tool = replace(target.tool, name=f"{question.asks}/{target.tool.name}", effect=EffectClass.DESTRUCTIVE)
        subject = Asked(target.call, target.caller, tool)
        decision_id = ports.clock.uuid()
        try:
            document = policy_input.asking(subject, question.asks, asked, ports.settings, ports.clock.now_us())
            evaluation = await ports.policy.evaluate(decision_id, [document])
        except (Unavailable, TooLarge) as error:
            raise NotAnswered(error.cause_code) from None
        # Never as observed only: what is shown to a client cannot be taken back.
        return fold(decision_id, [document], evaluation)[0]

    async def _noted(self, said: Said) -> None:
        try:
            await self.entry.note(said)
        except GatewayError as error:
            raise NotAnswered(error.cause_code) from None


async def answered(brought: Continuation, quota: Quota, entry: Entry, ports: Ports) -> None:
    """Return when the answers that a call has brought for its upstream may leave with it; before its intent.

    Raises:
        Denied: one of them may not.
    """
    inquiry = Inquiry(quota.permit.target, entry, ports)
    for key, answer in brought.answers.items():
        try:
            await inquiry.accept(brought.questions[key], answer)
        except NotAnswered as refusal:
            words = "an answer to what the tool asked may not be handed on"
            raise Denied(words, reasons=refusal.reasons, cause_code=refusal.cause) from None


async def permitted(output: Redacted, entry: Entry, ports: Ports) -> Redacted:
    """``output``, once everything that it asks of the client may be asked.

    Raises:
        ToolFailed: something may not; none of it is shown.
    """
    if output.value.get("resultType") != RESULT_INPUT_REQUIRED:
        return output
    target = output.intent.quota.permit.target
    flow = target.call.flow
    capabilities = {} if flow is None else flow.wants.capabilities
    inquiry = Inquiry(target, entry, ports)
    if not capabilities:  # also where it names no question: who can be asked nothing is not kept waiting either
        raise _not_to_be_asked("undeclared")
    for question in asking.questions(output.value).values():
        fault = asking.fault(question, capabilities)
        if fault is not None:
            raise _not_to_be_asked(fault)
        try:
            await inquiry.permit(question)
        except NotAnswered as refusal:
            words = "the tool asks for input that it is not allowed to ask for"
            raise ToolFailed(words, reasons=refusal.reasons, cause_code=f"input_{refusal.cause}") from None
    return output


def _not_to_be_asked(fault: str) -> ToolFailed:
    return ToolFailed("the tool asks for something it may not ask for", cause_code=f"input_{fault}")
