"""The caller: one keep-alive connection, requests made beforehand, and nothing else between the two clock readings."""

import json
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

_BLOCK: Final = 65536
_PATIENCE_S: Final = 60.0
_VERSION: Final = "2026-07-28"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "campaign", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Surface(StrEnum):
    """How a call comes in."""

    REST = "rest"
    MCP = "mcp"


class WrongAnswerError(Exception):
    """An answer that is no refusal as of a name of no tool: the campaign is void."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal and how long it took."""

    seconds: float
    status: int
    body: bytes


class Connection:
    """A connection that is used again and again."""

    def __init__(self, url: str, visitor: int = 0) -> None:
        """Connect to the host of ``url``, from the loopback address of that visitor."""
        parts = urlsplit(url)
        self._host = parts.netloc
        source = (f"127.{1 + visitor // 200}.{1 + visitor % 200}.1", 0)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), _PATIENCE_S, source)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def request(self, surface: Surface, token: str, tool: str, arguments: dict[str, object]) -> bytes:
        """The bytes of a call of ``server.tool``."""
        lines = [f"host: {self._host}", f"authorization: Bearer {token}", "content-type: application/json"]
        if surface is Surface.REST:
            path, body = f"/v1/tools/{tool}/call", json.dumps({"arguments": arguments})
        else:
            path, name = "/mcp", tool.replace(".", "__")
            params = {"name": name, "arguments": arguments, "_meta": _META}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
            lines += ["accept: application/json, text/event-stream", f"mcp-protocol-version: {_VERSION}"]
            lines += ["mcp-method: tools/call", f"mcp-name: {name}"]
        head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, f"content-length: {len(body)}"])
        return f"{head}\r\n\r\n{body}".encode()

    def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer whole.

        Raises:
            WrongAnswerError: the connection ended, or the answer has no length.
        """
        began = time.perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv(_BLOCK)
        while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + _length(received[:end]):
            block = self._socket.recv(_BLOCK)
            if not block:
                raise WrongAnswerError(f"the connection was closed after {received[:200]!r}")
            received += block
        seconds = time.perf_counter() - began
        return Answer(seconds, int(received.split(b" ", 2)[1]), received[end + 4 :])


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise WrongAnswerError(f"an answer without a length: {head[:200]!r}")
