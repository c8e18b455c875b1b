"""What flows while a call is carried out, over MCP: notices on the call's own stream, and calls that are taken back."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from anyio import fail_after

from gateway.core.call import Answer, Lease, Permit, Quota, Raw
from gateway.core.errors import Tainted
from gateway.core.mcpwire import sse
from gateway.core.mcpwire.notices import LogMessage, Notice, Progress
from gateway.edge.heads import head_of
from gateway.edge.mcp.stream import Stream
from gateway.edge.reply import Common, Hardened, Reply
from tests.edge_world import META, NEWEST, Edge, modern, rpc
from tests.fakes import World
from tests.fakes.approvals import FakeApprovals
from tests.fakes.rules import APPROVAL, FakeLimits
from tests.fakes.upstream import RESULT, FakeConnector
from tests.waiting import until

STEPS = tuple(Progress(done, b'{"progress":%d,"total":2}' % done) for done in (1, 2))
LINES = tuple(LogMessage(level, b'{"level":"%b","data":"m"}' % level.encode()) for level in ("debug", "error"))


@dataclass(slots=True)
class Talkative(FakeConnector):
    """An upstream that says ``notices`` while it works, and waits for ``hold`` where there is one."""

    notices: tuple[Notice, ...] = STEPS
    hold: asyncio.Event | None = None
    broken_off: int = 0

    async def invoke(self, lease: Lease) -> Raw:
        """Say what there is to say, then answer."""
        self.sent.append(lease)
        flow = lease.intent.call.flow
        for notice in self.notices:
            if flow is not None:
                await flow.tell(notice)
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        return Raw(lease, json.dumps(RESULT).encode(), dict(RESULT))


def talkative(**members: Any) -> tuple[Edge, Talkative]:
    """An edge before such an upstream."""
    edge = Edge()
    upstream = Talkative(edge.world.journal, **members)
    edge.world.connector = upstream
    edge.world.catalog.connector = upstream
    return edge, upstream


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The messages of an event stream."""
    assert answer.headers["content-type"] == "text/event-stream"
    return [json.loads(event.data) for event in sse.Decoder(1 << 20).feed(answer.content)]


def call(token: Any = "mine", name: str = "erp__stock", request_id: Any = 1) -> dict[str, Any]:
    """A call that wants to hear of its progress."""
    return rpc("tools/call", {"name": name, "_meta": {"progressToken": token}}, request_id)


@asynccontextmanager
async def in_session(edge: Edge, token: str = "good") -> AsyncIterator[httpx.AsyncClient]:
    """A client that has said hello."""
    async with edge.client(token) as client:
        hello = await client.post("/mcp", json=rpc("initialize", {"protocolVersion": "2025-11-25"}))
        assert hello.json()["result"]["capabilities"]["logging"] == {}
        client.headers["mcp-session-id"] = hello.headers["mcp-session-id"]
        yield client


def cancelling(request_id: Any) -> dict[str, Any]:
    """The notification that takes a call back."""
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


@pytest.mark.parametrize("token", ["mine", 0, 7])
async def test_progress_goes_out_on_the_calls_own_stream(token: Any) -> None:
    """Under the caller's own token, before the answer, which ends the stream."""
    edge, _ = talkative()
    async with edge.client() as client:
        answer = await client.post("/mcp", json=call(token))
    first, second, last = events(answer)
    assert first == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": token, "progress": 1, "total": 2},
    }
    assert second["params"]["progress"] == 2
    assert last == {"jsonrpc": "2.0", "id": 1, "result": RESULT}
    assert answer.headers["ostiary-call-id"]
    assert answer.headers["x-accel-buffering"] == "no"
    assert edge.records() == ["tool.requested", "tool.completed"]


