"""Fake catalogue, connector and broker: the far side of the door."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import structs

from gateway.core import resources
from gateway.core.bell import Bell
from gateway.core.call import Caller, Intent, Lease, Live, Raw, Redacted, Resolved, Resumed, Verified
from gateway.core.errors import GatewayError
from gateway.core.tool import ConnectorKind, EffectClass, Tool
from tests.fakes.journal import Journal

RESULT = {"content": [{"type": "text", "text": "42 in stock"}], "isError": False}


def tool(fqn: str, effect: EffectClass = EffectClass.READ) -> Tool:
    """A pinned tool ``server.name`` without limits of its own."""
    server, _, name = fqn.partition(".")
    definition = {"name": name, "inputSchema": {"type": "object"}}
    return Tool(server, name, ConnectorKind.MCP, definition, digest=f"digest:{fqn}", effect=effect)


STOCK = tool("erp.stock")
ORDER = tool("erp.order", EffectClass.WRITE)
PAY = tool("bank.pay", EffectClass.MONEY)
WIPE = tool("erp.wipe", EffectClass.DESTRUCTIVE)


@dataclass(slots=True)
class FakeConnector:
    """An upstream that answers every call with ``result`` and remembers what reached it."""

    journal: Journal
    result: Mapping[str, Any] = field(default_factory=lambda: RESULT)
    sent: list[Lease] = field(default_factory=list)

    async def invoke(self, lease: Lease) -> Raw:
        """Answer; whoever is cancelled at ``connector.sent`` has already acted."""
        await self.journal.reach("connector.invoke")
        self.sent.append(lease)
        await self.journal.reach("connector.sent")
        return Raw(lease, msgspec.json.encode(self.result), dict(self.result))

    async def discover(self) -> Sequence[dict[str, Any]]:
        """One tool definition."""
        await self.journal.reach("connector.discover")
        return [dict(STOCK.definition)]

    async def ping(self) -> None:
        """Reach the step ``connector.ping``."""
        await self.journal.reach("connector.ping")


@dataclass(slots=True)
class FakeCatalog:
    """Tools by name, and the faults their next arguments have."""

    journal: Journal
    connector: FakeConnector
    shelf: tuple[Tool, ...] = (STOCK, ORDER, PAY, WIPE)
    faults: dict[str, GatewayError] = field(default_factory=dict)
    bell: Bell = field(default_factory=Bell)

    def resolve(self, caller: Caller) -> Resolved:
        """The pinned tool, or the unlisted stand-in of one that is not there."""
        self.journal.note("catalog.resolve")
        name = caller.call.tool
        for pinned in self.shelf:
            asked = resources.read(pinned, caller.call.arguments.value) if pinned.fqn == name else None
            if asked is not None and caller.run.covers(asked.decided_fqn):
                return Resolved(caller, asked, None)
        server, _, rest = name.partition(".")
        return Resolved(caller, Tool(server, rest, ConnectorKind.MCP, {}, digest="", listed=False), None)

    def checked(self, target: Resolved) -> Resolved:
        """The same, with the fault that is set for it."""
        self.journal.note("catalog.checked")
        return structs.replace(target, fault=self.faults.get(target.tool.fqn))

    def tools(self) -> Sequence[Tool]:
        """The shelf."""
        self.journal.note("catalog.tools")
        return self.shelf

    def restock(self, *shelf: Tool) -> None:
        """Put a new generation in force."""
        self.shelf = shelf
        self.bell.ring()

    async def invoke(self, lease: Lease) -> Raw:
        """Hand the leased call to the connector."""
        await self.journal.reach("catalog.invoke")
        return await self.connector.invoke(lease)

    async def ping(self) -> None:
        """Reach the step ``catalog.ping``."""
        await self.journal.reach("catalog.ping")


@dataclass(slots=True)
class FakeBroker:
    """One credential header for every call; ``live`` counts the leases not yet revoked."""

    journal: Journal
    headers: Mapping[str, str] = field(default_factory=lambda: {"authorization": "Bearer made-up"})
    live: int = 0

    @asynccontextmanager
    async def lease(self, intent: Intent) -> AsyncIterator[Lease]:
        """A lease, revoked on exit."""
        await self.journal.reach("broker.lease")
        self.live += 1
        try:
            yield Lease(intent, self.headers)
        finally:
            self.live -= 1
            self.journal.note("broker.revoked")

    async def ping(self) -> None:
        """Reach the step ``broker.ping``."""
        await self.journal.reach("broker.ping")


@dataclass(slots=True)
class FakeVerifier:
    """Finds every output in order."""

    journal: Journal

    def verify(self, raw: Raw) -> Verified:
        """The result, verified."""
        self.journal.note("verifier.verify")
        return Verified(raw)


@dataclass(slots=True)
class FakeRedactor:
    """Replaces the words it was told to take out."""

    journal: Journal
    secrets: tuple[str, ...] = ()

    async def holds(self, body: bytes) -> bool:
        """Whether one of the words is in it."""
        return any(secret.encode() in body for secret in self.secrets)

    def notice(self, origin: Live | Resumed, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        """The text without the words."""
        text, count = body.decode(), 0
        for secret in self.secrets:
            count += text.count(secret)
            text = text.replace(secret, "[redacted]")
        return text.encode(), {"words": count}

    async def redact(self, verified: Verified) -> Redacted:
        """The result without the words."""
        self.journal.note("redactor.redact")
        body, counts = self.notice(verified.raw.lease.intent.call.origin, verified.raw.body)
        return Redacted(verified.raw.lease.intent, body, msgspec.json.decode(body), counts)
