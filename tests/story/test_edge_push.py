"""Streams between requests: who hears that a list has changed, and when a stream is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after

from gateway.core.errors import Throttled
from gateway.core.mcpwire.following import LISTEN, META_SUBSCRIPTION
from gateway.core.tool import Tool
from gateway.edge.ears import STOPPING, Stopping
from gateway.edge.mcp import push
from gateway.edge.mcp.push import Places
from tests.edge_world import META, NEWEST, Edge, modern, rpc
from tests.fakes.rules import DENY
from tests.fakes.upstream import ORDER, STOCK, tool
from tests.story.test_edge_mcp import opened
from tests.waiting import until

LETTER, SECRET = tool("erp.prompts/letter"), tool("erp.secret")
PAGE = tool("erp.resources/x:page")
TOOLS_CHANGED, PROMPTS_CHANGED = "notifications/tools/list_changed", "notifications/prompts/list_changed"
PATIENCE_S = 30


@dataclass
class Listening:
    """One stream, as its client sees it.

    Attributes:
        heard: the messages so far.
        status: HTTP status; 0 before there is one.
        over: set when the gateway has ended the answer.
    """

    heard: list[dict[str, Any]] = field(default_factory=list)
    silences: int = 0
    status: int = 0
    body: bytes = b""
    over: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)
    stopping: Stopping = field(default_factory=Stopping)
    scope: dict[str, Any] = field(default_factory=dict)
    news: Event = field(default_factory=Event)

    async def take(self, message: Any) -> None:
        """ASGI's ``send``."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            for line in message["body"].splitlines():
                if line.startswith(b"data: "):
                    self.heard.append(json.loads(line[6:]))
                self.silences += line == b":"
        self.news.set()
        self.news = Event()

    async def until(self, messages: int = 0, silences: int = 0) -> list[str]:
        """Wait for so many of them; returns the methods."""
        with fail_after(PATIENCE_S):
            while len(self.heard) < messages or self.silences < silences:
                await self.news.wait()
        return [str(message.get("method")) for message in self.heard]


@asynccontextmanager
async def listening(
    edge: Edge, headers: dict[str, str], body: bytes = b"", path: str = "/mcp", **more: Any
) -> AsyncIterator[Listening]:
    """A stream that is open meanwhile, by GET where there is no body; ``more`` may have ``token`` and ``stopping``."""
    stream, said, token = Listening(stopping=more.get("stopping") or Stopping()), [body], more.get("token", "good")

    async def receive() -> Any:
        if said:
            return {"type": "http.request", "body": said.pop(), "more_body": False}
        await stream.gone.wait()
        return {"type": "http.disconnect"}

    fields = {"host": "gateway.test", "authorization": f"Bearer {token}", "accept": "text/event-stream, */*", **headers}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST" if body else "GET",
        "path": path,
        "query_string": b"",
        "client": ("192.0.2.1", 4711),
        "server": ("127.0.0.1", 8470),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        STOPPING: stream.stopping,
    }
    stream.scope = scope

    async def run() -> None:
        await edge.app(scope, receive, stream.take)
        stream.over.set()
        stream.news.set()

    async with create_task_group() as group:
        group.start_soon(run)
        yield stream
        stream.gone.set()
        with fail_after(PATIENCE_S):
            await stream.over.wait()


