"""The connector for HTTP APIs."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from connectors.http.answer import answer
from connectors.http.binding import Request, Route, request, route
from connectors.http.dialling import AddressRefused, GuardedResolver, origin
from connectors.http.presenting import presenting
from gateway.core import netguard
from gateway.core.call import Lease, Raw
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, Unavailable
from gateway.core.tool import EffectClass, Tool

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
# Shorter than the five seconds after which common servers close a quiet connection.
_KEEP_OPEN_S = 4.0
_DNS_CACHE_S = 10
# Fields that frame the message or address the next hop, not the upstream.
_OWN_FIELDS = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpApiOptions:
    """How an HTTP API is reached.

    Attributes:
        allow_networks: networks in CIDR form that may be dialled though they are not public.
        connect_timeout_s: longest name resolution, and longest connecting, each.
        resolver: resolves host names and is closed with the connector; None = the system's.
        tls: how certificates are checked; None = the system's trust store.
        fresh_tls: makes the context of a call that presents a client certificate of its own.
    """

    allow_networks: tuple[str, ...] = ()
    connect_timeout_s: float = 5.0
    resolver: AbstractResolver | None = None
    tls: ssl.SSLContext | None = None
    fresh_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context


class HttpApi:
    """Carries out declared requests at one origin. An async context manager.

    Reads share kept-open connections; everything else goes over a fresh one, as a connection the upstream has just
    closed cannot be told from one it took the request from, and so does a call with a client certificate. Nothing is
    ever sent twice and no redirect is followed.
    Failure mode: see ``core.connector.Connector`` and ``connectors.http.answer``.
    """

    def __init__(self, origin_text: str, options: HttpApiOptions | None = None) -> None:
        """Prepare; nothing is dialled yet.

        Raises:
            ValueError: ``origin_text`` is no origin, or an allowed network is no network.
        """
        self._options = options or HttpApiOptions()
        self._origin = origin(origin_text)
        self._guard = netguard.guard(self._options.allow_networks)
        # The client dials an address in its plain form without asking the resolver.
        literal = netguard.read(self._origin.host) is not None
        self._refused = self._guard.refusal(self._origin.host) if literal else None
        self._routes: dict[str, tuple[Mapping[str, Any], Route]] = {}
        self._closing = AsyncExitStack()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        """Open the two connection pools."""
        self._closing.push_async_callback(self._resolver().close)
        for reading in (True, False):
            self._sessions[reading] = await self._closing.enter_async_context(self._session(keep_open=reading))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close all connections."""
        self._sessions.clear()
        await self._closing.aclose()

    async def invoke(self, lease: Lease) -> Raw:
        """Send the request the tool declares, once.

        Raises:
            NotSent: arguments or header fields do not fit, an address is refused, no connection was made.
            ToolFailed: see ``connectors.http.answer``.
            OutcomeUnknown: the connection was lost after the request may have left.
        """
        tool = lease.intent.tool
        found = self._route(tool)
        made = request(found, lease.intent.call.arguments)
        fields = _fields(lease, found, made)
        if self._refused is not None:
            raise _address_refused(self._refused)
        target = URL(self._origin.text + made.target, encoded=True)
        connecting = min(self._options.connect_timeout_s, lease.intent.timeout_s / 2)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connecting)
        try:
            async with (
                self._session_of(lease) as session,
                session.request(
                    found.method, target, data=made.body, headers=fields, allow_redirects=False, timeout=timeout
                ) as response,
            ):
                return await answer(lease, found, response)
        except (aiohttp.ClientError, OSError):
            raise OutcomeUnknown("the connection was lost before the answer was complete", cause_code="lost") from None

    async def ping(self) -> None:
        """The origin resolves to addresses that may be dialled, and takes a connection.

        Raises:
            Unavailable: it does not.
        """
        if self._refused is not None:
            raise Unavailable(f"the upstream's address is refused ({self._refused})", cause_code="address_refused")
        resolver = self._resolver()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                host = self._origin.host
                literal = netguard.read(host) is not None
                dialled = host if literal else (await resolver.resolve(host, self._origin.port))[0]["host"]
                _, writer = await asyncio.open_connection(dialled, self._origin.port)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        except AddressRefused as error:
            raise Unavailable(
                f"the upstream's address is refused ({error.kind})", cause_code="address_refused"
            ) from None
        except OSError:  # TimeoutError is one
            raise Unavailable("the upstream cannot be reached", cause_code="upstream_down") from None

    def _route(self, tool: Tool) -> Route:
        # Kept by name, and only as long as the very same catalogue entry is in force.
        kept = self._routes.get(tool.fqn)
        if kept is None or kept[0] is not tool.binding:
            try:
                kept = self._routes[tool.fqn] = (tool.binding, route(tool.binding))
            except (TypeError, ValueError) as error:
                raise NotSent(f"the tool's binding cannot be used: {error}", cause_code="binding") from None
        return kept[1]

    def _resolver(self) -> GuardedResolver:
        inner = self._options.resolver or aiohttp.ThreadedResolver()
        return GuardedResolver(inner, self._guard, self._options.connect_timeout_s)

    @asynccontextmanager
    async def _session_of(self, lease: Lease) -> AsyncIterator[aiohttp.ClientSession]:
        login = lease.login
        if login is None or login.chain is None:
            yield self._sessions[lease.intent.tool.effect is EffectClass.READ]
            return
        # Whoever presents a certificate is whom it names for as long as the connection lasts: it serves this call only,
        # and no session of TLS is resumed.
        if not self._origin.text.startswith("https://"):
            raise NotSent("a client certificate needs https://", cause_code="tls")
        tls = await asyncio.to_thread(presenting, self._options.fresh_tls, login)
        async with self._session(keep_open=False, tls=tls) as session:
            yield session

    def _session(self, *, keep_open: bool, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
        kept: dict[str, Any] = {"keepalive_timeout": _KEEP_OPEN_S} if keep_open else {"force_close": True}
        connector = aiohttp.TCPConnector(
            resolver=self._resolver(), ssl=tls or self._options.tls or True, ttl_dns_cache=_DNS_CACHE_S, **kept
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            middlewares=(_once,),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )


async def _once(sent: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    # The client repeats methods it takes for idempotent after a lost connection. Errors that are none of its own end
    # that, so an intent is one attempt; and here, unlike outside, it is known whether a connection was made.
    try:
        return await handler(sent)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
        raise _unreached(error) from None
    except (aiohttp.ClientError, OSError):
        raise OutcomeUnknown("the connection was lost before an answer came", cause_code="lost") from None


def _unreached(error: Exception) -> GatewayError:
    cause = getattr(error, "os_error", None)
    if isinstance(cause, AddressRefused):
        return _address_refused(cause.kind)
    if isinstance(error, aiohttp.ClientSSLError):
        return NotSent("the upstream's certificate is not trusted", cause_code="tls")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NotSent("the upstream's name cannot be resolved", cause_code="dns")
    return NotSent("the upstream cannot be reached", cause_code="upstream_down")


def _address_refused(kind: netguard.AddressClass) -> NotSent:
    return NotSent(f"the upstream's address may not be dialled ({kind})", cause_code="address_refused")


def _fields(lease: Lease, found: Route, made: Request) -> dict[str, str]:
    fields = {"Accept": "application/json, text/*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "ostiary"}
    if made.body is not None:
        fields["Content-Type"] = "application/json"
    if found.idempotency_header is not None:
        fields[found.idempotency_header] = lease.intent.call.id
    for name, value in lease.headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OWN_FIELDS:
            raise NotSent("a credential does not fit into a header field", cause_code="header")
        fields[name] = value
    return fields
