"""An HTTP API and MCP server that gives back whatever credential it is called with, in any place a reply has."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.hunting.spellings import SPELLINGS

# Harmless, and beside each secret: what shows that the place is looked at.
CANARY = "canary-of-the-hunt-harmless"
WAYS = (
    "body", "key", "failure", "text", "field", "reason", "redirect", "challenge", "cut", "unfinished", "no json",
    "odd type", "odd status", "chunks",
)  # fmt: skip
MCP_WAYS = ("result", "is error", "refusal", "key", "unfinished", "events", "challenge", "cut")
STDIO_WAYS = ("result", "is error", "refusal", "key", "complaint", "junk", "chatter", "asks", "crash")
_CREDENTIALS = ("X-Login", "X-Api-Key", "Authorization")
TOOL = {
    "name": "leak",
    "description": "Gives back what it was called with.",
    "inputSchema": {
        "type": "object",
        "properties": {"way": {"type": "string"}, "spelling": {"type": "string"}, "note": {"type": "string"}},
    },
}


@dataclass(slots=True)
class Leaky:
    """The running server.

    Attributes:
        seen: each credential it was called with, without the scheme before it.
    """

    origin: str = ""
    seen: set[str] = field(default_factory=set)


@contextmanager
def leaky_api() -> Iterator[Leaky]:
    """Serve on loopback."""
    leaky = Leaky()

    class Handler(_Handler):
        notes = leaky

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        leaky.origin = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield leaky
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    notes: Leaky

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self._reply(asked.get("way", "body"), self._said(asked.get("spelling", "raw")))

    def do_DELETE(self) -> None:
        self._send(b"", status=204)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if urlsplit(self.path).path == "/mcp":
            self._mcp(json.loads(body))
        else:
            asked = json.loads(body)
            self._reply(asked.get("way", "body"), self._said(asked.get("spelling", "raw")))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _said(self, spelling: str) -> str:
        given = next((self.headers[name] for name in _CREDENTIALS if name in self.headers), "no credential")
        secret = given.removeprefix("Bearer ")
        if given != "no credential":
            self.notes.seen.add(secret)
        return f"{CANARY} {SPELLINGS[spelling](secret)} {CANARY}"

    def _reply(self, way: str, said: str) -> None:
        narrow = " ".join(said.split("\n")).encode("latin-1", "replace").decode("latin-1")
        body = json.dumps({"x": said}).encode()
        plain: dict[str, Callable[[], None]] = {
            "key": lambda: self._json({said: said, "deep": [{"password": said, said: [said]}]}),
            "failure": lambda: self._json({"error": f"cannot connect: {said}", "trace": [said]}, status=500),
            "text": lambda: self._send(said.encode(), status=503, kind="text/plain"),
            "field": lambda: self._json({"note": CANARY}, fields={"X-Debug": narrow, "Set-Cookie": f"s={narrow}"}),
            "reason": lambda: self._send(b"{}", status=500, reason=narrow),
            "redirect": lambda: self._send(b"", status=302, fields={"Location": f"https://elsewhere.test/{narrow}"}),
            "challenge": lambda: self._json(said, status=401, fields={"WWW-Authenticate": f'Bearer realm="{narrow}"'}),
            "cut": lambda: self._broken(body),
            "unfinished": lambda: self._send(body[:-2]),
            "no json": lambda: self._send(f"<html>{said}</html>".encode()),
            "odd type": lambda: self._send(said.encode(), kind=f"text/{narrow}"),
            "odd status": lambda: self._send(body, status=299),
            "chunks": lambda: self._chunks(body),
        }
        plain.get(way, lambda: self._json({"debug": said}))()

    def _mcp(self, message: dict[str, Any]) -> None:
        method, request_id = message.get("method"), message.get("id")
        if method == "initialize":
            self._answer(request_id, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                      "serverInfo": {"name": "leaky", "version": "0"}})  # fmt: skip
        elif method == "tools/list":
            self._answer(request_id, {"tools": [TOOL]})
        elif method == "tools/call":
            given = message["params"].get("arguments", {})
            self._mcp_reply(request_id, given.get("way", "result"), self._said(given.get("spelling", "raw")))
        elif method == "ping":
            self._answer(request_id, {})
        elif request_id is None:
            self._send(b"", status=202)
        else:
            said = self._said("raw") if "X-Login" in self.headers or "Authorization" in self.headers else CANARY
            self._json({"jsonrpc": "2.0", "id": request_id, "error": {"code": -32601, "message": said}}, status=404)

    def _mcp_reply(self, request_id: Any, way: str, said: str) -> None:
        if way == "refusal":
            error = {"code": -32000, "message": f"cannot: {said}", "data": {"trace": said, said: said}}
            self._json({"jsonrpc": "2.0", "id": request_id, "error": error})
        elif way == "events":
            self._events(request_id, said)
        elif way in {"unfinished", "challenge", "cut"}:
            self._reply(way, said)
        else:
            self._answer(request_id, result(said, in_keys=way == "key", is_error=way == "is error"))

    def _events(self, request_id: Any, said: str) -> None:
        log = {"level": "error", "logger": said, "data": said}
        events = (
            {"jsonrpc": "2.0", "method": "notifications/message", "params": log},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "message": said}},
            {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {"systemPrompt": said}},
            {"jsonrpc": "2.0", "id": request_id, "result": result(said)},
        )
        body = b"".join(b"event: message\r\ndata: %b\r\n\r\n" % json.dumps(event).encode() for event in events)
        self._send(body, kind="text/event-stream")

    def _answer(self, request_id: Any, result: dict[str, Any]) -> None:
        self._json({"jsonrpc": "2.0", "id": request_id, "result": result})

    def _json(self, value: Any, status: int = 200, fields: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status=status, fields=fields)

    def _send(
        self,
        body: bytes,
        *,
        status: int = 200,
        reason: str | None = None,
        kind: str = "application/json",
        fields: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status, reason)
        self.send_header("Content-Type", kind)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self._end(body)

    def _end(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _broken(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 100))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _chunks(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for place in range(0, len(body), 5):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body[place : place + 5]), body[place : place + 5]))
        self.wfile.write(b"0\r\n\r\n")


def result(said: str, *, in_keys: bool = False, is_error: bool = False) -> dict[str, Any]:
    """A tool result that says it, also where only programs look."""
    found: dict[str, Any] = {"content": [{"type": "text", "text": said}], "_meta": {"trace": said}}
    if in_keys:
        found["structuredContent"] = {said: said, "deep": [{said: [said]}]}
    if is_error:
        found["isError"] = True
    return found
