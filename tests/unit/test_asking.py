"""What an upstream may ask of a client: decided and recorded before it is shown, and the answer before it leaves."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from anyio import CancelScope, create_task_group, current_time, fail_after
from msgspec import structs

from gateway.core import flow, pipeline
from gateway.core.asking import Inquiry
from gateway.core.call import Call, Continuation, Live, Raw, Resumed
from gateway.core.canonical import Arguments
from gateway.core.errors import Denied, GatewayError, NotFound, Tainted, ToolFailed, Unavailable
from gateway.core.flow import Flow, NotAnswered, Wants
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import MAX_BYTES, MOST_QUESTIONS, Question
from tests.evidence import lease, make_arguments, make_tool
from tests.fakes import World
from tests.fakes.audit import COMPLETED, INTENT, REFUSED, MemoryEntry
from tests.fakes.rules import APPROVAL, DENY, SILENT
from tests.fakes.upstream import FakeConnector, FakeRedactor
from tests.waiting import until

FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ASKED = {"message": "Who are you?", "requestedSchema": FORM}
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
ALL = asking.declared({"elicitation": {}, "sampling": {}, "roots": {}})
ELICIT = "elicitation/create"


# Asked during the call


class Client:
    """A client that can be asked, and what it was shown."""

    def __init__(self, answer: Mapping[str, Any] | NotAnswered = ACCEPTED, capabilities: Any = ALL) -> None:
        self.answer = answer
        self.shown: list[Question] = []
        self.flow = Flow(Wants(capabilities=capabilities), self._clean, self._deliver, lambda: None, self._put)

    def _clean(self, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        return body, {}

    async def _deliver(self, message: bytes) -> None:
        raise AssertionError(message)

    async def _put(self, question: Question) -> Arguments:
        self.shown.append(question)
        if isinstance(self.answer, NotAnswered):
            raise self.answer
        return make_arguments(self.answer)


class Asking(FakeConnector):
    """An upstream that asks during the call, and answers with what it was answered."""

    question: tuple[str, Any] = (ELICIT, ASKED)
    said: "list[bytes | NotAnswered]"
    times = 1

    async def invoke(self, lease: Any) -> Raw:
        """Ask, then answer."""
        self.said = []
        for _ in range(self.times):
            try:
                method, params = self.question
                self.said.append(await lease.intent.call.flow.ask(method, msgspec.json.encode(params)))
            except NotAnswered as refusal:
                self.said.append(refusal)
        return await super().invoke(lease)


def asking_world(**members: Any) -> tuple[World, Asking]:
    """Fakes before such an upstream."""
    world = World()
    upstream = Asking(world.journal)
    for name, value in members.items():
        setattr(upstream, name, value)
    world.connector = world.catalog.connector = upstream
    return world, upstream


async def asked(world: World, client: Client) -> Call:
    """The call, which must end well."""
    call = structs.replace(world.call(), flow=client.flow)
    await pipeline.handle(call, world.ports())
    return call


async def test_a_question_is_decided_and_recorded_before_it_is_shown() -> None:
    """And so is its answer before it goes on; both under a kind and a name of their own."""
    world, upstream = asking_world()
    client = Client()
    call = await asked(world, client)
    assert upstream.said == [b'{"action":"accept","content":{"name":"Ada"}}']
    assert client.shown == [Question(ELICIT, ASKED)]
    assert world.audit.types(call.id) == [INTENT, "input.asked", "input.answered", COMPLETED]
    question, answer = world.policy.asked[-2:]
    for document in (question, answer):
        assert (document["phase"], document["kind"]) == ("call", "elicitation")
        assert document["tool"]["fqn"] == "erp.elicitation/stock"
        assert document["tool"]["effect"] == "destructive"
    assert question["args"] == {"request": ASKED}
    assert answer["args"] == {"request": ASKED, "answer": ACCEPTED}


@pytest.mark.parametrize("words", [DENY, SILENT, APPROVAL])
async def test_what_policy_does_not_allow_is_not_shown(words: dict[str, Any]) -> None:
    """A denial, no word at all, and one that asks for people: the client never learns that it was asked."""
    world, upstream = asking_world()
    world.policy.words["call", "erp.elicitation/stock"] = words
    client = Client()
    call = await asked(world, client)
    (refusal,) = upstream.said
    assert isinstance(refusal, NotAnswered)
    assert refusal.cause == "denied"
    assert client.shown == []
    assert world.audit.types(call.id) == [INTENT, "input.asked", COMPLETED]


async def test_observing_shows_nothing_that_is_denied() -> None:
    """What is shown to a client cannot be taken back, so that this is enforced in every mode."""
    world, upstream = asking_world()
    world.settings = replace(world.settings, observe=True)
    world.policy.words["call", "erp.elicitation/stock"] = DENY
    client = Client()
    await asked(world, client)
    assert isinstance(upstream.said[0], NotAnswered)
    assert client.shown == []


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ({"action": "accept", "content": {"name": 7}}, "answer_invalid"),
        ({"action": "accept", "content": {"name": "hunter22"}}, "known_secret"),
        ({"action": "accept", "content": {"name": "x" * MAX_BYTES}}, "answer_size"),
        (NotAnswered("declined"), "declined"),
    ],
)
async def test_an_answer_that_may_not_leave_does_not(answer: Any, cause: str) -> None:
    """One that breaks the schema, holds a secret of ours or is too long; a client that declines is quoted as such."""
    world, upstream = asking_world()
    world.redactor.secrets = ("hunter22",)
    await asked(world, Client(answer))
    (refusal,) = upstream.said
    assert isinstance(refusal, NotAnswered)
    assert refusal.cause == cause


async def test_an_answer_is_decided_on_too() -> None:
    """Policy that allows the question may deny what comes back."""
    world, upstream = asking_world()
    client = Client()

    async def deny_the_answer(question: Question) -> Arguments:
        world.policy.words["call", "erp.elicitation/stock"] = DENY
        return make_arguments(ACCEPTED)

    client.flow = Flow(client.flow.wants, client._clean, client._deliver, lambda: None, deny_the_answer)
    call = await asked(world, client)
    (refusal,) = upstream.said
    assert isinstance(refusal, NotAnswered)
    assert (refusal.cause, [reason.id for reason in refusal.reasons]) == ("answer_denied", ["test.deny"])
    assert world.audit.types(call.id)[1:3] == ["input.asked", "input.answered"]


@pytest.mark.parametrize(
    ("question", "capabilities", "cause"),
    [
        (("tools/call", {}), ALL, "not_offered"),
        ((ELICIT, ASKED), {}, "undeclared"),
        ((ELICIT, {"message": "m"}), ALL, "shape"),
    ],
)
async def test_what_is_no_question_reaches_nobody(question: Any, capabilities: Any, cause: str) -> None:
    """Not even policy: it is turned down in the same place for everybody."""
    world, upstream = asking_world(question=question)
    client = Client(capabilities=capabilities)
    call = await asked(world, client)
    (refusal,) = upstream.said
    assert isinstance(refusal, NotAnswered)
    assert refusal.cause == cause
    assert world.audit.types(call.id) == [INTENT, COMPLETED]


async def test_questions_of_a_call_are_bounded() -> None:
    """One upstream cannot keep a person answering."""
    world, upstream = asking_world(times=MOST_QUESTIONS + 2)
    client = Client()
    await asked(world, client)
    assert len(client.shown) == MOST_QUESTIONS
    assert [type(said) for said in upstream.said[-2:]] == [NotAnswered] * 2


@pytest.mark.parametrize(
    ("step", "error", "cause"),
    [("entry.note", Unavailable("full"), "unavailable"), ("entry.note", NotFound("ended"), "not_found")],
)
async def test_what_cannot_be_recorded_is_not_shown(step: str, error: GatewayError, cause: str) -> None:
    """The log comes first, as for every effect."""
    world, upstream = asking_world()
    world.journal.fail(step, error)
    client = Client()
    await asked(world, client)
    (refusal,) = upstream.said
    assert isinstance(refusal, NotAnswered)
    assert refusal.cause == cause
    assert client.shown == []


async def test_an_engine_that_is_down_shows_nothing() -> None:
    """Closed, as everywhere."""
    world, upstream = asking_world()
    world.policy.deadly.add(("call", "erp.elicitation/stock"))
    await asked(world, Client())
    assert isinstance(upstream.said[0], NotAnswered)
    assert upstream.said[0].cause == "policy_unavailable"


@dataclass(slots=True)
class Strict(FakeRedactor):
    """Gives up on questions."""

    def notice(self, origin: Live | Resumed, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        """Results only."""
        if b"Who are you" in body:
            raise Tainted("too much")
        return body, {}


async def test_a_question_that_cannot_be_cleaned_is_not_shown() -> None:
    """What the redactor gives up on does not pass."""
    world, upstream = asking_world()
    world.redactor = Strict(world.journal)
    client = Client()
    await asked(world, client)
    assert isinstance(upstream.said[0], NotAnswered)
    assert upstream.said[0].cause == "unreadable"
    assert client.shown == []


async def test_secrets_are_taken_out_of_questions() -> None:
    """A client is shown no more of them by a question than by a result."""
    world, _ = asking_world(question=(ELICIT, ASKED | {"message": "is it hunter22?"}))
    world.redactor.secrets = ("hunter22",)
    client = Client()
    await asked(world, client)
    assert client.shown[0].params["message"] == "is it [redacted]?"


async def test_who_cannot_be_asked_is_not() -> None:
    """A client without a stream for questions, and a call that is not under way."""
    client = Client()
    with pytest.raises(NotAnswered):
        await client.flow.ask(ELICIT, msgspec.json.encode(ASKED))
    silent = Flow(Wants(capabilities=ALL), lambda body: (body, {}), client._deliver, lambda: None)
    assert (silent.askable, client.flow.askable) == ({}, ALL)


async def test_the_connectors_time_stands_still_while_a_client_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a client that does not answer is not waited for without end."""
    monkeypatch.setattr(flow, "ANSWER_S", 0.05)
    reached: list[float] = []

    class Silent(Client):
        async def _put(self, question: Question) -> Arguments:
            reached.append(scope.deadline)
            await asyncio.Event().wait()
            raise AssertionError

    world = World()
    client = Silent()
    target, entry = lease(make_tool()).intent.quota.permit.target, MemoryEntry(world.audit, world.call())
    inquiry = Inquiry(target, entry, world.ports())
    with fail_after(30) as scope, client.flow.under_way(lambda: None, inquiry):
        client.flow.timed(scope)
        before = scope.deadline
        with pytest.raises(NotAnswered) as caught:
            await client.flow.ask(ELICIT, msgspec.json.encode(ASKED))
    assert caught.value.cause == "no_answer"
    assert reached[0] > before
    assert scope.deadline >= before
    assert isinstance(scope, CancelScope)


