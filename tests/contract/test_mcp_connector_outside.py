"""What a handshake server over HTTP asks beside a call's own stream: the one call is asked, or nobody, at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio import create_task_group

from connectors.mcp import outside
from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.errors import GatewayError
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.eras import Era
from tests.asking_client import ACCEPTED, ALL, Client
from tests.rawhttp import RESULT, RawUpstream, Script, Seen, answer, http, running, says, stream
from tests.waiting import until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ASIDE = {"code": -32602, "message": "not answered (asked outside of a call)"}
NOT_OFFERED = {"code": -32601, "message": "not offered"}
PARAMS = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
FORM = (
    "data: " + json.dumps({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": PARAMS}) + "\n\n"
).encode()
KINDS = ("elicitation/create", "sampling/createMessage", "roots/list")


@dataclass(slots=True)
class Aside:
    """The own streams of an upstream's sessions, the last one last."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    gone: int = 0

    async def script(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Open one, and keep it."""
        writer.write(HEAD)
        await writer.drain()
        self.writers.append(writer)
        await seen.client_gone()
        self.gone += 1

    def ask(self, *questions: tuple[Any, str]) -> None:
        """Ask these on the last of them."""
        for request_id, method in questions:
            text = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": {"message": "Who?"}})
            self.writers[-1].write(f"event: message\ndata: {text}\n\n".encode())


@dataclass(slots=True)
class Upstream:
    """An upstream that asks aside, and the connector to it."""

    raw: RawUpstream
    aside: Aside
    connector: HttpConnector

    @property
    def told(self) -> dict[Any, Any]:
        """What it was answered, by the id of its question."""
        said = [seen.message for seen in self.raw.calls("POST")]
        return {reply["id"]: reply.get("error", reply.get("result")) for reply in said}

    def asking(self, *questions: tuple[Any, str]) -> Script:
        """A call during which it asks these aside, and waits for all answers before its own."""

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            self.aside.ask(*questions)
            await until(lambda: {request_id for request_id, _ in questions} <= self.told.keys())
            writer.write(answer(seen))

        return script


@asynccontextmanager
async def upstream(most: int = 64, places: int = 256) -> AsyncIterator[Upstream]:
    """Such an upstream, running; with so many sessions, and requests at a time to its host."""
    aside = Aside()
    async with (
        running(Era.HANDSHAKE, call=says(answer), GET=aside.script) as raw,
        Pool(places) as pool,
        HttpConnector(raw.url, pool, HttpOptions(max_sessions=most)) as connector,
    ):
        yield Upstream(raw, aside, connector)


async def test_what_is_asked_on_the_sessions_own_stream_is_declined() -> None:
    """Where two calls are under way nobody knows which is meant: no client sees it, and the server need not wait."""
    clients = (Client(), Client())
    async with upstream() as up, create_task_group() as tasks:
        questions = [*zip((1, "two", 3), KINDS, strict=True), ("p", "ping")]

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await until(lambda: len(up.raw.calls("tools/call")) == 2)
            if seen is up.raw.calls("tools/call")[0]:
                up.aside.ask(*questions)
            await until(lambda: len(up.told) == len(questions))
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        for client in clients:
            tasks.start_soon(client.call, up.connector)
        await until(lambda: len(up.told) == len(questions))
        assert up.told == {1: ASIDE, "two": ASIDE, 3: ASIDE, "p": {}}
        assert {seen.headers["mcp-session-id"] for seen in up.raw.calls("POST")} == {"session-1"}
    assert [client.shown for client in clients] == [[], []]


async def test_the_one_call_that_is_under_way_is_asked() -> None:
    """It can be no other caller's: a session is one's own. What it answers goes to the server in the same session."""
    client = Client()
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.writers[-1].write(FORM)
            await until(lambda: "q" in up.told)
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await client.call(up.connector)).value == RESULT
        assert up.told == {"q": ACCEPTED}
    assert [question.params["message"] for question in client.shown] == ["Who?"]


async def test_a_question_can_be_taken_back_where_it_was_asked() -> None:
    """Nobody is asked any more, and the server is not answered."""
    client = Client(answers=False)
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.writers[-1].write(FORM)
            await until(lambda: bool(client.shown))
            gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}}
            up.aside.writers[-1].write(f"data: {json.dumps(gone)}\n\n".encode())
            await until(lambda: client.over == 1)
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await client.call(up.connector)).value == RESULT
        assert "q" not in up.told


async def test_a_question_that_outlives_the_call_is_answered() -> None:
    """The server may have asked for reasons of its own: it is not left to wait for a client that is gone."""
    client = Client(answers=False)
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.writers[-1].write(FORM)
            await until(lambda: bool(client.shown))
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await client.call(up.connector)).value == RESULT
        await until(lambda: "q" in up.told)
        assert up.told == {"q": ASIDE}


async def test_a_question_is_taken_back_also_where_another_call_has_begun() -> None:
    """It was put while there was one; its name says which it is."""
    client, other = Client(answers=False), Client()
    async with upstream() as up, create_task_group() as tasks:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            if seen is up.raw.calls("tools/call")[0]:
                up.aside.writers[-1].write(FORM)
                await until(lambda: len(up.raw.calls("tools/call")) == 2)
                gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}}
                up.aside.writers[-1].write(f"data: {json.dumps(gone)}\n\n".encode())
            await until(lambda: client.over == 1)
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        tasks.start_soon(client.call, up.connector)
        await until(lambda: bool(client.shown))
        assert (await other.call(up.connector)).value == RESULT
    assert "q" not in up.told


async def test_a_call_that_was_given_up_may_be_meant_still() -> None:
    """Its server may be at it, and ask: whoever has the next call of the session is not shown that as their own."""
    client = Client()
    async with upstream() as up:
        up.raw.scripts["tools/call"] = up.raw.hang
        async with create_task_group() as tasks:
            tasks.start_soon(Client().call, up.connector)
            await until(lambda: len(up.raw.calls("tools/call")) == 1)
            tasks.cancel_scope.cancel()

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.writers[-1].write(FORM)
            await until(lambda: "q" in up.told)
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await client.call(up.connector)).value == RESULT
        assert up.told["q"] == ASIDE
        assert up.raw.sessions == 1
    assert client.shown == []


async def test_it_is_declined_between_calls_too() -> None:
    """The stream stays open for a while, and there is one of it."""
    async with upstream() as up:
        for _ in range(2):
            await Client().call(up.connector)
        up.aside.ask(("late", KINDS[0]))
        await until(lambda: "late" in up.told)
        assert up.told == {"late": ASIDE}
        assert len(up.raw.calls("GET")) == 1
    assert up.aside.gone == 1


async def test_a_session_that_declares_nothing_has_no_such_stream() -> None:
    """There is nothing that could be asked; nor is there one where the server keeps no sessions."""
    async with upstream() as up:
        await Client({}).call(up.connector)
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "0"}}
        up.raw.scripts["initialize"] = says(lambda seen: answer(seen, result))
        await Client().call(up.connector)
        assert up.raw.calls("GET") == []


@pytest.mark.parametrize("said", [http(b"", status="405 Method Not Allowed"), http(b"{}"), http(b"", status="409 No")])
async def test_a_server_without_such_a_stream_is_asked_for_it_once(said: bytes) -> None:
    """Whatever it says instead of one; its calls go on."""
    async with upstream() as up:
        up.raw.scripts["GET"] = says(lambda seen: said)
        for _ in range(3):
            assert (await Client().call(up.connector)).value == RESULT
        assert len(up.raw.calls("GET")) == 1


async def test_a_server_that_never_opens_the_stream_holds_up_no_call() -> None:
    """A call can do without it."""
    async with upstream() as up:
        up.raw.scripts["GET"] = up.raw.hang
        for _ in range(3):
            assert (await Client().call(up.connector)).value == RESULT
        assert len(up.raw.calls("GET")) == 1


async def test_streams_that_stand_open_take_no_place_of_a_call() -> None:
    """However many sessions the servers at one host and port have: its places are for what is asked there."""
    async with upstream(places=1) as up:
        declared: list[Mapping[str, Any]] = [ALL, {"elicitation": {}}]
        for capabilities in declared:
            up.raw.scripts["tools/call"] = up.asking(("q", KINDS[0]))
            assert (await Client(asking.declared(capabilities)).call(up.connector)).value == RESULT
        assert len(up.raw.calls("GET")) == 1
        assert up.told.keys() == {"q"}


async def test_a_stream_that_ends_under_a_call_is_opened_again() -> None:
    """While somebody may be waiting at its other end; what the server says in other words changes nothing."""
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.writers[-1].write(b"data: {}\n\n")
            await until(lambda: len(up.aside.writers) == 2)
            up.aside.writers[-1].close()
            await until(lambda: len(up.aside.writers) == 3)
            await up.asking(("q", KINDS[0]))(seen, writer)

        up.raw.scripts["tools/call"] = script
        assert (await Client().call(up.connector)).value == RESULT
        assert up.told.keys() == {"q"}


async def test_a_stream_that_lived_is_opened_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses grow while it ends early: a proxy that ends each after its minute costs no question half of another."""
    monkeypatch.setattr(outside, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(outside, "_LONGEST_PAUSE_S", 1000.0)
    monkeypatch.setattr(outside, "_STEADY_S", 0.0)
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            for known in range(1, 18):  # the last pause would be a minute
                await until(lambda known=known: len(up.aside.writers) == known)  # type: ignore[misc]
                up.aside.writers[-1].close()
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await Client().call(up.connector)).value == RESULT


async def test_a_stream_that_ends_between_calls_is_opened_by_the_next_one() -> None:
    """Nobody waits at its other end meanwhile."""
    async with upstream() as up:
        await Client().call(up.connector)
        up.aside.writers[-1].close()
        await until(lambda: up.connector.outside == 0)
        assert len(up.raw.calls("GET")) == 1
        up.raw.scripts["tools/call"] = up.asking(("q", KINDS[0]))
        assert (await Client().call(up.connector)).value == RESULT
        assert len(up.raw.calls("GET")) == 2


async def test_a_stream_that_nobody_needs_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A while after the last call, not under one; the next call opens it again."""
    monkeypatch.setattr(outside, "_IDLE_S", 0.02)
    async with upstream() as up:
        for known in (1, 2):
            up.raw.scripts["tools/call"] = up.asking((f"q{known}", KINDS[0]))
            await Client().call(up.connector)
            await until(lambda known=known: up.aside.gone == known)  # type: ignore[misc]
            assert up.connector.outside == 0


async def test_the_stream_ends_with_its_session() -> None:
    """One that the server does not know any more is let go of, with all that is open in it."""
    async with upstream() as up:
        await Client().call(up.connector)
        up.raw.scripts["tools/call"] = says(lambda seen: http(b"", status="404 Not Found"))
        with pytest.raises(GatewayError):
            await Client().call(up.connector)
        await until(lambda: up.aside.gone == 1)
        assert up.connector.outside == 0


async def test_a_session_that_makes_room_takes_its_stream_along() -> None:
    """There are no more streams than sessions, however many callers come and go."""
    async with upstream(most=1) as up:
        declared: list[Mapping[str, Any]] = [ALL, {"elicitation": {}}, {"sampling": {}}]
        for capabilities in declared:
            await Client(asking.declared(capabilities)).call(up.connector)
        await until(lambda: up.aside.gone == 2)
        assert (len(up.aside.writers), up.connector.outside) == (3, 1)
        assert len(up.raw.calls("DELETE")) == 2


async def test_a_call_that_is_given_up_holds_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session goes on, and its stream is given back as after any other call."""
    monkeypatch.setattr(outside, "_IDLE_S", 0.02)
    async with upstream() as up:
        up.raw.scripts["tools/call"] = up.raw.hang
        async with create_task_group() as group:
            group.start_soon(Client().call, up.connector)
            await until(lambda: len(up.raw.calls("tools/call")) == 1)
            assert up.connector.outside == 1
            group.cancel_scope.cancel()
        await until(lambda: up.connector.outside == 0 and up.aside.gone == 1)
        up.raw.scripts["tools/call"] = says(answer)
        assert (await Client().call(up.connector)).value == RESULT
        assert up.raw.sessions == 1


async def test_a_flood_of_questions_ends_the_stream_and_no_call() -> None:
    """Each costs an answer of ours; they are bounded, and who is under way does not suffer."""
    async with upstream() as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            up.aside.ask(*[(at, KINDS[0]) for at in range(100)])
            await until(lambda: up.aside.gone == 1)
            writer.write(answer(seen))

        up.raw.scripts["tools/call"] = script
        assert (await Client().call(up.connector)).value == RESULT
        assert 0 < len(up.told) <= 16


async def test_what_is_asked_during_the_handshake_is_answered() -> None:
    """A ping may be, and all else is declined; in the session that the answer names, and the handshake goes on."""
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "0"}}
    asked = [{"jsonrpc": "2.0", "id": at, "method": at, "params": {}} for at in ("ping", *KINDS)]

    def early(seen: Seen) -> bytes:
        whole = stream(*asked, {"jsonrpc": "2.0", "id": seen.message["id"], "result": result})
        return whole.replace(b"connection: close", b"connection: close\r\nmcp-session-id: early")

    async with upstream() as up:
        up.raw.scripts["initialize"] = says(early, close=True)
        assert (await Client().call(up.connector)).value == RESULT
        assert up.told == {"ping": {}, **dict.fromkeys(KINDS, NOT_OFFERED)}
        assert {seen.headers["mcp-session-id"] for seen in up.raw.calls("POST")} == {"early"}
