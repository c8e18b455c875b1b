"""What an upstream asks of an MCP client, over the wire: on the stream of the call, or as a result that asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from anyio import fail_after
from starlette.types import Message

from gateway.core.call import Lease, Raw
from gateway.core.flow import NotAnswered
from gateway.core.mcpwire import sse
from gateway.edge.asgi import Options
from tests.edge_world import META, Edge, modern, rpc
from tests.fakes.rules import DENY
from tests.fakes.upstream import RESULT, FakeConnector
from tests.waiting import until

FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ASKED = {"message": "Who are you?", "requestedSchema": FORM}
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
CAPABILITIES: dict[str, Any] = {"elicitation": {}, "sampling": {}}
CAPABLE = {**META, "io.modelcontextprotocol/clientCapabilities": CAPABILITIES}


@dataclass(slots=True)
class Pushing(FakeConnector):
    """An upstream of the handshake era: it asks during the call, and says what it heard."""

    heard: list[Any] = field(default_factory=list)

    async def invoke(self, lease: Lease) -> Raw:
        """Ask, then answer."""
        self.sent.append(lease)
        flow = lease.intent.call.flow
        assert flow is not None
        try:
            self.heard.append(json.loads(await flow.ask("elicitation/create", json.dumps(ASKED).encode())))
        except NotAnswered as refusal:
            self.heard.append(refusal.cause)
        return Raw(lease, json.dumps(RESULT).encode(), dict(RESULT))


@dataclass(slots=True)
class Rounds(FakeConnector):
    """An upstream of the stateless era: its answer asks, until the call brings ``rounds`` answers."""

    rounds: int = 1

    async def invoke(self, lease: Lease) -> Raw:
        """Ask by the answer, or answer."""
        self.sent.append(lease)
        brought = lease.intent.call.continuation
        done = 0 if brought is None else int(brought.state or "0")
        if done >= self.rounds:
            return Raw(lease, json.dumps(RESULT).encode(), dict(RESULT))
        asked = {"who": {"method": "elicitation/create", "params": ASKED}}
        value = {"resultType": "input_required", "inputRequests": asked, "requestState": str(done + 1)}
        return Raw(lease, json.dumps(value).encode(), value)


def before(kind: type[FakeConnector], *, options: Options | None = None, **members: Any) -> tuple[Edge, Any]:
    """An edge before such an upstream."""
    edge = Edge() if options is None else Edge(options=options)
    upstream = kind(edge.world.journal, **members)
    edge.world.connector = edge.world.catalog.connector = upstream
    return edge, upstream


@dataclass(slots=True)
class Call:
    """A call of a client that reads its stream as it comes.

    Attributes:
        events: the messages that came.
        gone: set when the client leaves.
    """

    edge: Edge
    body: bytes
    headers: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    asked: bool = False

    async def run(self) -> None:
        """Make it."""
        sent = {"host": "gateway.test", "authorization": "Bearer good", "content-type": "application/json"}
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "client": ("192.0.2.1", 4711),
            "server": ("127.0.0.1", 8470),
            "headers": [(name.encode(), value.encode()) for name, value in (sent | self.headers).items()],
        }
        await self.edge.app(scope, self._receive, self._send)

    async def question(self) -> dict[str, Any]:
        """The next question, which is taken off."""
        await until(lambda: any("id" in event and "method" in event for event in self.events))
        found = next(event for event in self.events if "id" in event and "method" in event)
        self.events.remove(found)
        return found

    @property
    def answer(self) -> dict[str, Any]:
        """The last message."""
        return self.events[-1]

    async def _receive(self) -> Message:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.startswith(b"{"):
            self.events.append(json.loads(body))
        self.events += [json.loads(event.data) for event in sse.Decoder(1 << 20).feed(body)]


@dataclass(slots=True)
class Talk:
    """A session with a call under way."""

    client: httpx.AsyncClient
    call: Call

    async def reply(self, question: Mapping[str, Any], **members: Any) -> int:
        """Answer a question; returns the HTTP status."""
        return (await self.client.post("/mcp", json={"jsonrpc": "2.0", "id": question["id"], **members})).status_code


async def hello(client: httpx.AsyncClient, capabilities: Mapping[str, Any] = CAPABILITIES) -> None:
    """Open a session of a client that can be asked this."""
    said = {"protocolVersion": "2025-11-25", "capabilities": dict(capabilities)}
    answer = await client.post("/mcp", json=rpc("initialize", said))
    client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]


@asynccontextmanager
async def talking(edge: Edge, tool: str = "erp__stock", capabilities: Any = None) -> AsyncIterator[Talk]:
    """A call under way in a session; it is over when the bracket is left."""
    async with edge.client() as client:
        await hello(client, CAPABILITIES if capabilities is None else capabilities)
        own = {"mcp-session-id": client.headers["mcp-session-id"], "accept": "application/json, text/event-stream"}
        call = Call(edge, json.dumps(rpc("tools/call", {"name": tool})).encode(), own)
        task = asyncio.create_task(call.run())
        with fail_after(30):
            yield Talk(client, call)
            await task


async def test_a_question_goes_out_on_the_stream_of_its_call() -> None:
    """It is answered by a POST in the same session, and the call goes on."""
    edge, upstream = before(Pushing)
    async with talking(edge) as talk:
        question = await talk.call.question()
        assert await talk.reply(question, result=ACCEPTED) == 202
        assert await talk.reply(question, result={"action": "decline"}) == 202
    assert (question["method"], question["params"]) == ("elicitation/create", ASKED)
    assert upstream.heard == [ACCEPTED]
    assert talk.call.answer["result"] == RESULT
    assert edge.records() == ["tool.requested", "input.asked", "input.answered", "tool.completed"]


async def test_nobody_else_answers_a_question() -> None:
    """Not another session of the same principal, not another principal, not without a session, not by another id."""
    edge, upstream = before(Pushing)
    async with talking(edge) as talk, edge.client() as same, edge.client("other") as other, edge.client() as bare:
        question = await talk.call.question()
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "cancel"}}
        await hello(same)
        await hello(other)
        for client in (same, other, bare):
            assert (await client.post("/mcp", json=answer)).status_code == 202
        session = {"mcp-session-id": talk.client.headers["mcp-session-id"]}
        assert (await other.post("/mcp", json=answer, headers=session)).status_code == 404
        for request_id in (1, "1", question["id"][:-1]):
            await talk.reply({"id": request_id}, result={"action": "cancel"})
        await talk.reply(question, result=ACCEPTED)
    assert upstream.heard == [ACCEPTED]


@pytest.mark.parametrize(
    ("members", "heard"),
    [
        ({"error": {"code": -1, "message": "no"}}, "declined"),
        ({"result": {"action": "accept", "content": {"name": 7}}}, "answer_invalid"),
        ({"result": {}}, "answer_invalid"),
        ({"result": {"action": "decline"}}, {"action": "decline"}),
    ],
)
async def test_the_upstream_hears_what_it_may(members: dict[str, Any], heard: Any) -> None:
    """A refusal is one, an answer that breaks the form does not reach it, and a person's no does."""
    edge, upstream = before(Pushing)
    async with talking(edge) as talk:
        await talk.reply(await talk.call.question(), **members)
    assert upstream.heard == [heard]


