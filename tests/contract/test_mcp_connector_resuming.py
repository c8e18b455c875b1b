"""The stream of an answer that breaks off: gone on with where its server says how, and the call never sent again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import fail_after

from connectors.mcp.faults import Lost
from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from connectors.mcp.resuming import Trail
from gateway.core.errors import GatewayError, OutcomeUnknown, ToolFailed
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import EffectClass, ToolLimits
from tests.evidence import lease, make_tool
from tests.rawhttp import RESULT, RawUpstream, Script, Seen, http, running

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
TOOL = make_tool(effect=EffectClass.DESTRUCTIVE, limits=ToolLimits(max_output_bytes=1000))
PRIMED = b"id: a\nretry: 1\ndata: \n\n"


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


def wrote(*pieces: bytes) -> Script:
    """A stream of these bytes, which ends then."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"".join(pieces))
        await writer.drain()
        writer.close()

    return script


def event(message: dict[str, Any], name: str = "z") -> bytes:
    """A numbered event."""
    return f"id: {name}\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\n\n".encode()


def answering(up: RawUpstream, **members: Any) -> Script:
    """What is left of the stream: the answer to the call."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        call = up.calls("tools/call")[-1].message["id"]
        await wrote(event({"id": call, "result": RESULT} | members))(seen, writer)

    return script


async def called(connector: HttpConnector) -> Any:
    """The result of a call that writes."""
    with fail_after(30):
        return (await connector.invoke(lease(TOOL))).value


async def failing(connector: HttpConnector) -> GatewayError:
    """How the call ends."""
    with pytest.raises(GatewayError) as caught:
        await called(connector)
    return caught.value


async def test_a_stream_is_gone_on_with_where_it_was_left(pool: Pool) -> None:
    """With the last event, in the same session, with the same credential; the call was sent once."""
    async with running(Era.HANDSHAKE, call=wrote(PRIMED, b"id: b\ndata:\n\nid: c\ndata: cut")) as up:
        up.scripts["GET"] = answering(up)
        async with HttpConnector(up.url, pool) as connector:
            with fail_after(30):
                raw = await connector.invoke(lease(TOOL, headers={"authorization": "Bearer secret"}))
    assert raw.value == RESULT
    (asked,), (call,) = up.calls("GET"), up.calls("tools/call")
    assert asked.headers["last-event-id"] == "b"
    assert asked.body == b""
    for name in ("mcp-session-id", "authorization", "mcp-protocol-version"):
        assert asked.headers[name] == call.headers[name]


async def test_a_broken_connection_is_like_an_end(pool: Pool) -> None:
    """A stream with a length that does not come is gone on with, too."""
    async with running(Era.HANDSHAKE) as up:

        async def short(seen: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n" + PRIMED)
            writer.close()

        up.scripts |= {"tools/call": short, "GET": answering(up)}
        async with HttpConnector(up.url, pool) as connector:
            assert await called(connector) == RESULT
    assert len(up.calls("tools/call")) == 1


async def test_a_server_may_be_asked_again_and_again(pool: Pool) -> None:
    """As long as it takes up the thread, from where each stream was left."""
    async with running(Era.HANDSHAKE, call=wrote(PRIMED)) as up:

        async def later(seen: Seen, writer: asyncio.StreamWriter) -> None:
            count = len(up.calls("GET"))
            await (answering(up) if count > 5 else wrote(f"id: {count}\ndata:\n\n".encode()))(seen, writer)

        up.scripts["GET"] = later
        async with HttpConnector(up.url, pool) as connector:
            assert await called(connector) == RESULT
    assert [seen.headers["last-event-id"] for seen in up.calls("GET")] == ["a", "1", "2", "3", "4", "5"]
    assert len(up.calls("tools/call")) == 1


UNNAMED: dict[str, bytes] = {
    "nothing is numbered": b"retry: 1\ndata:\n\n",
    "the event was not closed": b"retry: 1\nid: a\ndata: x",
    "no header field could say it": b"retry: 1\nid: a\xc3\xa9\ndata:\n\n",
    "it is too long for a header field": b"retry: 1\nid: " + b"a" * 1025 + b"\ndata:\n\n",
    "the server wants to be left alone for too long": b"retry: 60001\nid: a\ndata:\n\n",
}


@pytest.mark.parametrize("name", UNNAMED)
async def test_where_the_server_does_not_say_how_the_outcome_is_unknown(name: str, pool: Pool) -> None:
    """Nothing more is sent."""
    async with running(Era.HANDSHAKE, call=wrote(UNNAMED[name])) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
    assert (type(caught), caught.cause_code) == (OutcomeUnknown, "stream_ended")
    assert up.calls("GET") == []
    assert len(up.calls("tools/call")) == 1


async def test_the_stateless_era_has_no_such_streams(pool: Pool) -> None:
    """There an event's number means nothing."""
    async with running(Era.STATELESS, call=wrote(PRIMED)) as up, HttpConnector(up.url, pool) as connector:
        assert isinstance(await failing(connector), OutcomeUnknown)
    assert up.calls("GET") == []


