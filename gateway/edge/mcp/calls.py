"""A call of an MCP client from its request to its result, with all that flows between: notices, questions, rounds.

A question of an upstream reaches a client the way its era has it: in the handshake era on the stream of the call, in
the stateless era as a result that asks. Where the upstream is of the other era, a result that asks is put on the stream
here, and the call is made again with the answers; and a call that asks on its stream is parked (``parking.py``).
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial

from anyio import CancelScope, fail_after
from msgspec import Struct, structs
from starlette.types import Message, Receive

from gateway.core import pipeline
from gateway.core.call import Answer, Call, Continuation, Principal
from gateway.core.canonical import Arguments
from gateway.core.errors import GatewayError, ToolFailed
from gateway.core.flow import ANSWER_S, Flow, NotAnswered, Wants
from gateway.core.mcpwire.asking import Question
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Failure, Id, Request, Response
from gateway.core.ports import Ports
from gateway.core.tool import EffectClass
from gateway.edge.calling import carry_out
from gateway.edge.disconnect import Waiting, Watched, unless_gone
from gateway.edge.heads import Said
from gateway.edge.mcp import flow as mcp_flow
from gateway.edge.mcp import parking, rounds
from gateway.edge.mcp.asking import Questions
from gateway.edge.mcp.flow import NOTHING, Line
from gateway.edge.mcp.parking import Parking, Room, Slot
from gateway.edge.mcp.rounds import KEY_BYTES, MOST_ROUNDS, Brought, Rounds
from gateway.edge.mcp.session import Session
from gateway.edge.mcp.stream import Stream


class Party(Struct, frozen=True):
    """Who is on the line.

    Attributes:
        principal: the caller.
        request_id: what they call their request.
        said: what their request says of itself.
        session: theirs, in the handshake era.
        stream: the answer on its way.
        receive: tells when they leave.
    """

    principal: Principal
    request_id: Id
    said: Said
    session: Session | None
    stream: Stream
    receive: Receive


class Made(Struct, frozen=True):
    """A call that is ready to be carried out.

    Attributes:
        call: the call.
        party: who makes it.
        line: its line; None where its caller can hear and be asked nothing.
        slot: where it is parked, should its upstream ask; None where that is done on its stream, or not at all.
        back: what its client brings for a call that is parked: this one is that one.
    """

    call: Call
    party: Party
    line: Line | None = None
    slot: Slot | None = None
    back: Brought | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request is answered with.

    Attributes:
        body: JSON text of the result.
        call_id: which call it is of.
        replayed: whether it is the recorded outcome of an earlier execution.
    """

    body: bytes
    call_id: str
    replayed: bool = False