@pytest.mark.parametrize(
    ("capabilities", "deny", "heard"),
    [({}, False, "undeclared"), (CAPABILITIES, True, "denied")],
    ids=["not", "denied"],
)
async def test_a_client_that_is_not_to_be_asked_is_not(capabilities: Any, deny: bool, heard: str) -> None:
    """One that did not say that it can be, and where policy says no: nothing shows on its line."""
    edge, upstream = before(Pushing)
    if deny:
        edge.world.policy.words["call", "erp.elicitation/stock"] = DENY
    async with talking(edge, capabilities=capabilities) as talk:
        pass
    assert upstream.heard == [heard]
    assert [sorted(event) for event in talk.call.events] == [["id", "jsonrpc", "result"]]


async def test_a_client_that_takes_no_stream_is_not_asked() -> None:
    """There is no way to it while its call is open."""
    edge, upstream = before(Pushing)
    async with edge.client() as client:
        await hello(client)
        answer = await client.post(
            "/mcp", json=rpc("tools/call", {"name": "erp__stock"}), headers={"accept": "application/json"}
        )
    assert answer.json()["result"] == RESULT
    assert upstream.heard == ["no_stream"]


async def test_a_call_that_is_taken_back_takes_its_question_along() -> None:
    """The client is told that it need not answer any more."""
    edge, upstream = before(Pushing)
    async with talking(edge, "erp__order") as talk:
        question = await talk.call.question()
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        await talk.client.post("/mcp", json=note)
    assert upstream.heard == []
    assert talk.call.events[0]["method"] == "notifications/cancelled"
    assert talk.call.events[0]["params"] == {"requestId": question["id"]}
    assert edge.records()[-1] == "tool.outcome_unknown"