async def test_a_stateless_client_hears_the_same() -> None:
    """Progress by ``_meta.progressToken``; log messages only where the request names a level."""
    edge, _ = talkative(notices=(*STEPS, *LINES))
    async with edge.client() as client:
        posted = modern("tools/call", {"name": "erp__stock"})
        posted["json"]["params"]["_meta"] = {**META, "progressToken": 3}
        quiet = await client.post("/mcp", **posted)
        posted["json"]["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = "error"
        loud = await client.post("/mcp", **posted)
    methods = [[message.get("method", "answer") for message in events(answer)] for answer in (quiet, loud)]
    assert methods[0] == ["notifications/progress"] * 2 + ["answer"]
    assert methods[1] == ["notifications/progress"] * 2 + ["notifications/message", "answer"]
    assert events(loud)[-2]["params"] == {"level": "error", "data": "m"}


@pytest.mark.parametrize(
    ("accept", "token"), [("application/json", "mine"), ("application/json, text/event-stream", None)]
)
async def test_an_answer_without_notices_is_plain_json(accept: str, token: Any) -> None:
    """Also where the client takes no streams: a notice is lost then, and the answer is not."""
    edge, _ = talkative()
    async with edge.client() as client:
        answer = await client.post("/mcp", json=call(token), headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"] == RESULT


async def test_log_messages_follow_the_sessions_level() -> None:
    """Until a client names a level it hears all; from then on those of that severity, in its own session only."""
    edge, _ = talkative(notices=LINES)
    async with in_session(edge) as client, in_session(edge) as another:
        before = events(await client.post("/mcp", json=call()))
        assert (await client.post("/mcp", json=rpc("logging/setLevel", {"level": "error"}))).json()["result"] == {}
        after = events(await client.post("/mcp", json=call()))
        beside = events(await another.post("/mcp", json=call()))
    assert [len(messages) for messages in (before, after, beside)] == [3, 2, 3]
    assert after[0]["params"]["level"] == "error"


@pytest.mark.parametrize("params", [{}, {"level": "loud"}, {"level": 3}])
async def test_a_level_that_is_none_is_refused(params: dict[str, Any]) -> None:
    """With words that name those that are; without a session there is nothing that could have one."""
    edge, _ = talkative()
    async with in_session(edge) as client:
        refused = (await client.post("/mcp", json=rpc("logging/setLevel", params))).json()["error"]
    async with edge.client() as client:
        outside = (await client.post("/mcp", json=rpc("logging/setLevel", {"level": "info"}))).json()["error"]
    assert refused["code"] == outside["code"] == -32602
    assert "emergency" in refused["message"]
    assert outside["data"]["cause"] == "session"


@pytest.mark.parametrize("token", [True, 1.5, [], {}, "x" * 257])
async def test_a_token_that_is_none_is_refused(token: Any) -> None:
    """Nothing is carried out; a level that is none is refused alike."""
    edge, upstream = talkative()
    async with edge.client() as client:
        answer = await client.post("/mcp", json=call(token))
        posted = modern("tools/call", {"name": "erp__stock"})
        posted["json"]["params"]["_meta"] = {**META, "io.modelcontextprotocol/logLevel": token}
        level = await client.post("/mcp", **posted)
    assert answer.json()["error"]["data"]["cause"] == "progress_token"
    assert level.json()["error"]["data"]["cause"] == "log_level"
    assert upstream.sent == []


async def test_no_secret_passes_in_a_notice() -> None:
    """Neither in a progress message nor in a line of a log, at whatever depth."""
    step = Progress(1, b'{"progress":1,"message":"use hunter22"}')
    line = LogMessage("info", b'{"level":"info","data":{"a":["hunter22"]}}')
    edge, _ = talkative(notices=(step, line))
    edge.world.redactor.secrets = ("hunter22",)
    async with edge.client() as client:
        answer = await client.post("/mcp", json=call())
    assert len(events(answer)) == 3
    assert b"hunter22" not in answer.content


async def test_what_goes_wrong_after_a_notice_is_told_at_the_end_of_the_stream() -> None:
    """An output that is withheld is withheld there, too."""
    edge, _ = talkative()
    edge.world.journal.fail("verifier.verify", Tainted("no", cause_code="output_shape"))
    async with edge.client() as client:
        answer = await client.post("/mcp", json=call())
    last = events(answer)[-1]
    assert json.loads(last["result"]["content"][0]["text"])["error"] == "tainted"
    assert edge.records() == ["tool.requested", "tool.failed"]


@dataclass(slots=True)
class Held:
    """A call under way at an upstream that waits."""

    client: httpx.AsyncClient
    answer: "asyncio.Task[httpx.Response]"


@asynccontextmanager
async def held(edge: Edge, name: str, is_reached: Callable[[], bool], request_id: Any = 1) -> AsyncIterator[Held]:
    """A call that a client with a session is waiting for."""
    async with in_session(edge) as client:
        task = asyncio.create_task(client.post("/mcp", json=call(name=name, request_id=request_id)))
        with fail_after(30):
            await until(is_reached)
            yield Held(client, task)
            await task


@pytest.mark.parametrize(("name", "cause"), [("erp__stock", "tool_failed"), ("erp__order", "outcome_unknown")])
async def test_a_client_takes_its_call_back(name: str, cause: str) -> None:
    """A read and a write are broken off, which the upstream hears once, and the client is told what is known."""
    edge, upstream = talkative(hold=asyncio.Event())
    async with held(edge, name, lambda: bool(upstream.sent)) as now:
        for _ in range(2):
            assert (await now.client.post("/mcp", json=cancelling(1))).status_code == 202
    told = json.loads(events(now.answer.result())[-1]["result"]["content"][0]["text"])
    assert (told["error"], told["cause"]) == (cause, "withdrawn")
    assert (upstream.broken_off, len(upstream.sent)) == (1, 1)
    assert edge.records() == ["tool.requested", "tool.failed" if name == "erp__stock" else "tool.outcome_unknown"]


async def test_nobody_takes_anothers_call_back() -> None:
    """Not from another session, not as another principal, not by another id, and not in the other era."""
    hold = asyncio.Event()
    edge, upstream = talkative(hold=hold)
    stateless = {"mcp-protocol-version": NEWEST}
    async with held(edge, "erp__order", lambda: bool(upstream.sent)) as now:
        session = {"mcp-session-id": now.client.headers["mcp-session-id"]}
        async with in_session(edge) as same, in_session(edge, "other") as other, edge.client("other") as thief:
            for client in (same, other):
                assert (await client.post("/mcp", json=cancelling(1))).status_code == 202
            assert (await thief.post("/mcp", json=cancelling(1), headers=session)).status_code == 404
            assert (await thief.post("/mcp", json=cancelling(1))).status_code == 202
        for request_id in ("1", 2, None, True, 1.0):
            await now.client.post("/mcp", json=cancelling(request_id))
        async with edge.client() as modern_client:
            await modern_client.post("/mcp", json=cancelling(1), headers=stateless)
        assert upstream.broken_off == 0
        hold.set()
    assert events(now.answer.result())[-1]["result"] == RESULT


@dataclass(slots=True)
class Full(FakeLimits):
    """No room, and a long wait for it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def spend(self, permit: Permit) -> AsyncIterator[Quota]:
        """Never a place."""
        self.reached.set()
        await asyncio.Event().wait()
        yield Quota(permit)


async def test_a_call_taken_back_before_its_intent_was_never_made() -> None:
    """Nothing was executed, and the client is told so."""
    world = World()
    limits = world.limits = Full(world.journal)
    edge = Edge(world=world)
    async with held(edge, "erp__order", limits.reached.is_set) as now:
        await now.client.post("/mcp", json=cancelling(1))
    told = json.loads(now.answer.result().json()["result"]["content"][0]["text"])
    assert (told["error"], told["cause"]) == ("unavailable", "withdrawn")
    assert world.connector.sent == []
    assert edge.records() == ["call.refused"]


@dataclass(slots=True)
class Signing(FakeApprovals):
    """People who take their time, while somebody waits for them."""

    asked: list[float] = field(default_factory=list)

    async def outcome(self, approval_id: str, patience_s: float) -> Answer:
        """What it says by then."""
        self.asked.append(patience_s)
        if patience_s:
            await asyncio.Event().wait()
        return await FakeApprovals.outcome(self, approval_id, patience_s)


async def test_a_call_taken_back_that_waits_for_people_is_told_where_it_stands() -> None:
    """It may be carried out meanwhile, or later on: that nothing was done would be nobody's to say."""
    world = World()
    approvals = world.approvals = Signing(world.journal)
    edge = Edge(world=world)
    edge.world.policy.words["call", "bank.pay"] = APPROVAL
    async with held(edge, "bank__pay", lambda: bool(approvals.asked)) as now:
        await now.client.post("/mcp", json=cancelling(1))
    told = json.loads(now.answer.result().json()["result"]["content"][0]["text"])
    assert (told.get("status"), told.get("approval_id") in approvals.actions) == ("pending", True)
    assert (approvals.asked[1:], world.connector.sent) == ([0], [])


class Client:
    """A client on bare ASGI that stops reading after so many messages."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        """Take a message, or never."""
        if len(self.sent) >= self.room:
            await asyncio.Event().wait()
        self.sent.append(message)


ACCEPTING = {"path": "/mcp", "headers": [(b"accept", b"application/json, text/event-stream")]}


@pytest.mark.parametrize("at_the_door", [True, False])
@pytest.mark.parametrize("room", [0, 1, 2])
async def test_a_client_that_does_not_read_hears_no_more_notices(room: int, at_the_door: bool) -> None:
    """Its call goes on, and its answer waits for it in the form that was begun."""
    client = Client(room)
    send = Hardened(ACCEPTING, client.send, Common((), lambda _, __, given: given)) if at_the_door else client.send
    stream = Stream(head_of(ACCEPTING), send, (), stall_s=0.01)
    for count in range(3):
        await stream.event(b'{"n":%d}' % count)
    assert len(client.sent) == room
    client.room = 9
    await stream.finish(Reply(200, b'{"id":1}'))
    kinds = [message["type"].rpartition(".")[2] for message in client.sent]
    assert kinds == (["start", "body"] if room < 2 else ["start", "body", "body"])
    assert not client.sent[-1].get("more_body", False)
    assert b'{"id":1}' in client.sent[-1]["body"]


async def test_no_answer_of_a_client_approves_anything() -> None:
    """A client that says yes to everything it can think of has approved nothing: its call still waits for people."""
    edge, upstream = talkative()
    edge.world.policy.words["call", "bank.pay"] = APPROVAL
    yes = {"action": "accept", "content": {"approved": True}}
    async with in_session(edge) as client:
        first = await client.post("/mcp", json=call(name="bank__pay"))
        approval = json.loads(first.json()["result"]["content"][0]["text"])["approval_id"]
        for answered in (approval, 1, "1", first.headers["ostiary-call-id"]):
            reply = {"jsonrpc": "2.0", "id": answered, "result": yes}
            assert (await client.post("/mcp", json=reply)).status_code == 202
        posted = modern(
            "tools/call", {"name": "bank__pay", "inputResponses": {approval: yes}, "requestState": approval}
        )
        forged = await client.post("/mcp", **posted)
        again = await client.post("/mcp", json=call(name="bank__pay", request_id=2))
    assert forged.json()["error"]["data"]["cause"] == "request_state"
    assert json.loads(again.json()["result"]["content"][0]["text"])["approval_id"] == approval
    assert upstream.sent == []