class Calls:
    """The calls of MCP clients of this process."""

    def __init__(self, ports: Ports, state_key: bytes, room: Room) -> None:
        """``state_key`` seals what clients keep between two rounds; empty = one of this process."""
        self._ports = ports
        self._questions = Questions(ports.clock)
        self._rounds = Rounds(ports.clock, state_key or ports.clock.random(KEY_BYTES))
        self._parking = Parking(ports.clock, room)
        self._waiting = Waiting()

    def take(self, said: Response | Failure, session: Session | None) -> None:
        """Take an answer to a question."""
        self._questions.take(said, session)

    def made(self, request: Request, call: Call, party: Party) -> Made:
        """The call of a request, with its line and what it brings for an upstream that asked.

        Raises:
            InvalidParams: what the request says of these is malformed, or not of this call.
        """
        said = party.said
        if said.era is Era.HANDSHAKE:
            return self._with_line(call, mcp_flow.wants(said.meta, said.era, party.session), party)
        wants = said.wants
        if wants is None:
            wants = said.wants = mcp_flow.wants(said.meta, said.era, None)
        brought = self._rounds.brought(request.params, call, party.principal)
        if brought is not None and brought.parked:
            waiting = self._with_line(call, wants, party)
            return Made(waiting.call, party, waiting.line, back=brought)
        call = call if brought is None else structs.replace(call, continuation=brought.continuation)
        can_wait = self._parking.is_open and wants.capabilities
        return self._with_slot(call, wants, party) if can_wait else self._with_line(call, wants, party)

    def carried_out(self, made: Made) -> Awaitable[Answer | Outcome]:
        """What comes of it. An answer may ask for input, which ``told`` then brings; an outcome asks the client itself.

        Raises:
            GatewayError: as ``carry_out`` does.
            ClientGone: as ``carry_out`` does.
        """
        if made.back is not None:
            return self._resumed(made, made.back)
        if made.slot is not None:
            return self._begun(made, made.slot)
        return self._answered(made) if made.party.said.era is Era.HANDSHAKE else self._told_apart(made)

    async def told(self, made: Made, answer: Answer) -> Answer:
        """What comes of it at last, once its upstream was told what it asks for in ``answer``, and in those after it.

        Raises:
            GatewayError: as ``carry_out`` does, or the upstream asks for what is not answered.
            ClientGone: as ``carry_out`` does.
        """
        for _ in range(MOST_ROUNDS - 1):
            made = await self._next(made, answer)
            answer = await self._answered(made)
            if not rounds.wants_input(answer.body):
                return answer
        await self._next(made, answer)
        raise ToolFailed("the tool asks for input without end", cause_code="input_rounds")

    def _answered(self, made: Made) -> Awaitable[Answer]:
        return carry_out(made.call, self._ports, made.line or Watched(made.party.receive, None, self._waiting))

    async def _told_apart(self, made: Made) -> Answer | Outcome:
        # What asks needs no place: the client brings the answers with a call of its own.
        answer = await self._answered(made)
        return self._outcome(made, answer) if rounds.wants_input(answer.body) else answer

    async def _begun(self, made: Made, slot: Slot) -> Outcome:
        slot.start(made.call, self._ports, self._parking.over)
        try:
            await unless_gone(made.party.receive, slot.turn())
        except BaseException:
            slot.leave()
            with CancelScope(shield=True):
                await slot.rest(None)
            raise
        return self._turned(made, slot)

    async def _resumed(self, made: Made, back: Brought) -> Outcome:
        party = made.party
        try:
            slot = self._parking.take(back.parked)
        except GatewayError as error:
            await pipeline.refuse(made.call, error, self._ports)
        try:
            await unless_gone(party.receive, pipeline.reconsider(made.call, self._ports))
            slot.come_back(
                back.continuation.answers, NOTHING if made.line is None else made.line.flow.wants, party.stream
            )
            await unless_gone(party.receive, slot.turn())
        except GatewayError:
            slot.take_back()
            raise
        except BaseException:
            slot.leave()
            raise
        return self._turned(made, slot)

    def _turned(self, made: Made, slot: Slot) -> Outcome:
        if slot.is_over:
            return self._outcome(made, slot.answer())
        name = self._parking.park(slot)
        return Outcome(self._rounds.sealed(parking.asking(slot), made.call, made.party.principal, name), slot.call_id)

    def _outcome(self, made: Made, answer: Answer) -> Outcome:
        if not rounds.wants_input(answer.body):
            return Outcome(answer.body, answer.call_id, answer.replayed)
        return Outcome(self._rounds.sealed(answer.body, made.call, made.party.principal), answer.call_id)

    async def _received(self, party: Party) -> Message:
        message = await party.receive()
        if message["type"] == "http.disconnect":
            # A committed call goes on; it waits for nobody who is not there.
            self._questions.leave(party.stream)
        return message

    async def _next(self, made: Made, answer: Answer) -> Made:
        questions, state = rounds.asked(answer.body)
        answers = await unless_gone(made.party.receive, self._answers(questions, made.party))
        clock = self._ports.clock
        again = structs.replace(
            made.call, id=clock.uuid(), at_us=clock.now_us(), continuation=Continuation(state, questions, answers)
        )
        return self._with_line(again, NOTHING if made.line is None else made.line.flow.wants, made.party)

    async def _answers(self, questions: Mapping[str, Question], party: Party) -> dict[str, Arguments]:
        answers = {}
        try:
            for key, question in questions.items():
                if party.session is None:
                    raise NotAnswered("no_stream")
                with fail_after(ANSWER_S):
                    answers[key] = await self._questions.put(party.session, party.stream, question)
        except (NotAnswered, TimeoutError) as error:
            cause = error.cause if isinstance(error, NotAnswered) else "no_answer"
            raise ToolFailed("the tool asks for input that it was not given", cause_code=f"input_{cause}") from None
        return answers

    def _with_slot(self, call: Call, wants: Wants, party: Party) -> Made:
        slot = self._parking.slot(party.principal, party.stream, partial(self._is_read, call.tool))
        line = Line(party.receive)
        clean = partial(self._ports.redactor.notice, call.origin)
        line.flow = slot.flow = Flow(wants, clean, slot.deliver, line.scope.cancel, slot.put)
        return Made(structs.replace(call, flow=line.flow), party, line, slot)

    def _is_read(self, fqn: str) -> bool:
        # What a template makes is not found by its name: it counts as what may change something.
        return any(tool.fqn == fqn and tool.effect is EffectClass.READ for tool in self._ports.catalog.tools())

    def _with_line(self, call: Call, wants: Wants, party: Party) -> Made:
        session = party.session
        if session is not None:
            line = Line(partial(self._received, party), None, session.calls)
            line.request_id = party.request_id
            put = partial(self._questions.put, session, party.stream)
        elif wants is NOTHING:
            return Made(call, party)  # nor can it be taken back, as it has no name
        else:
            line, put = Line(party.receive, None, self._waiting), None
        clean = partial(self._ports.redactor.notice, call.origin)
        line.flow = Flow(wants, clean, party.stream.event, line.scope.cancel, put)
        return Made(structs.replace(call, flow=line.flow), party, line)
