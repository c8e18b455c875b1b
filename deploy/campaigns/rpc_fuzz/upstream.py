"""Two MCP servers on one port, one of each era, that count every call they receive and echo its arguments."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.adapters.ledger.database import SqliteDatabase
from gateway.adapters.ledger.storage import files
from gateway.adapters.ledger.storage.journal import JOURNAL, reach

BOX: Final = "box"
ATTIC: Final = "attic"
_ANY: Final[Mapping[str, Any]] = {"type": "object"}
_REGION: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "level": {"type": "integer", "x-mcp-header": "Level"},
    },
}
# Descriptions that nobody but their server's callers may read.
HIDDEN_WORDS: Final = "words of a tool nobody sees"
ATTIC_WORDS: Final = "words of the attic"
_TOOLS: Final[Mapping[str, list[dict[str, Any]]]] = {
    BOX: [
        {"name": "look", "description": "look", "inputSchema": _ANY},
        {"name": "put", "description": "put", "inputSchema": _ANY},
        {"name": "region", "description": "region", "inputSchema": _REGION},
        {"name": "secret", "description": HIDDEN_WORDS, "inputSchema": _ANY},
        {"name": "blocked", "description": "blocked", "inputSchema": _ANY},
        {"name": "pay", "description": "pay", "inputSchema": _ANY},
    ],
    ATTIC: [
        {"name": "look", "description": ATTIC_WORDS, "inputSchema": _ANY},
        {"name": "put", "description": ATTIC_WORDS, "inputSchema": _ANY},
    ],
}
_PROMPTS: Final = [{"name": "greet", "arguments": [{"name": "marker", "required": True}, {"name": "more"}]}]


class _Params(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Request(msgspec.Struct):
    method: str = ""
    id: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw(b"{}")


_REQUESTS: Final = msgspec.json.Decoder(_Request)
_PARAMS: Final = msgspec.json.Decoder(_Params)


@dataclass(frozen=True, slots=True)
class Received:
    """A call that a server received.

    Attributes:
        tool: ``server.name``, a prompt's behind ``prompts/``.
        arguments: JSON text, as it came.
        log_size: how many records were durable at that moment.
    """

    tool: str
    arguments: bytes
    log_size: int


@dataclass(slots=True)
class Upstream:
    """Both servers.

    Attributes:
        journal: what was received.
        url: where they are, without the server's name.
    """

    journal: list[Received] = field(default_factory=list)
    url: str = ""
    _log: SqliteDatabase | None = None
    _held: Path | None = None

    def watch(self, database: Path) -> None:
        """From now on, note how many records this log has when a call arrives: in its tables, and in its journal."""
        self._log, self._held = files.connect_readonly(database), database.with_name(JOURNAL)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                path, body = await _read(reader)
                writer.write(self._answer(path, body))
                await writer.drain()
        writer.close()

    def close(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            self._log.close()

    def _answer(self, server: str, body: bytes) -> bytes:
        request = _REQUESTS.decode(body or b"{}")
        if not request.id:
            return _http(b"", "202 Accepted")
        result = self._result(server, request)
        if result is None:
            return _http(b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"no"}}' % bytes(request.id))
        return _http(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(request.id), json.dumps(result).encode()))

    def _result(self, server: str, request: _Request) -> dict[str, Any] | None:
        stateless = server == BOX
        head = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if stateless else {}
        offers: dict[str, Any] = {"tools": {}, "prompts": {}}
        info = {"name": server, "version": "1"}
        answers: dict[str, dict[str, Any]] = {
            "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": offers, **head},
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": offers, "serverInfo": info},
            "tools/list": {"tools": _TOOLS[server], **head},
            "prompts/list": {"prompts": _PROMPTS, **head},
            "ping": {},
        }
        if request.method in {"tools/call", "prompts/get"}:
            return self._called(server, request)
        is_known = request.method != ("initialize" if stateless else "server/discover")
        return answers.get(request.method) if is_known else None

    def _called(self, server: str, request: _Request) -> dict[str, Any]:
        is_prompt = request.method == "prompts/get"
        called = _PARAMS.decode(request.params)
        arguments = bytes(called.arguments)
        name = f"prompts/{called.name}" if is_prompt else called.name
        self.journal.append(Received(f"{server}.{name}", arguments, self._log_size()))
        text = {"type": "text", "text": arguments.decode()}
        if is_prompt:
            return {"messages": [{"role": "user", "content": text}]}
        return {"content": [text]}

    def _log_size(self) -> int:
        return 0 if self._log is None or self._held is None else reach(self._log, self._held)


@asynccontextmanager
async def running() -> AsyncIterator[Upstream]:
    """Both servers, on a free port of the loopback."""
    upstream = Upstream()
    open_tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_tasks.add(task)
        try:
            await upstream.serve(reader, writer)
        finally:
            open_tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for task in list(open_tasks):
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)
        upstream.close()


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    length = next((int(line[15:]) for line in head if line.lower().startswith(b"content-length:")), 0)
    return head[0].split(b" ")[1].strip(b"/").decode("latin-1"), await reader.readexactly(length)


def _http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
