"""The edge on fakes: one application, the principals that call it, and how a test speaks to it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

from gateway.core.call import Principal
from gateway.core.desk import Desk, Ping
from gateway.edge.asgi import Options, build
from tests.fakes import World
from tests.fakes.callers import AGENT, FakeIdentity
from tests.fakes.desk import (
    FakeApiKeyDesk,
    FakeApprovalDesk,
    FakeChanges,
    FakeCustody,
    FakeExport,
    FakeLeaseDesk,
    FakePolicyDesk,
    FakeReader,
    FakeReviewerDesk,
    FakeRotationDesk,
    FakeRunDesk,
    FakeSearches,
    FakeSnapshots,
    FakeTree,
    FakeViews,
)
from tests.fakes.log_keys import FakeKeyDesk, FakeWitnessDesk
from tests.fakes.pins import FakePinDesk

URL = "http://gateway.test"
NEWEST = "2026-07-28"
PERSON = replace(AGENT, agent=None, jti="token-2", scopes=frozenset({"tools", "runs"}))
AUDITOR = replace(AGENT, user="eve", agent=None, jti="token-3", scopes=frozenset({"audit"}))
ADMIN = replace(AGENT, user="root", agent=None, jti="token-4", scopes=frozenset({"admin"}))
OTHER = replace(AGENT, user="bob", jti="token-5")
NO_SCOPE = replace(AGENT, jti="token-6", scopes=frozenset())
META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


def _tokens() -> dict[str, Principal]:
    return {
        "good": AGENT,
        "person": PERSON,
        "auditor": AUDITOR,
        "admin": ADMIN,
        "other": OTHER,
        "noscope": NO_SCOPE,
    }


@dataclass(slots=True)
class HexIssuer:
    """Tokens that can travel in a header, and that the given ``FakeIdentity`` then knows."""

    identity: FakeIdentity

    def issue(self, principal: Principal) -> str:
        """A token made of what it stands for."""
        token = f"{principal.key}|{principal.run or ''}".encode().hex()
        self.identity.tokens[token] = principal
        return token


@dataclass(slots=True)
class Edge:
    """One application over fakes.

    Attributes:
        world: the pipeline's ports.
        desk: the desk, with ``reader`` as its log.
        app: the ASGI application.
    """

    options: Options = field(default_factory=lambda: Options(version="1.2.3", open_metrics=True))
    url: str = URL
    world: World = field(default_factory=World)
    reader: FakeReader = field(default_factory=FakeReader)
    searches: FakeSearches = field(default_factory=FakeSearches)
    changes: FakeChanges = field(default_factory=FakeChanges)
    leases: FakeLeaseDesk = field(default_factory=FakeLeaseDesk)
    policy: FakePolicyDesk = field(default_factory=FakePolicyDesk)
    custody: FakeCustody = field(default_factory=FakeCustody)
    keys: FakeKeyDesk = field(default_factory=FakeKeyDesk)
    witnesses: FakeWitnessDesk = field(default_factory=FakeWitnessDesk)
    views: FakeViews = field(default_factory=FakeViews)
    pins: FakePinDesk = field(default_factory=FakePinDesk)
    api_keys: FakeApiKeyDesk = field(default_factory=FakeApiKeyDesk)
    upstreams: Mapping[str, Ping] = field(default_factory=dict)
    desk: Desk = field(init=False)
    app: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        """Build the application."""
        self.world.identity.tokens = _tokens()
        self.desk = Desk(
            runs=FakeRunDesk(self.world.clock, self.world.runs),
            issuer=HexIssuer(self.world.identity),
            reader=self.reader,
            tree=FakeTree(self.reader),
            export=FakeExport(self.reader),
            searches=self.searches,
            changes=self.changes,
            approvals=FakeApprovalDesk(),
            reviewers=FakeReviewerDesk(),
            api_keys=self.api_keys,
            leases=self.leases,
            kills=self.world.kills,
            custody=self.custody,
            keys=self.keys,
            rotations=FakeRotationDesk(),
            witnesses=self.witnesses,
            views=self.views,
            snapshots=FakeSnapshots(),
            pins=self.pins,
            policy=self.policy,
            pings={"ledger": self.world.audit.ping, "policy": self.world.policy.ping},
            upstreams=self.upstreams,
            metrics=lambda: ("text/plain; version=1.0.0", b"ostiary_calls_total 0\n"),
            external_url=self.url,
        )
        self.app = build(self.world.ports(), self.desk, self.options)

    @asynccontextmanager
    async def client(self, token: str | None = "good") -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client that brings ``token``."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=self.url, headers=headers
        ) as client:
            yield client

    def records(self) -> list[str]:
        """Types of the records written so far, in order."""
        return [line.type for line in self.world.audit.lines]


def rpc(method: str, params: Mapping[str, Any] | None = None, request_id: Any = 1) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": dict(params or {})}


def modern(method: str, params: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """Keyword arguments for ``client.post``: a 2026 request whose headers repeat its body."""
    body = rpc(method, {**(params or {}), "_meta": META})
    said = {"mcp-protocol-version": NEWEST, "mcp-method": method}
    if "name" in (params or {}):
        said["mcp-name"] = str((params or {})["name"])
    return {"json": body, "headers": said | headers}


def told(answer: httpx.Response) -> dict[str, Any]:
    """What an ``isError`` result says to the model."""
    result = answer.json()["result"]
    assert result["isError"] is True
    assert [part["type"] for part in result["content"]] == ["text"]
    assert "structuredContent" not in result
    said: dict[str, Any] = json.loads(result["content"][0]["text"])
    return said


@dataclass(slots=True)
class Raw:
    """A request by bare ASGI messages, for what an HTTP client would not send.

    Attributes:
        sent: what the application sent.
    """

    app: ASGIApp
    messages: list[Message]
    sent: list[Message] = field(default_factory=list)

    async def run(self, **scope: Any) -> int:
        """Send it; returns the status."""
        whole: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "client": ("192.0.2.1", 4711),
            "server": ("127.0.0.1", 8470),
            "headers": [
                (b"host", b"gateway.test"),
                (b"authorization", b"Bearer good"),
                (b"content-type", b"application/json"),
            ],
        }
        await self.app(whole | scope, self._receive, self._send)
        status: int = self.sent[0]["status"] if self.sent else 0
        return status

    async def _receive(self) -> Message:
        return self.messages.pop(0)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