def listen(*wanted: str, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a ``subscriptions/listen``."""
    params = {"notifications": dict.fromkeys(wanted, True) | more, "_meta": META}
    body = json.dumps(rpc(LISTEN, params, "s-1")).encode()
    named = {"mcp-protocol-version": NEWEST, "mcp-method": LISTEN, "content-type": "application/json"}
    return body, named


def restock(edge: Edge, *shelf: Tool) -> None:
    """Put a new generation of the catalogue in force."""
    edge.world.catalog.restock(*shelf)


async def session_of(edge: Edge, path: str = "/mcp") -> dict[str, str]:
    """The headers of a session."""
    async with edge.client() as client:
        return await opened(client, path)


async def test_a_session_hears_that_its_lists_have_changed() -> None:
    """Each list by its own notice, and only where it is another one for this caller: nothing tells of a hidden tool."""
    edge = Edge()
    edge.world.catalog.shelf = (STOCK, LETTER)
    edge.world.policy.words["list", SECRET.fqn] = DENY
    async with listening(edge, await session_of(edge)) as stream:
        await stream.until(silences=1)
        restock(edge, STOCK, LETTER, ORDER)
        assert await stream.until(1) == [TOOLS_CHANGED]
        restock(edge, STOCK, LETTER, ORDER, SECRET)
        restock(edge, STOCK, ORDER, SECRET)
        assert await stream.until(2) == [TOOLS_CHANGED, PROMPTS_CHANGED]
        restock(edge, replace(STOCK, digest="other"), ORDER, PAGE)
        methods = await stream.until(4)
        assert methods[2:] == [TOOLS_CHANGED, "notifications/resources/list_changed"]
        assert stream.heard[0] == {"jsonrpc": "2.0", "method": TOOLS_CHANGED, "params": {}}
    assert stream.status == 200


async def test_a_server_of_its_own_has_its_own_news() -> None:
    """What changes at another server is none."""
    edge = Edge()
    path = "/servers/erp/mcp"
    async with listening(edge, await session_of(edge, path), path=path) as stream:
        await stream.until(silences=1)
        restock(edge, STOCK, ORDER, tool("crm.find"))
        restock(edge, STOCK, ORDER, LETTER, tool("crm.other"))
        assert PROMPTS_CHANGED in await stream.until(2)
        assert len(stream.heard) == 2  # the tools of this server that were taken away, and the prompt


async def test_a_subscription_is_acknowledged_and_hears_what_it_asked_for() -> None:
    """The acknowledgement is first and names what is carried; every notice has the id; nothing else is said."""
    edge = Edge()
    body, named = listen("toolsListChanged", resourceSubscriptions=["x:page"], promptsListChanged=1)
    async with listening(edge, named, body) as stream:
        await stream.until(1)
        restock(edge, STOCK, LETTER)
        restock(edge, LETTER)
        await stream.until(2)
        stream.stopping.set()
        await stream.until(3)
    tag = {META_SUBSCRIPTION: "s-1"}
    assert stream.heard == [
        {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": {"toolsListChanged": True}, "_meta": tag},
        },
        {"jsonrpc": "2.0", "method": TOOLS_CHANGED, "params": {"_meta": tag}},
        {"jsonrpc": "2.0", "id": "s-1", "result": {"resultType": "complete", "_meta": tag}},
    ]


@pytest.mark.parametrize("why", ["session", "credential", "policy", "stop"])
async def test_a_stream_ends_with_its_reason(why: str) -> None:
    """The session is over, the credential is not good any more, policy cannot be asked, the gateway stops."""
    edge = Edge()
    session = await session_of(edge)
    async with listening(edge, session) as stream:
        await stream.until(silences=1)
        if why == "session":
            async with edge.client() as client:
                await client.delete("/mcp", headers=session)
        elif why == "credential":
            del edge.world.identity.tokens["good"]
        elif why == "policy":
            edge.world.policy.deadly.add(("list", ORDER.fqn))
        else:
            stream.stopping.set()
        if why != "stop":
            restock(edge, ORDER)
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    assert stream.heard == []


async def test_a_credential_that_ends_ends_the_stream() -> None:
    """By itself, without anything happening; a subscription is told that it is over."""
    edge = Edge()
    known = edge.world.identity.tokens["good"]
    edge.world.identity.tokens["short"] = replace(known, expires_us=edge.world.clock.now_us())
    body, named = listen("toolsListChanged")
    async with listening(edge, named, body, token="short") as stream:
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    assert stream.heard[-1]["id"] == "s-1"


async def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that says nothing, again and again."""
    monkeypatch.setattr(push, "_SILENCE_S", 0.01)
    edge = Edge()
    async with listening(edge, await session_of(edge)) as stream:
        await stream.until(silences=3)
    assert stream.heard == []


async def test_open_streams_keep_little() -> None:
    """No header field, the credential least of all; and besides their own task, only the one that hears them leave."""
    edge = Edge()
    session = await session_of(edge)
    before = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(edge, session)) for _ in range(5)]
        for stream in streams:
            await stream.until(silences=1)
            assert stream.scope["headers"] == []
        await until(lambda: len(asyncio.all_tasks()) == before + 2 * len(streams))
        restock(edge, STOCK)
        assert [await stream.until(1) for stream in streams] == [[TOOLS_CHANGED]] * len(streams)
        assert len(asyncio.all_tasks()) == before + 2 * len(streams)