async def test_a_committed_call_does_not_wait_for_a_client_that_left() -> None:
    """Its question is not answered, and the call goes on to its end."""
    edge, upstream = before(Pushing)
    async with talking(edge, "erp__order") as talk:
        await talk.call.question()
        talk.call.gone.set()
    assert upstream.heard == ["gone"]
    assert edge.records()[-1] == "tool.completed"


# A stateless client


async def post(client: httpx.AsyncClient, arguments: Any = None, meta: Any = CAPABLE, **params: Any) -> dict[str, Any]:
    """A call of a stateless client; the JSON-RPC answer."""
    posted = modern("tools/call", {"name": "erp__stock", "arguments": arguments or {}, **params})
    posted["json"]["params"]["_meta"] = meta
    answer: dict[str, Any] = (await client.post("/mcp", **posted)).json()
    return answer


@pytest.mark.parametrize("places", [64, 0])  # none of its rounds is parked
async def test_a_result_that_asks_is_answered_by_another_call(places: int) -> None:
    """Its state is sealed: the upstream gets its own back, the client never sees it. Each round is a governed call."""
    edge, upstream = before(Rounds, rounds=2, options=Options(parked=(places, 8)))
    async with edge.client() as client:
        first = (await post(client))["result"]
        second = (await post(client, requestState=first["requestState"], inputResponses={"who": ACCEPTED}))["result"]
        last = (await post(client, requestState=second["requestState"], inputResponses={"who": ACCEPTED}))["result"]
    assert first["resultType"] == second["resultType"] == "input_required"
    assert first["inputRequests"] == {"who": {"method": "elicitation/create", "params": ASKED}}
    assert len(first["requestState"]) > 64
    assert last == {"resultType": "complete", **RESULT}
    brought = [lease.intent.call.continuation for lease in upstream.sent]
    assert [one and one.state for one in brought] == [None, "1", "2"]
    assert brought[1].answers["who"].value == ACCEPTED
    asked, answered = ["tool.requested", "input.asked", "tool.completed"], "input.answered"
    assert edge.records() == [*asked, answered, *asked, answered, "tool.requested", "tool.completed"]


async def test_a_state_is_good_for_its_own_call_only() -> None:
    """Not for another principal, other arguments or another tool, not changed by a bit, and not for ever."""
    edge, upstream = before(Rounds)
    async with edge.client() as client, edge.client("other") as other:
        state = (await post(client))["result"]["requestState"]
        spoilt = state[:-3] + ("A" if state[-3] != "A" else "B") + state[-2:]
        tries = [
            await post(other, requestState=state),
            await post(client, {"sku": "x"}, requestState=state),
            await post(client, requestState=state, name="erp__order"),
            *[await post(client, requestState=odd) for odd in (spoilt, "", "x" * 300_000, "-", "é", 7)],
            await post(client, inputResponses={"who": ACCEPTED}),
        ]
        edge.world.clock.advance(601)
        tries.append(await post(client, requestState=state))
    assert len(upstream.sent) == 1
    assert [answer["error"]["code"] for answer in tries] == [-32602] * len(tries)
    assert {answer["error"]["data"]["cause"] for answer in tries} == {"request_state"}