async def test_questions_at_once_stop_the_connectors_time_once() -> None:
    """An upstream that asks much at a time gains no more than its caller took to answer."""
    answer, waiting = asyncio.Event(), list[Question]()

    class Slow(Client):
        async def _put(self, question: Question) -> Arguments:
            waiting.append(question)
            await answer.wait()
            return await super()._put(question)

    world = World()
    client = Slow()
    target, entry = lease(make_tool()).intent.quota.permit.target, MemoryEntry(world.audit, world.call())
    with fail_after(30) as scope, client.flow.under_way(lambda: None, Inquiry(target, entry, world.ports())):
        client.flow.timed(scope)
        async with create_task_group() as group:
            for _ in range(4):
                group.start_soon(client.flow.ask, ELICIT, msgspec.json.encode(ASKED))
            await until(lambda: len(waiting) == 4)
            assert flow.ANSWER_S < scope.deadline - current_time() <= 30 + flow.ANSWER_S
            answer.set()
        assert scope.deadline - current_time() <= 30


# Asked by the answer


def asking_result() -> dict[str, Any]:
    """A result with one question."""
    return {"resultType": "input_required", "inputRequests": {"who": {"method": ELICIT, "params": ASKED}}}


def brought(answer: Mapping[str, Any] = ACCEPTED) -> Continuation:
    """An answer to it."""
    return Continuation("s", {"who": Question(ELICIT, ASKED)}, {"who": make_arguments(answer)})


