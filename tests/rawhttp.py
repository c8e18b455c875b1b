"""An MCP upstream made of raw bytes, in either era, that answers a tool call however a test wants it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from gateway.core.mcpwire.eras import Era

RESULT = {"content": [{"type": "text", "text": "done"}]}


@dataclass(frozen=True, slots=True)
class Seen:
    """One HTTP request as it arrived; header names are lower case."""

    verb: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader = field(repr=False)

    async def client_gone(self) -> None:
        """Return when the client has closed the connection."""
        with suppress(ConnectionError):
            await self.reader.read()

    @property
    def message(self) -> dict[str, Any]:
        """The body, parsed; empty where there is none."""
        found: dict[str, Any] = json.loads(self.body or b"{}")
        return found

    @property
    def method(self) -> str:
        """MCP method; the HTTP verb where the body has none."""
        return str(self.message.get("method", self.verb))


Script = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes, *, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    """The bytes of one HTTP response; ``extra`` are further header lines, each ended by CRLF."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def answer(seen: Seen, result: Any = RESULT, *, extra: str = "", **members: Any) -> bytes:
    """A good JSON answer; ``members`` replaces members of the envelope."""
    envelope = {"jsonrpc": "2.0", "id": seen.message.get("id"), "result": result} | members
    return http(json.dumps(envelope).encode(), extra=extra)


def error(seen: Seen, code: int, status: str = "200 OK", **members: Any) -> bytes:
    """A JSON-RPC error whose message is ``the upstream's words``."""
    envelope = {"jsonrpc": "2.0", "id": seen.message.get("id"), "error": {"code": code, "message": "upstream's words"}}
    return http(json.dumps(envelope | members).encode(), status=status)


def stream(*events: Any) -> bytes:
    """A whole event stream, ended by closing: one event for each JSON value (bytes are taken as they are)."""
    texts = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    body = b"".join(b"event: message\r\ndata: %b\r\n\r\n" % text for text in texts)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


def says(reply: Callable[[Seen], bytes], *, close: bool = False) -> Script:
    """A script that writes what ``reply`` makes of the request, and closes the connection afterwards if asked to."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(seen))
        await writer.drain()
        if close:
            writer.close()

    return script


@dataclass(slots=True)
class RawUpstream:
    """The upstream.

    Attributes:
        era: as which it introduces itself.
        scripts: what it does by MCP method (or HTTP verb); the set-up has good defaults.
        seen: every request, in order.
        closed: set each time a client goes away before its answer is complete.
        url: where it is, once it runs.
    """

    era: Era
    scripts: dict[str, Script] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    sessions: int = 0
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def calls(self, method: str) -> list[Seen]:
        """The requests with this MCP method (or HTTP verb)."""
        return [seen for seen in self.seen if seen.method == method]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                seen = await _request(reader)
                self.seen.append(seen)
                await self._script(seen)(seen, writer)
        writer.close()
        self._serving.discard(task)

    async def end(self) -> None:
        """Break off whatever is still open."""
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving)

    def _script(self, seen: Seen) -> Script:
        if seen.method in self.scripts:
            return self.scripts[seen.method]
        defaults = {"initialize": self._initialize, "server/discover": self._discover, "ping": answer}
        return says(defaults.get(seen.method, lambda _: http(b"", status="202 Accepted")))

    def _initialize(self, seen: Seen) -> bytes:
        if self.era is Era.STATELESS:
            return error(seen, -32022, "400 Bad Request")
        self.sessions += 1
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "raw", "version": "0"}}
        return answer(seen, result, extra=f"mcp-session-id: session-{self.sessions}\r\n")

    def _discover(self, seen: Seen) -> bytes:
        if self.era is Era.HANDSHAKE:
            return error(seen, -32601, "404 Not Found")
        return answer(seen, {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"})

    async def hang(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """A script: never answer; ``closed`` is set when the client gives up."""
        await seen.client_gone()
        self.closed.set()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in fields.items()}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(head[0].split(" ")[0], headers, body, reader)


@asynccontextmanager
async def running(era: Era, **scripts: Script) -> AsyncIterator[RawUpstream]:
    """The upstream on a free port of the loopback; ``call`` scripts ``tools/call``, ``list`` ``tools/list``."""
    names = {"call": "tools/call", "list": "tools/list", "discover": "server/discover"}
    upstream = RawUpstream(era, {names.get(name, name): script for name, script in scripts.items()})
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.end()