@pytest.mark.parametrize("answers", [[], "x", {"who": 7}, {"who": None}])
async def test_answers_that_are_none_are_refused(answers: Any) -> None:
    """With a fault of the protocol, and nothing is sent."""
    edge, upstream = before(Rounds)
    async with edge.client() as client:
        state = (await post(client))["result"]["requestState"]
        answer = await post(client, requestState=state, inputResponses=answers)
    assert answer["error"]["data"]["cause"] == "input_responses"
    assert len(upstream.sent) == 1


async def test_an_answer_nobody_asked_for_goes_nowhere() -> None:
    """What is missing is the upstream's to ask for again."""
    edge, upstream = before(Rounds)
    async with edge.client() as client:
        state = (await post(client))["result"]["requestState"]
        await post(client, requestState=state, inputResponses={"other": ACCEPTED})
    assert upstream.sent[1].intent.call.continuation.answers == {}


async def test_an_answer_that_breaks_the_form_is_denied() -> None:
    """Nothing is sent, and the model is told."""
    edge, upstream = before(Rounds)
    async with edge.client() as client:
        state = (await post(client))["result"]["requestState"]
        bad = {"who": {"action": "accept", "content": {"name": 7}}}
        answer = await post(client, requestState=state, inputResponses=bad)
    assert json.loads(answer["result"]["content"][0]["text"])["cause"] == "answer_invalid"
    assert len(upstream.sent) == 1


async def test_a_stateless_client_that_cannot_be_asked_gets_no_question() -> None:
    """Its upstream's result is a failure then."""
    edge, _ = before(Rounds)
    async with edge.client() as client:
        answer = await post(client, meta=META)
    assert json.loads(answer["result"]["content"][0]["text"])["cause"] == "input_undeclared"


# A client of the handshake era before an upstream of the stateless era


async def test_a_result_that_asks_is_put_on_the_stream() -> None:
    """And the call is made again with the answer, under an intent of its own."""
    edge, upstream = before(Rounds, rounds=2)
    async with talking(edge) as talk:
        for _ in range(2):
            await talk.reply(await talk.call.question(), result=ACCEPTED)
    assert talk.call.answer["result"] == RESULT
    assert [lease.intent.call.continuation and lease.intent.call.continuation.state for lease in upstream.sent] == [
        None,
        "1",
        "2",
    ]
    assert len({lease.intent.call.id for lease in upstream.sent}) == 3
    assert edge.records().count("tool.requested") == edge.records().count("tool.completed") == 3


@pytest.mark.parametrize(
    ("members", "cause"),
    [({"error": {"code": -1, "message": "no"}}, "input_declined"), ({"result": {"action": "x"}}, "answer_invalid")],
)
async def test_a_question_that_is_not_answered_ends_the_call(members: dict[str, Any], cause: str) -> None:
    """The call is not made again."""
    edge, upstream = before(Rounds)
    async with talking(edge) as talk:
        await talk.reply(await talk.call.question(), **members)
    assert json.loads(talk.call.answer["result"]["content"][0]["text"])["cause"] == cause
    assert len(upstream.sent) == 1


async def test_an_upstream_that_asks_without_end_is_left() -> None:
    """After so many rounds the call has failed."""
    edge, upstream = before(Rounds, rounds=99)
    async with talking(edge) as talk:
        for _ in range(8):
            await talk.reply(await talk.call.question(), result=ACCEPTED)
    assert json.loads(talk.call.answer["result"]["content"][0]["text"])["cause"] == "input_rounds"
    assert len(upstream.sent) == 8


async def test_a_client_that_leaves_is_asked_no_more() -> None:
    """Between two rounds nothing is under way that would have to finish."""
    edge, upstream = before(Rounds)
    async with talking(edge) as talk:
        await talk.call.question()
        talk.call.gone.set()
    assert len(upstream.sent) == 1
