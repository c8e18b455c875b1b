"""A call of an MCP client from its request to its result, with all that flows between: notices, questions, rounds.

A question of an upstream reaches a client the way its era has it: in the handshake era on the stream of the call, in
the stateless era as a result that asks. Where the upstream is of the other era, a result that asks is put on the stream
here, and the call is made again with the answers; the other way round is not carried.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from anyio import fail_after
from starlette.types import Message, Receive

from gateway.core.call import Answer, Call, Continuation
from gateway.core.canonical import Arguments
from gateway.core.errors import ToolFailed
from gateway.core.flow import ANSWER_S, NotAnswered, Wants
from gateway.core.mcpwire.asking import Question
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Failure, Id, Notification, Request, Response
from gateway.core.ports import Ports
from gateway.edge import mcp_flow, mcp_rounds
from gateway.edge.calling import carry_out
from gateway.edge.disconnect import unless_gone
from gateway.edge.mcp_asking import Questions
from gateway.edge.mcp_flow import Line, Running
from gateway.edge.mcp_rounds import KEY_BYTES, MOST_ROUNDS, Rounds
from gateway.edge.mcp_session import Session
from gateway.edge.mcp_stream import Stream

_NOTHING = Wants()


@dataclass(frozen=True, slots=True)
class Party:
    """Who is on the line.

    Attributes:
        owner: the caller's ``Principal.key``.
        era: how they speak.
        session: theirs, in the handshake era.
        stream: the answer on its way.
        receive: tells when they leave.
    """

    owner: str
    era: Era
    session: Session | None
    stream: Stream
    receive: Receive


@dataclass(frozen=True, slots=True)
class Made:
    """A call that is ready to be carried out, and its line; None where its caller can hear and be asked nothing."""

    call: Call
    line: Line | None


class Calls:
    """The calls of MCP clients of this process."""

    def __init__(self, ports: Ports, state_key: bytes) -> None:
        """``state_key`` seals what clients keep between two rounds; empty = one of this process."""
        self._ports = ports
        self._running = Running()
        self._questions = Questions(ports.clock)
        self._rounds = Rounds(ports.clock, state_key or ports.clock.random(KEY_BYTES))

    def withdraw(self, told: Notification, session: Session | None) -> None:
        """Carry ``notifications/cancelled`` out."""
        self._running.withdraw(told, session)

    def take(self, said: Response | Failure, session: Session | None) -> None:
        """Take an answer to a question."""
        self._questions.take(said, session)

    def made(self, request: Request, call: Call, party: Party) -> Made:
        """The call of a request, with its line and what it brings for an upstream that asked.

        Raises:
            InvalidParams: what the request says of these is malformed, or not of this call.
        """
        wants = mcp_flow.wants(request, party.era, party.session)
        is_round = party.era is Era.STATELESS
        brought = self._rounds.brought(request.params, call, party.owner) if is_round else None
        return self._with_line(call if brought is None else replace(call, continuation=brought), wants, party)

    async def carried_out(self, made: Made, request_id: Id, party: Party) -> Answer:
        """What comes of it; for a stateless client it may be a result that asks.

        Raises:
            GatewayError: as ``carry_out`` does, or the upstream asks for what is not answered.
            ClientGone: as ``carry_out`` does.
        """
        for _ in range(MOST_ROUNDS):
            with self._running.entered(party.session, request_id, made.line):
                answer = await carry_out(made.call, self._ports, partial(self._received, party))
            if not mcp_rounds.wants_input(answer.body):
                return answer
            if party.era is Era.STATELESS:
                return replace(answer, body=self._rounds.sealed(answer.body, made.call, party.owner))
            made = await self._next(made, answer, party)
        raise ToolFailed("the tool asks for input without end", cause_code="input_rounds")

    async def _received(self, party: Party) -> Message:
        message = await party.receive()
        if message["type"] == "http.disconnect":
            # A committed call goes on; it waits for nobody who is not there.
            self._questions.leave(party.stream)
        return message

    async def _next(self, made: Made, answer: Answer, party: Party) -> Made:
        questions, state = mcp_rounds.asked(answer.body)
        answers = await unless_gone(party.receive, self._answers(questions, party))
        clock = self._ports.clock
        again = replace(
            made.call, id=clock.uuid(), at_us=clock.now_us(), continuation=Continuation(state, questions, answers)
        )
        return self._with_line(again, Wants() if made.line is None else made.line.flow.wants, party)

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

    def _with_line(self, call: Call, wants: Wants, party: Party) -> Made:
        if party.session is None and wants == _NOTHING:
            return Made(call, None)  # nor can it be taken back, as it has no name
        put = None if party.session is None else partial(self._questions.put, party.session, party.stream)
        line = mcp_flow.line(wants, partial(self._ports.redactor.notice, call.origin), party.stream, put)
        return Made(replace(call, flow=line.flow), line)
