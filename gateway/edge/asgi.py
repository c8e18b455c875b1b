"""The inbound ASGI application: checks that hold for every request, and the table of surfaces."""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.call import Channel
from gateway.core.desk import Desk
from gateway.core.errors import GatewayError
from gateway.core.mcpwire import jsonrpc
from gateway.core.ports import Ports
from gateway.edge import openapi, ops, problems
from gateway.edge.auth import Gate
from gateway.edge.body import Workbench
from gateway.edge.faults import ClientGone, MethodNotAllowed
from gateway.edge.heads import head_of
from gateway.edge.hosts import HostGuard
from gateway.edge.mcp.calls import Calls
from gateway.edge.mcp.endpoint import McpEndpoint
from gateway.edge.mcp.parking import Room
from gateway.edge.ops import Readiness
from gateway.edge.protected_resource import METADATA, ProtectedResource
from gateway.edge.reply import Common, Hardened, Header, Reply
from gateway.edge.rest.api_keys import ApiKeyRest
from gateway.edge.rest.approvals import ApprovalRest
from gateway.edge.rest.audit import AuditRest
from gateway.edge.rest.calls import CallRest
from gateway.edge.rest.connections import ConnectionRest
from gateway.edge.rest.custody import CustodyRest
from gateway.edge.rest.export import ExportRest
from gateway.edge.rest.hooks import HookRest
from gateway.edge.rest.keys import KeyRest
from gateway.edge.rest.kills import KillRest
from gateway.edge.rest.leases import LeaseRest
from gateway.edge.rest.log import LogRest
from gateway.edge.rest.pins import PinRest
from gateway.edge.rest.policy import PolicyRest
from gateway.edge.rest.questions import QuestionRest
from gateway.edge.rest.reviewers import ReviewerRest
from gateway.edge.rest.rotations import RotationRest
from gateway.edge.rest.routes import Operation, RestApi
from gateway.edge.rest.runs import RunRest
from gateway.edge.rest.snapshots import SnapshotRest
from gateway.edge.rest.tools import ToolRest
from gateway.edge.throttle import EdgeThrottle

_LOG = logging.getLogger("ostiary.edge")
_HARDENING: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_STRICT_TRANSPORT: Header = (b"strict-transport-security", b"max-age=31536000")
_SERVERS = "/servers/"
_MCP = "/mcp"


def _installed() -> str:
    try:
        return version("ostiary")
    except PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class Options:
    """How the surfaces behave.

    Attributes:
        issuer: ``iss`` of the tokens the desk's issuer signs.
        run_max_s: longest a run may last, seconds.
        allowed_hosts: further names for the Host header, without port; the external URL's and loopback always count.
        per_minute: requests a minute of each good credential, before anything else is done for them.
        strangers_per_minute: requests a minute of each client address without a good credential.
        operator_socket: path of the gateway's own Unix socket of mode 0600; requests by it without a credential are the
            operator's (REST only). None = there is none, whatever socket a request comes by.
        open_metrics: whether /metrics needs no credential; its labels name tools, so by default it does.
        version: the gateway's own.
        issuers: identifiers of the foreign issuers whose tokens are taken.
        scopes: the scopes their tokens may give, as they name them, by their names here.
        parked: most calls that wait for their client, at a time and of one principal.
    """

    issuer: str = "urn:ostiary:local"
    run_max_s: int = 86_400
    allowed_hosts: tuple[str, ...] = ()
    per_minute: int = 6_000
    strangers_per_minute: int = 1_200
    operator_socket: str | None = None
    open_metrics: bool = False
    version: str = field(default_factory=_installed)
    issuers: tuple[str, ...] = ()
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parked: tuple[int, int] = (64, 8)


