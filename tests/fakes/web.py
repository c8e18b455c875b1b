"""A web server on loopback that answers with whatever bytes a test wants, and remembers what it was asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Play = Callable[["Exchange"], Awaitable[None]]


@dataclass(slots=True)
class Exchange:
    """One request on one connection.

    Attributes:
        head: request line and header fields, as sent.
        body: request body.
        reader: for plays that read on.
        writer: where the play writes its answer.
    """

    head: str
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def line(self) -> str:
        """Method, target, version."""
        return self.head.partition("\r\n")[0]

    def field(self, name: str) -> list[str]:
        """All values of a header field."""
        pairs = [line.split(": ", 1) for line in self.head.split("\r\n")[1:] if ": " in line]
        return [value for key, value in pairs if key.lower() == name.lower()]

    async def answer(self, status: str, body: bytes = b"", *fields: str) -> None:
        """Write a whole response."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
        await self.write("\r\n".join(head).encode() + body)

    async def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()


@dataclass(slots=True)
class Web:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        play: answers each request.
        exchanges: every request so far.
        connections: how many were accepted.
    """

    port: int = 0
    play: Play | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0

    @property
    def origin(self) -> str:
        """As the settings of an upstream name it."""
        return f"http://127.0.0.1:{self.port}"

    def json(self, body: bytes, status: str = "200 OK") -> None:
        """From now on answer with this JSON."""

        async def play(exchange: Exchange) -> None:
            await exchange.answer(status, body, "Content-Type: application/json")

        self.play = play


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    """A server on a free port, ended with all its connections."""
    web = Web()
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        web.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _connection(web, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connection(web: Web, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        exchange = Exchange(head, b"", reader, writer)
        exchange.body = await reader.readexactly(int((exchange.field("Content-Length") or ["0"])[0]))
        web.exchanges.append(exchange)
        assert web.play is not None
        await web.play(exchange)
