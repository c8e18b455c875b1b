"""The upstream of a run as a process: an HTTP API and an MCP server on one port, each misbehaving as told.

Its control pipe takes one word a line: ``refuse`` closes the listening socket, so that new connections are refused. At
the pipe's end it stops listening, deals with what it has already taken, and ends.
"""

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.campaigns.faults import peer
from deploy.campaigns.faults.peer import Journal

MCP_PATH = "/mcp"
_REFUSED = 404
_DRAIN_S = 3.0
_GARBAGE = b"\x16\x03\x01 this is no HTTP \r\n\r\n\x00\xff"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Upstream:
    """Both servers.

    Attributes:
        journal: where requests are noted.
        stateless: the MCP server's era.
        too_late_s: a delay nobody waits for.
    """

    journal: Journal
    stateless: bool
    too_late_s: float
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, listener: socket.socket, control: int) -> None:
        """Serve until the control pipe ends."""
        server = await asyncio.start_server(self._accept, sock=listener)
        words = asyncio.StreamReader()
        with os.fdopen(control, "rb", buffering=0) as pipe:
            await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), pipe)
            while await words.readline():
                server.close()
        # What waits in the backlog was sent by somebody: a few turns of the loop take it in.
        for _ in range(8):
            await asyncio.sleep(0)
        server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=_DRAIN_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while (request := await _read(reader)) is not None and await self._answer(request, reader, writer):
                    await writer.drain()
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        # False: the connection is over.
        if request.path == MCP_PATH:
            return await self._rpc(request, reader, writer)
        marker, tool = _asked(request)
        mode = self.journal.note(marker, tool)
        said = {"other": 1} if mode == "misfit" else {"marker": marker, "key": request.headers.get("authorization", "")}
        status = {"fail": 500, "refuse": _REFUSED}.get(mode, 200)
        return await self._treat(mode, _response(status, json.dumps(said).encode()), (reader, writer))

    async def _rpc(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if request.method == "DELETE":
            writer.write(_response(200, b"{}"))
            return True
        message: dict[str, Any] = json.loads(request.body)
        if message.get("method") == "tools/call":
            marker = str(message["params"]["arguments"].get("marker"))
            mode = self.journal.note(marker, message["params"]["name"])
            body = json.dumps(peer.carried_out(message, mode)).encode()
            return await self._treat(mode, _response(200, body), (reader, writer))
        answered = peer.answer(message, stateless=self.stateless)
        if answered is None:
            writer.write(_response(202, b""))
        else:
            session = "" if self.stateless else f"Mcp-Session-Id: s{os.getpid()}\r\n"
            writer.write(_response(200, json.dumps(answered).encode(), session))
        return True

    async def _treat(
        self, mode: str, response: bytes, stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> bool:
        reader, writer = stream
        match mode:
            case "hang" | "kill":
                await reader.read()
                return False
            case "close":
                return False
            case "half" | "garbage":
                writer.write(_GARBAGE if mode == "garbage" else response[: len(response) - 8])
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return False
            case "garbled":
                writer.write(_response(200, b'{"jsonrpc": "2.0", "marker": tru'))
            case "late" | "too_late":
                await asyncio.sleep(peer.LATE_S if mode == "late" else self.too_late_s)
                writer.write(response)
            case _:
                writer.write(response)
        return True


def listener() -> socket.socket:
    """A listening socket on a free port of the loopback address."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def run(folder: Path, listening: socket.socket, control: int, *, stateless: bool, too_late_s: float) -> None:
    """Serve in this process until the control pipe ends."""
    asyncio.run(Upstream(Journal(folder), stateless, too_late_s).serve(listening, control))


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def _asked(request: Request) -> tuple[str, str]:
    # The marker stands in the path (/look/MARKER) or in the body (/pay), as the catalogue declares.
    tool, _, marker = request.path.strip("/").partition("/")
    return marker or str(json.loads(request.body).get("marker")), tool


def _response(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body