def operations(ports: Ports, desk: Desk, options: Options) -> Sequence[Operation]:
    """All operations of the REST API; what ``openapi.json`` describes."""
    return (
        *ToolRest(ports, desk).operations(),
        *HookRest(ports).operations(),
        *PinRest(desk).operations(),
        *RunRest(desk, ports.clock, options.issuer, options.run_max_s).operations(),
        *SnapshotRest(ports, desk).operations(),
        *CallRest(desk).operations(),
        *ApprovalRest(ports, desk).operations(),
        *ReviewerRest(desk).operations(),
        *ApiKeyRest(desk, ports.clock, options.issuer).operations(),
        *LeaseRest(desk).operations(),
        *ConnectionRest(desk).operations(),
        *KillRest(desk).operations(),
        *AuditRest(desk).operations(),
        *LogRest(desk).operations(),
        *ExportRest(desk).operations(),
        *CustodyRest(desk, options.issuer).operations(),
        *KeyRest(desk).operations(),
        *RotationRest(desk, ports.clock).operations(),
        *PolicyRest(desk, ports.settings).operations(),
        *QuestionRest(ports, options.issuer).operations(),
    )


def build(ports: Ports, desk: Desk, options: Options) -> ASGIApp:
    """The application. Serve it with its life span handled by the caller: it starts and stops nothing itself."""
    throttle = EdgeThrottle(ports.clock, options.per_minute, options.strangers_per_minute)
    gate = Gate(ports, throttle, options.issuer, options.operator_socket)
    return _Application(ports, desk, options, gate)


class _Application:
    def __init__(self, ports: Ports, desk: Desk, options: Options, gate: Gate) -> None:
        table = operations(ports, desk, options)
        self._gate = gate
        self._guard = HostGuard(desk.external_url, options.allowed_hosts, options.operator_socket)
        bench = Workbench()
        calls = Calls(ports, desk.state_key, Room(*options.parked))
        self._mcp = McpEndpoint(ports, gate, bench, options.version, calls)
        self._rest = RestApi(table, ports, gate, bench)
        self._readiness = Readiness(desk, ports.clock)
        self._metrics = desk.metrics
        self._open_metrics = options.open_metrics
        self._resource = ProtectedResource(desk.external_url, options.issuers, options.scopes)
        # Made when it is first asked for: it is a fifth of the work of a start.
        self._openapi = cache(partial(_described, table, desk.external_url, options.version))
        secure = desk.external_url.startswith("https://")
        self._common = Common((*_HARDENING, _STRICT_TRANSPORT) if secure else _HARDENING, self._resource.challenged)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        answering = Hardened(scope, send, self._common)
        try:
            if not head_of(scope).is_ours:
                self._guard.check(scope)
            if scope["path"] == _MCP:
                await self._mcp.serve(scope, receive, answering, None)
            else:
                await self._surface(scope, receive, answering)
        except GatewayError as error:
            await problems.problem(error, None).send(answering)
        except ClientGone:
            return
        # The outermost boundary: whatever went wrong, the caller learns nothing but that it did.
        except Exception:  # noqa: BLE001 - see above; it is logged whole
            _LOG.exception("a request failed unexpectedly")
            if not answering.started:
                await problems.problem(problems.INTERNAL, None).send(answering)

    def _surface(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: str = scope["path"]
        if path.startswith(_SERVERS) and path.endswith(_MCP) and "/" not in path[len(_SERVERS) : -len(_MCP)]:
            return self._mcp.serve(scope, receive, send, path[len(_SERVERS) : -len(_MCP)])
        if path.startswith(METADATA) and (reply := self._resource.metadata(path)) is not None:
            _only_read(scope)
            return reply.send(send)
        if path in {"/livez", "/readyz", "/metrics", "/openapi.json"}:
            return self._show(scope, send, path)
        return self._rest.serve(scope, receive, send)

    async def _show(self, scope: Scope, send: Send, path: str) -> None:
        _only_read(scope)
        await (await self._page(scope, path)).send(send)

    async def _page(self, scope: Scope, path: str) -> Reply:
        if path == "/livez":
            return ops.alive()
        if path == "/readyz":
            return await self._readiness.page(whole=await self._gate.is_trusted(scope))
        if path == "/openapi.json":
            return Reply(200, self._openapi())
        if not self._open_metrics:
            (await self._gate.admit(scope, Channel.REST)).require("audit", "admin")
        media, body = self._metrics()
        return Reply(200, body, media.encode())


def _described(table: Sequence[Operation], url: str, release: str) -> bytes:
    return jsonrpc.encode(openapi.document(table, url, release))


def _only_read(scope: Scope) -> None:
    if scope["method"] not in {"GET", "HEAD"}:
        raise MethodNotAllowed(("GET", "HEAD"))


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
