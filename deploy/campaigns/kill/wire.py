"""One kept-alive connection and one call on it, over REST or MCP; what is told is read and nothing else is believed."""

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

NOTE: Final = "tool.note"
REFUSED: Final = "tool.refused"
COMPLETED: Final = "completed"
_VERSION: Final = "2026-07-28"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "campaign", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HEADERS: Final = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
_CALL_ID: Final = "ostiary-call-id"
_PROBLEM: Final = "urn:ostiary:problem:"
_LIMIT: Final = 1 << 20


class Surface(StrEnum):
    """How a call comes in."""

    REST = "rest"
    MCP = "mcp"


class WireError(Exception):
    """No answer of a gateway: the campaign is void."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told.

    Attributes:
        code: ``completed``, or the error's code.
        call_id: the call's id; None where a gateway that has just started did not know the client's token yet, and let
            it wait before anything else.
    """

    marker: str
    code: str
    call_id: str | None


class Connection:
    """A connection that is used again and again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def opened(cls, port: int) -> "Connection":
        """To a port of loopback.

        Raises:
            OSError: nobody listens.
        """
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT), f"127.0.0.1:{port}")

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()

    async def call(self, surface: Surface, token: str, tool: str, marker: str) -> Told:
        """Make one call.

        Raises:
            OSError, EOFError: the connection broke; nothing was told.
            WireError: this is no answer of a gateway.
        """
        if surface is Surface.REST:
            path, extra, body = f"/v1/tools/{tool}/call", "", _json({"arguments": {"marker": marker}})
        else:
            name = tool.replace(".", "__")
            path, extra = "/mcp", f"mcp-protocol-version: {_VERSION}\r\nmcp-method: tools/call\r\nmcp-name: {name}\r\n"
            params = {"name": name, "arguments": {"marker": marker}, "_meta": _META}
            body = _json({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\nauthorization: Bearer {token}\r\n{_HEADERS}{extra}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        status, fields, answer = await self._answer()
        try:
            said = json.loads(answer)
            code = _rest(status, said) if surface is Surface.REST else _mcp(said)
            return Told(marker, code, fields.get(_CALL_ID))
        except (ValueError, KeyError, TypeError, IndexError):
            raise WireError(f"{surface}: {status} {fields}: {answer[:600]!r}") from None

    async def _answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if "content-length" not in fields:
            raise WireError(f"an answer without a length: {head}")
        return int(head[0].split()[1]), fields, await self._reader.readexactly(int(fields["content-length"]))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _rest(status: int, said: dict[str, Any]) -> str:
    return COMPLETED if status == HTTPStatus.OK and "result" in said else _code(said)


def _code(said: dict[str, Any]) -> str:
    kind = str(said["type"])
    if not kind.startswith(_PROBLEM):
        raise ValueError(kind)
    return kind.removeprefix(_PROBLEM)


def _mcp(said: dict[str, Any]) -> str:
    if "error" in said:
        return str(said["error"]["data"]["code"])
    result = said["result"]
    return _told(result["content"][0]["text"]) if result.get("isError") else COMPLETED


def _told(text: str) -> str:
    said = json.loads(text)
    return str(said.get("error") or _code(said))