async def test_a_result_that_asks_is_decided_on() -> None:
    """Allowed, it is the outcome of the call; the question is in the log before it."""
    world, client = World(), Client()
    world.connector.result = asking_result()
    call = structs.replace(world.call(), flow=client.flow)
    answer = await pipeline.handle(call, world.ports())
    assert msgspec.json.decode(answer.body) == asking_result()
    assert world.audit.types(call.id) == [INTENT, "input.asked", COMPLETED]


@pytest.mark.parametrize(
    ("capabilities", "words", "cause"),
    [
        ({}, None, "input_undeclared"),
        (asking.declared({"sampling": {}}), None, "input_undeclared"),
        (ALL, DENY, "input_denied"),
    ],
)
async def test_a_result_that_may_not_ask_is_a_failed_tool(capabilities: Any, words: Any, cause: str) -> None:
    """Nothing of it is shown."""
    world, client = World(), Client(capabilities=capabilities)
    world.connector.result = asking_result()
    if words is not None:
        world.policy.words["call", "erp.elicitation/stock"] = words
    call = structs.replace(world.call(), flow=client.flow)
    with pytest.raises(ToolFailed) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == cause
    assert "Who are you" not in caught.value.detail
    assert world.audit.types(call.id)[-1] == "tool.failed"


async def test_a_result_asks_nobody_who_is_not_there() -> None:
    """A call without a line, such as one that people had to approve, asks nothing."""
    world = World()
    world.connector.result = asking_result()
    with pytest.raises(ToolFailed) as caught:
        await pipeline.handle(world.call(), world.ports())
    assert caught.value.cause_code == "input_undeclared"


async def test_answers_that_a_call_brings_are_decided_on_before_its_intent() -> None:
    """The next round is a call of its own."""
    world, client = World(), Client()
    call = structs.replace(world.call(), flow=client.flow, continuation=brought())
    await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == ["input.answered", INTENT, COMPLETED]
    assert world.connector.sent[0].intent.call.continuation == brought()


@pytest.mark.parametrize(
    ("answer", "words", "cause"),
    [
        ({"action": "accept", "content": {"name": 7}}, None, "answer_invalid"),
        (ACCEPTED, DENY, "answer_denied"),
    ],
)
async def test_answers_that_may_not_leave_stop_the_call(answer: Any, words: Any, cause: str) -> None:
    """Nothing was sent, and nothing is reserved any more."""
    world, client = World(), Client()
    if words is not None:
        world.policy.words["call", "erp.elicitation/stock"] = words
    call = structs.replace(world.call(), flow=client.flow, continuation=brought(answer))
    with pytest.raises(Denied) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == cause
    assert world.connector.sent == []
    assert world.audit.types(call.id)[-1] == REFUSED
    assert INTENT not in world.audit.types(call.id)