async def test_a_server_that_takes_its_numbers_back_is_not_asked_again(pool: Pool) -> None:
    """An empty one ends what was numbered before: from an older place it would all be told, and asked, again."""
    empty = wrote(b"id:\nretry: 1\ndata:\n\n")
    async with running(Era.HANDSHAKE, call=wrote(PRIMED), GET=empty) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
    assert (type(caught), caught.cause_code) == (OutcomeUnknown, "stream_ended")
    assert len(up.calls("GET")) == 1


async def test_a_later_stream_that_numbers_nothing_leaves_the_place_as_it_was(pool: Pool) -> None:
    """Nothing came on it that could be missed."""
    async with running(Era.HANDSHAKE, call=wrote(PRIMED)) as up:

        async def later(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (answering(up) if len(up.calls("GET")) > 1 else wrote(b": hello\n\n"))(seen, writer)

        up.scripts["GET"] = later
        async with HttpConnector(up.url, pool) as connector:
            assert await called(connector) == RESULT
    assert [seen.headers["last-event-id"] for seen in up.calls("GET")] == ["a", "a"]


BAD: dict[str, tuple[Callable[[Seen], bytes], str]] = {
    "refuses": (lambda _: http(b"", status="405 Method Not Allowed"), "stream_ended"),
    "does not know the session": (lambda _: http(b"", status="404 Not Found"), "stream_ended"),
    "wants another credential": (lambda _: http(b"", status="401 Unauthorized"), "stream_ended"),
    "sends elsewhere": (lambda _: http(b"", status="307 Go", extra="location: /x\r\n"), "stream_ended"),
    "gives no stream": (lambda _: http(b"{}"), "stream_ended"),
    "packs it": (
        lambda _: http(b"", kind="text/event-stream", extra="content-encoding: gzip\r\n"),
        "content_encoding",
    ),
    "answers another": (lambda _: HEAD + event({"id": 999, "result": RESULT}), "wrong_id"),
    "could not read": (lambda _: HEAD + event({"id": None, "error": {"code": -32700, "message": "x"}}), "wrong_id"),
    "babbles": (lambda _: HEAD + b"data: x\n\n", "garbage"),
    "is too long": (lambda _: HEAD + b"data: " + b"x" * 70_000 + b"\n\n", "output_too_large"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_thread_that_is_not_taken_up_leaves_the_outcome_unknown(name: str, pool: Pool) -> None:
    """Neither refused nor not sent: the call has left, whatever becomes of its stream."""
    reply, cause = BAD[name]

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(seen))
        writer.close()

    async with running(Era.HANDSHAKE, call=wrote(PRIMED), GET=script) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
    assert (type(caught), caught.cause_code) == (OutcomeUnknown, cause)
    assert len(up.calls("GET")) == len(up.calls("tools/call")) == 1


async def test_an_error_on_the_later_stream_is_the_calls_own(pool: Pool) -> None:
    """The upstream says that it failed: that is an answer."""
    async with running(Era.HANDSHAKE, call=wrote(PRIMED)) as up:

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            call = up.calls("tools/call")[-1].message["id"]
            await wrote(event({"id": call, "error": {"code": -1, "message": "x"}}))(seen, writer)

        up.scripts["GET"] = script
        async with HttpConnector(up.url, pool) as connector:
            assert isinstance(await failing(connector), ToolFailed)


async def test_a_server_that_is_gone_is_tried_a_few_times(pool: Pool) -> None:
    """Then the outcome is unknown, as something has left."""
    up = RawUpstream(Era.HANDSHAKE)
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0)

    async def last_words(seen: Seen, writer: asyncio.StreamWriter) -> None:
        server.close()
        await wrote(PRIMED)(seen, writer)

    up.scripts["tools/call"] = last_words
    async with HttpConnector(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", pool) as connector:
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "stream_ended")
    await up.end()


def test_a_thread_has_an_end() -> None:
    """A server that always ends its streams is asked a hundred times, if the call's own time does not end before."""
    trail = Trail(0, last_id="a", retry_ms=0)
    for _ in range(100):
        assert trail.pause_s() == 0.05
        trail.opened()
    with pytest.raises(Lost):
        trail.pause_s()


def test_a_server_that_cannot_be_reached_is_given_more_time_each_time() -> None:
    """Three times in a row, and no longer than its caller could wait; one that was reached has all tries again."""
    trail = Trail(0, last_id="a", retry_ms=2000)
    pauses = []
    for _ in range(3):
        pauses.append(trail.pause_s())
        trail.failed()
    assert pauses == [2, 4, 8]
    with pytest.raises(Lost):
        trail.pause_s()
    trail.opened()
    assert trail.pause_s() == 2
    assert Trail(0, last_id="a").pause_s() == 1
