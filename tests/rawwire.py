"""A server that leaves every byte of its answers to the test, for clients of ours that speak HTTP/1.1."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import fail_after

from connectors.mcp.pool import Pool, Target, target
from connectors.mcp.wire import Response, Wire

T = TypeVar("T")
End = Callable[["Peer"], None]
REQUEST = b"GET /mcp HTTP/1.1\r\nhost: h\r\n\r\n"


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds."""
    while not holds():  # noqa: ASYNC110 -- states of sockets, which set no event
        await asyncio.sleep(0)


@dataclass(eq=False, slots=True)
class Peer:
    """The server's side of one connection; ``gone`` is set when the client has closed it."""

    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def says(self, wire: Wire, piece: bytes) -> None:
        """Send, and wait until it arrived or was refused."""
        goal = wire._received + len(piece)
        self.writer.write(piece)
        await until(lambda: wire._received >= goal or wire._fault is not None)


@dataclass(slots=True)
class Upstream:
    """A server that notes requests and leaves every word to the test."""

    at: Target
    peers: list[Peer] = field(default_factory=list)
    asked: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        peer = Peer(writer)
        self.peers.append(peer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.put_nowait(peer)
        peer.gone.set()
        writer.close()


@asynccontextmanager
async def opened(per_server: int = 256, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Upstream, Pool]]:
    """A server and a pool; all must be over soon."""
    up = Upstream(target("http://127.0.0.1"))
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0, ssl=tls)
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    up.at = target(f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/mcp")
    try:
        with fail_after(20):
            async with Pool(per_server) as pool:
                yield up, pool
    finally:
        server.close()
        for peer in up.peers:
            if not peer.gone.is_set():
                peer.writer.transport.abort()
                await peer.gone.wait()


async def head(wire: Wire) -> Response:
    """Ask and read the head of the answer only."""
    return await wire.ask(REQUEST)


async def read(wire: Wire) -> tuple[Response, bytes]:
    """Ask and read the whole answer."""
    answer = await wire.ask(REQUEST)
    return answer, b"".join([piece async for piece in answer.chunks()])


@asynccontextmanager
async def asking(
    up: Upstream, pool: Pool, use: Callable[[Wire], Coroutine[Any, Any, T]]
) -> AsyncIterator[tuple[Wire, Peer, asyncio.Task[T]]]:
    """An exchange whose request has arrived."""
    wire = await pool.take(pool.line(up.at), 5)
    using = asyncio.create_task(use(wire))
    try:
        yield wire, await up.asked.get(), using
    finally:
        using.cancel()
        pool.give(pool.line(up.at), wire)


async def exchange(up: Upstream, pool: Pool, *pieces: bytes, end: End | None = None) -> tuple[int, str | None, bytes]:
    """One exchange, its answer sent in these pieces: status, the field ``x-a``, body."""
    async with asking(up, pool, read) as (wire, peer, reading):
        for piece in pieces:
            await peer.says(wire, piece)
        if end is not None:
            end(peer)
        answer, body = await reading
        return answer.status, answer.field(b"x-a"), body


def closes(peer: Peer) -> None:
    """The server ends the connection."""
    peer.writer.close()


def resets(peer: Peer) -> None:
    """The server's machine breaks the connection off."""
    line = peer.writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()