async def test_no_bell_knows_a_stream_that_is_over() -> None:
    """Neither the catalogue's nor the session's nor the server's: each would keep all of it in memory."""
    edge = Edge()
    session = await session_of(edge)
    mcp = edge.app._mcp  # type: ignore[attr-defined]
    (own,) = mcp._sessions._all.values()
    async with listening(edge, session) as stream:
        await stream.until(silences=1)
        bells = (edge.world.catalog.bell, own.follows.bell, stream.stopping.bell)
        assert [len(bell._ears or ()) for bell in bells] == [1, 1, 1]
    assert [len(bell._ears or ()) for bell in bells] == [0, 0, 0]


async def test_a_server_that_stops_already_ends_a_stream_at_once() -> None:
    """It says its last word, which is also its first."""
    edge = Edge()
    body, named = listen("toolsListChanged")
    stopping = Stopping()
    stopping.set()
    async with listening(edge, named, body, stopping=stopping) as stream:
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    assert stream.heard[-1]["id"] == "s-1"


async def test_who_gets_no_stream() -> None:
    """Without a session, with another principal's or an ended one, without a taste for streams, or without a filter."""
    edge = Edge()
    session = await session_of(edge)
    body, named = listen("toolsListChanged")
    async with edge.client() as client, edge.client("other") as thief:
        assert (await client.get("/mcp")).status_code == 405
        assert (await thief.get("/mcp", headers=session)).status_code == 404
        assert (await client.get("/servers/erp/mcp", headers=session)).status_code == 404
        assert (await client.get("/mcp", headers=session | {"accept": "application/json"})).status_code == 406
        assert (await client.get("/mcp", headers=session | {"mcp-protocol-version": NEWEST})).status_code == 405
        for wrong in ({}, {"notifications": None}, {"notifications": ["toolsListChanged"]}):
            answer = await client.post("/mcp", **modern(LISTEN, wrong))
            assert answer.json()["error"]["data"]["cause"] == "notifications"
        nowhere = await client.post("/servers/none/mcp", content=body, headers=named)
        assert nowhere.status_code == 404
        old = await client.post("/mcp", json=rpc(LISTEN, {"notifications": {}}))
        assert old.json()["error"]["code"] == -32601


def test_streams_of_one_principal_are_bounded() -> None:
    """Each costs memory; who has their share gets no more until one of theirs is over, and nobody else is affected."""
    places = Places(1)
    with places.taken("a"):
        places.check("b")
        with pytest.raises(Throttled), places.taken("a"):
            pass
    places.check("a")


def test_streams_of_one_user_are_bounded() -> None:
    """Through however many agents: each holds a connection, and there are so many for all users together."""
    places = Places(2, 3)
    with places.taken("i|ada|a"), places.taken("i|ada|a"), places.taken("i|ada|b"):
        with pytest.raises(Throttled), places.taken("i|ada|c"):
            pass
        places.check("i|bob|a")
    places.check("i|ada|c")
    assert not places._open
