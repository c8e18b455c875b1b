"""The callers of a run: they speak REST and both eras of MCP to the gateway's ASGI application, and may leave early."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp, Message

from deploy.campaigns.faults.plan import Kind, PlannedCall, Point, Side, Step, Surface
from gateway.core.mcpwire import eras
from gateway.edge.problems import CALL_HEADER

HOST: Final = "127.0.0.1"
URL: Final = f"http://{HOST}"
_MCP: Final = "/mcp"
Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Visitor:
    """One caller's connection.

    Attributes:
        gone: set once the caller has left; what is answered from then on reaches nobody.
    """

    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, app: ASGIApp, path: str, headers: Mapping[str, str], body: bytes) -> Response | None:
        """Send one POST; None where no answer came while the caller was there."""
        sent, answered = False, False
        status, fields, parts = 0, {}, []

        async def receive() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status, fields, answered
            if self.gone.is_set():
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = {key.decode("latin-1"): value.decode("latin-1") for key, value in message["headers"]}
            else:
                parts.append(message.get("body", b""))
                answered = not message.get("more_body", False)

        await app(_scope(path, headers), receive, send)
        return Response(status, fields, b"".join(parts)) if answered else None


@dataclass(frozen=True, slots=True)
class Callers:
    """Makes planned calls.

    Attributes:
        app: the gateway.
        token: a good token.
        report: told of each answer, the moment it is given.
        passed: told of the step ``answer``.
    """

    app: ASGIApp
    token: str
    report: Report
    passed: Callable[[Point, str], None]

    async def make(self, planned: PlannedCall, visitor: Visitor) -> None:
        """Make one call and report how it was answered."""
        await asyncio.sleep(planned.after_s)
        token = self.token if planned.kind is not Kind.FORGED else _forged(self.token)
        headers = {"authorization": f"Bearer {token}"}
        if planned.surface is Surface.REST:
            path, body = f"/v1/tools/{planned.tool}/call", {"arguments": planned.arguments}
            response = await visitor.ask(self.app, path, headers, json.dumps(body).encode())
        else:
            if planned.surface is Surface.MCP_SESSION:
                headers |= await self._session(visitor, headers)
            else:
                headers |= _stateless(planned)
            response = await visitor.ask(self.app, _MCP, headers, _rpc(planned))
        if response is not None:
            self._told(planned, response)

    async def _session(self, visitor: Visitor, headers: Mapping[str, str]) -> dict[str, str]:
        version = {"protocolVersion": eras.LATEST_HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "c"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": version}
        response = await visitor.ask(self.app, _MCP, headers, json.dumps(body).encode())
        session = None if response is None else response.headers.get(eras.SESSION_HEADER)
        found = {eras.VERSION_HEADER: eras.LATEST_HANDSHAKE}
        return found if session is None else found | {eras.SESSION_HEADER: session}

    def _told(self, planned: PlannedCall, response: Response) -> None:
        self.passed(Point(Step.ANSWER, Side.BEFORE), planned.marker)
        self.report(
            {
                "marker": planned.marker,
                "surface": planned.surface,
                "status": response.status,
                "call_id": response.headers.get(CALL_HEADER.decode()),
                "body": response.body.decode("utf-8", "backslashreplace"),
            }
        )
        self.passed(Point(Step.ANSWER, Side.AFTER), planned.marker)


def _scope(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    fields = {"host": HOST, "content-type": "application/json", "accept": "application/json, text/event-stream"}
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(key.encode(), value.encode()) for key, value in (fields | dict(headers)).items()],
        "client": (HOST, 1),
        "server": (HOST, 80),
    }


def _forged(token: str) -> str:
    head, dot, signature = token.rpartition(".")
    return f"{head}{dot}{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _stateless(planned: PlannedCall) -> dict[str, str]:
    return {
        eras.VERSION_HEADER: eras.LATEST_STATELESS,
        eras.METHOD_HEADER: "tools/call",
        eras.NAME_HEADER: _wire(planned),
    }


def _rpc(planned: PlannedCall) -> bytes:
    params: dict[str, Any] = {"name": _wire(planned), "arguments": planned.arguments}
    if planned.surface is Surface.MCP:
        params["_meta"] = {eras.META_VERSION: eras.LATEST_STATELESS, eras.META_CAPABILITIES: {}}
    return json.dumps({"jsonrpc": "2.0", "id": planned.marker, "method": "tools/call", "params": params}).encode()


def _wire(planned: PlannedCall) -> str:
    return planned.tool.replace(".", "__")
