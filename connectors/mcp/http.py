"""MCP over streamable HTTP, both eras.

The era is found once: a ``server/discover`` that succeeds is the stateless era, a refusal means the handshake. A
session belongs to one credential and one caller and is never used with another; one of a leased credential ends with
its call.

A call is sent once: each attempt has an intent of its own. A 404 should mean that the server does not know the
session and did not look at the call, but a proxy may say so of a call that was carried out. Hence a read has then
failed and the outcome of any other call is unknown; the session is forgotten, so the next call makes a new one. So
that this stays rare, a session that was not used for a while is tried with a ping before a call.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from anyio import fail_after

from connectors.mcp import following, results
from connectors.mcp.dialect import Client, call_members, call_method, call_name
from connectors.mcp.exchange import Endpoint
from connectors.mcp.faults import Fault, Lost, Refused, call_error, raise_unavailable
from connectors.mcp.following import Following
from connectors.mcp.holding import Bounds
from connectors.mcp.listing import ListingLimits, all_offered, well_annotated
from connectors.mcp.messages import header_fields
from connectors.mcp.outside import Outside
from connectors.mcp.pool import Pool
from connectors.mcp.session import Ask, Session
from connectors.mcp.sessions import Identity, Sessions, whose
from gateway.core.call import Call, Lease, Raw
from gateway.core.errors import GatewayError, NotSent
from gateway.core.mcpwire import eras, headers
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import EffectClass, Kind, Tool

_MOST_SPELLED: Final = 4096


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How an upstream is used.

    Attributes:
        client: what the gateway says of itself.
        credential: gives the header fields of discovery and pings, asked each time they are sent; may raise
            ``Unavailable``.
        setup_timeout_s: longest a connection with its handshake may take.
        ping_timeout_s: longest a ping may take.
        trusted_idle_s: a session unused for longer is tried before a call, seconds.
        max_sessions: sessions kept at a time, one for each credential and caller.
        listing: bounds of discovery.
        following: bounds of what callers follow.
        wanting: told which scopes the upstream wants of a call whose token has too few; untrusted names.
    """

    client: Client = field(default_factory=Client)
    credential: Callable[[], Mapping[str, str]] = dict
    setup_timeout_s: float = 10.0
    ping_timeout_s: float = 5.0
    trusted_idle_s: float = 60.0
    max_sessions: int = 64
    listing: ListingLimits = field(default_factory=ListingLimits)
    following: Bounds = field(default_factory=Bounds)
    wanting: Callable[[Sequence[str]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Spelled:
    """What the stateless era says of a tool's calls in header fields, by its definition alone.

    Attributes:
        named: the field with its name, as it is sent; empty where there is none, or where it is not the same each time.
        annotated: the arguments that are repeated.
    """

    named: str
    annotated: Mapping[headers.Path, str]


class HttpConnector:
    """One MCP server at one URL; a ``Discovering`` connector. The pool is shared and not closed here."""

    def __init__(self, url: str, pool: Pool, options: HttpOptions | None = None) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            ValueError: ``url`` is no endpoint.
        """
        self._options = options or HttpOptions()
        self._sessions = Sessions(Endpoint(url, pool), self._options.client, self._options.max_sessions)
        self._following = Following(self._sessions, self._options.following)
        self._outside = Outside()
        self._known: dict[tuple[str, str], _Spelled] = {}

    async def __aenter__(self) -> Self:
        """Nothing is sent before it is needed: an upstream that is down must not keep the gateway from starting."""
        await self._following.__aenter__()
        await self._outside.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is followed, and the sessions."""
        try:
            await self._outside.__aexit__(None, None, None)
        finally:
            await self._following.__aexit__(None, None, None)
        await self._sessions.close()

    @property
    def era(self) -> Era | None:
        """The upstream's era, None while it is not known."""
        return self._sessions.era

    @property
    def outside(self) -> int:
        """In how many sessions a stream is held, or was refused, for what the upstream asks outside of calls."""
        return self._outside.count

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call; see ``core.connector.Connector``."""
        intent = lease.intent
        tool, call = intent.tool, intent.call
        kind, flow = tool.kind, call.flow
        if kind is Kind.SUBSCRIPTION:
            return await self._followed(lease)
        # A third for the handshake and a third for a connection: the catalogue's time-out, which has to assume the
        # worst, then does not strike while it is still certain that nothing left.
        within_s = min(self._options.setup_timeout_s, intent.timeout_s / 3)
        session = None
        try:
            members, fields = call_members(tool, call), self._call_fields(tool, call)
            ask = Ask(call_method(kind), members, tool.limits.max_output_bytes, within_s, fields, flow)
            identity = Identity(lease.headers, whose(lease), {} if flow is None else flow.askable)
            session = await self._sessions.get(identity, within_s, self._options.trusted_idle_s)
            if session.is_askable or (flow is not None and flow.wants.is_asked):
                result = await self._heard(session, ask)
            else:
                result = await session.ask(ask)
            return results.raw(lease, result)
        except Fault as fault:
            raise self._error(fault, session, tool) from fault
        finally:
            if lease.is_passing:
                await self._sessions.leave(lease.headers, whose(lease))

    async def _followed(self, lease: Lease) -> Raw:
        call = lease.intent.call
        if lease.is_passing:
            raise NotSent("a subscription outlives the call's credential", cause_code="credential_passing")
        try:
            await following.carried_out(self._following, call, Identity(lease.headers, whose(lease)))
        except Fault as fault:
            raise call_error(fault) from fault
        return results.raw(lease, b"{}")

    async def discover(self) -> Sequence[dict[str, Any]]:
        """The upstream's tool definitions; see ``core.connector.Discovering``."""
        options, credential = self._options, self._options.credential()

        async def page(method: str, members: bytes, cap: int) -> bytes:
            return await self._ask(credential, Ask(method, members, cap, options.setup_timeout_s))

        try:
            with fail_after(options.setup_timeout_s * 3):
                # What it has, it says at the start.
                session = await self._sessions.get(Identity(credential), options.setup_timeout_s)
                found = await all_offered(page, options.listing, session.dialect.offers)
                return well_annotated(found) if session.dialect.stateless else found
        except Fault as fault:
            raise_unavailable(fault)
        except TimeoutError:
            raise_unavailable(Lost("timeout"))

    async def ping(self) -> None:
        """Return when the upstream answers; see ``core.connector.Connector``."""
        try:
            with fail_after(self._options.ping_timeout_s):
                await self._ping()
        except Fault as fault:
            raise_unavailable(fault)
        except TimeoutError:
            raise_unavailable(Lost("timeout"))

    async def _ping(self) -> None:
        credential = self._options.credential()
        session = await self._sessions.get(Identity(credential), self._options.ping_timeout_s)
        method = "server/discover" if session.dialect.stateless else "ping"
        try:
            await self._ask(credential, Ask(method, connect_s=self._options.ping_timeout_s))
        except Refused as refusal:
            if refusal.code != eras.METHOD_NOT_FOUND:  # whoever says so is there
                raise

    async def _heard(self, session: Session, ask: Ask) -> bytes:
        session.users += 1  # from here on: it may have to wait for its stream
        try:
            async with self._outside.heard(session) if session.is_askable else nullcontext():
                return await session.ask_heard(ask)
        finally:
            session.users -= 1

    def _error(self, fault: Fault, session: Session | None, tool: Tool) -> GatewayError:
        if isinstance(fault, Refused):
            if session is not None:
                self._sessions.learn(session, fault)
                if _is_disowned(session, fault) and tool.effect is not EffectClass.READ:
                    return call_error(Lost("session_expired"))
            if fault.further:
                self._options.wanting(fault.further)
        return call_error(fault)

    async def _ask(self, credential: Mapping[str, str], ask: Ask) -> bytes:
        # For what is no call: asking again has no effect.
        session = await self._sessions.get(Identity(credential), ask.connect_s)
        try:
            return await self._sent(session, ask)
        except Refused as refusal:
            if not _is_disowned(session, refusal):
                raise
        return await self._sent(await self._sessions.get(Identity(credential), ask.connect_s), ask)

    async def _sent(self, session: Session, ask: Ask) -> bytes:
        try:
            return await session.ask(ask)
        except Refused as refusal:
            self._sessions.learn(session, refusal)
            raise

    def _call_fields(self, tool: Tool, call: Call) -> str:
        spelled = self._known.get((tool.digest, tool.name)) or self._spelled(tool)
        named = spelled.named if tool.uri is None else _name_field(tool)
        if not spelled.annotated:
            return named
        repeated = headers.param_fields(spelled.annotated, call.arguments.value)
        return named + header_fields([*repeated.items()])

    def _spelled(self, tool: Tool) -> _Spelled:
        if len(self._known) >= _MOST_SPELLED:  # definitions change; the old ones are not kept for ever
            self._known.clear()
        named = _name_field(tool) if tool.uri is None else ""
        found = _Spelled(named, headers.annotated(tool.definition.get("inputSchema")))
        self._known[tool.digest, tool.name] = found
        return found


def _name_field(tool: Tool) -> str:
    name = call_name(tool)
    return "" if name is None else header_fields([(eras.NAME_HEADER, headers.wrap(name))])


def _is_disowned(session: Session, refusal: Refused) -> bool:
    """Whether the server says that it does not know the session: a 404 of a door that did not read the request."""
    return session.id is not None and refusal.status == 404 and not refusal.addressed  # noqa: PLR2004 -- HTTP
