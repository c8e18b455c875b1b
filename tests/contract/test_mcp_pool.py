"""The pool's promises: one budget for place and connection, and no request written into nothing."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import fail_after

from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool, target
from connectors.mcp.wire import Broken, NotConnected, Wire
from gateway.core.mcpwire.eras import Era
from tests.evidence import lease, make_tool
from tests.rawhttp import Seen, answer, running, says, stream

REQUEST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def deaf() -> AsyncIterator[str]:
    """A URL whose server takes no more connections: the next one hangs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}/"
        for one in waiting:
            one.close()


@asynccontextmanager
async def answering(text: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers the first request of each connection with ``text``: its URL, and the heads it read."""
    heads: list[bytes] = []
    ends: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(end := asyncio.Event())
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(text)
        await reader.read()
        writer.close()
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heads
        with fail_after(5):
            for end in ends:
                await end.wait()


async def test_a_place_and_a_connection_share_one_budget(deaf: str) -> None:
    """Waiting for a place and then for a connection takes no longer than either may alone."""
    at = target(deaf)
    async with Pool(per_server=1) as pool:
        line = pool.line(at)
        await line.places.acquire()
        began = time.monotonic()
        waiting = asyncio.create_task(pool.take(pool.line(at), 2.0))
        asyncio.get_running_loop().call_later(1.8, line.places.release)
        with pytest.raises(NotConnected), fail_after(10):
            await waiting
        assert time.monotonic() - began < 3.7  # two budgets end after 3.8 seconds
        assert line.places.value == 1


async def test_a_connection_that_is_closing_takes_no_request() -> None:
    """In the turn between the server's end and the loss of the connection, nothing is written into it."""
    async with answering(ANSWER) as (url, heads), Pool() as pool:
        at = target(url)
        wire = await pool.take(pool.line(at), 5)
        response = await wire.ask(REQUEST)
        assert b"".join([piece async for piece in response.chunks()]) == b"ok"
        pool.give(pool.line(at), wire)
        assert wire._transport is not None
        wire._transport.close()
        with pytest.raises(NotConnected):
            await wire.ask(REQUEST)
        other = await pool.take(pool.line(at), 5)
        assert other is not wire
        assert (await other.ask(REQUEST)).status == 200
        assert len(heads) == 2
        pool.give(pool.line(at), other)


@pytest.mark.parametrize("ending", [b"", b"zz\r\n"], ids=["cut", "garbage"])
async def test_a_good_answer_counts_however_its_stream_ends(ending: bytes) -> None:
    """What comes behind the answer of an event stream, or does not come, takes nothing back."""

    def unfinished(seen: Seen) -> bytes:
        head, _, body = stream(answer_of(seen)).partition(b"\r\n\r\n")
        kept = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length"))
        return kept + b"\r\ntransfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(body), body) + ending

    async with (
        Pool() as pool,
        running(Era.STATELESS, call=says(unfinished, close=True)) as up,
        HttpConnector(up.url, pool) as connector,
    ):
        with fail_after(5):
            raw = await connector.invoke(lease(make_tool()))
        assert raw.value["content"]


def answer_of(seen: Seen) -> bytes:
    """The JSON-RPC answer to a request."""
    return answer(seen).partition(b"\r\n\r\n")[2]


async def test_our_own_end_makes_no_answer_whole() -> None:
    """A body without a length that we stop reading is broken, not complete."""
    async with answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf") as (url, _):
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", target(url).port)
        response = await wire.ask(REQUEST)
        wire.close()
        with pytest.raises(Broken), fail_after(5):
            async for _piece in response.chunks():
                pass
