"""One question, one HTTP request: bounded in time, in size and in number, never repeated, never redirected."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Final, Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from gateway.adapters.opa.answers import Said, modules, read, unavailable
from gateway.core.errors import Unavailable

MAX_ANSWER_BYTES: Final = 1024 * 1024
# All of OPA's policy, with syntax trees: several times the size of a bundle.
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024
_HELD: Final = "/v1/policies"
_QUESTION: Final = "/v1/data/gateway/main/decision?strict-builtin-errors=true&provenance=true"
_UNIX: Final = "unix://"
_UNAUTHORIZED: Final = 401
# Shorter than the time after which proxies in between close a quiet connection.
_KEEP_OPEN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class OpaSettings:
    """Where the OPA server is and how it is asked.

    Attributes:
        url: ``http(s)://host:port`` or ``unix:///path``; nothing after it.
        deadline_s: longest an input may take, seconds, from when its request is dispatched.
        connections: most requests at a time.
        queue: most requests that wait for a connection.
        queue_wait_s: longest one waits, seconds.
        token: reads the bearer token; asked again after OPA refused one. None = no token.
        ca_certificate: PEM file OPA's certificate is checked against; None = the system's authorities.
    """

    url: str
    deadline_s: float = 0.05
    connections: int = 16
    queue: int = 1024
    queue_wait_s: float = 1.0
    token: Callable[[], str] | None = field(default=None, repr=False)
    ca_certificate: Path | None = None


class Wire:
    """A pool of connections to one OPA server; an async context manager.

    Attributes:
        dialled: how many connections were made; while it stays, the server was not started anew.
    """

    def __init__(self, settings: OpaSettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.connections)
        self._waiting = 0
        self._closing = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        origin = "http://localhost" if settings.url.startswith(_UNIX) else settings.url.rstrip("/")
        self._target = URL(origin + _QUESTION, encoded=True)
        self._held = URL(origin + _HELD, encoded=True)
        self._token: str | None = None
        self.dialled = 0

    async def __aenter__(self) -> Self:
        """Open the pool; nothing is dialled yet.

        Raises:
            OSError: the certificate file cannot be read.
        """
        session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            trace_configs=[self._counting()],
        )
        self._session = await self._closing.enter_async_context(session)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close all connections."""
        self._session = None
        await self._closing.aclose()

    async def ask(self, document: bytes) -> Said:
        """What OPA says of one input document.

        Raises:
            Misfit, Unavailable: as ``answers.read`` does; also no room, no connection, no answer in time, or too long
                an answer.
        """
        body = b"".join((b'{"input":', document, b"}"))
        return read(*await self._exchanged(self._target, body, self._settings.deadline_s))

    async def held(self, deadline_s: float) -> Mapping[str, str]:
        """Text of all policy OPA holds, by id, within so many seconds.

        Raises:
            Unavailable: as ``ask``.
        """
        return modules(*await self._exchanged(self._held, None, deadline_s))

    async def _exchanged(self, target: URL, body: bytes | None, deadline_s: float) -> tuple[int, bytes]:
        await self._place()
        try:
            async with asyncio.timeout(deadline_s):
                return await self._exchange(target, body)
        except TimeoutError:
            raise unavailable("OPA did not answer within the deadline") from None
        except (aiohttp.ClientError, OSError):
            raise unavailable("OPA cannot be reached, or hung up") from None
        finally:
            self._places.release()

    async def _place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._waiting >= self._settings.queue:
            raise unavailable("too many questions wait for OPA")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise unavailable("OPA is asked too much at a time") from None
        finally:
            self._waiting -= 1

    async def _exchange(self, target: URL, body: bytes | None) -> tuple[int, bytes]:
        if self._session is None:
            raise unavailable("policy engine is not running")
        method, most = ("GET", _MAX_HELD_BYTES) if body is None else ("POST", MAX_ANSWER_BYTES)
        fields = {"Content-Type": "application/json", "Accept-Encoding": "identity", **self._authorization()}
        async with self._session.request(method, target, data=body, headers=fields, allow_redirects=False) as response:
            if response.status == _UNAUTHORIZED:
                self._token = None
            return response.status, await _body(response, most)

    def _authorization(self) -> dict[str, str]:
        if self._settings.token is None:
            return {}
        if self._token is None:
            self._token = _sendable(self._settings.token())
        return {"Authorization": f"Bearer {self._token}"}

    def _connector(self) -> aiohttp.BaseConnector:
        settings = self._settings
        if settings.url.startswith(_UNIX):
            path = settings.url.removeprefix(_UNIX)
            return _QuietSocket(path, limit=settings.connections, keepalive_timeout=_KEEP_OPEN_S)
        trust = ssl.create_default_context(cafile=settings.ca_certificate) if settings.ca_certificate else True
        return _QuietHost(limit=settings.connections, keepalive_timeout=_KEEP_OPEN_S, ssl=trust)

    def _counting(self) -> aiohttp.TraceConfig:
        async def made(_session: object, _context: SimpleNamespace, _made: object) -> None:
            self.dialled += 1

        config = aiohttp.TraceConfig()
        config.on_connection_create_end.append(made)
        return config


class _Quiet(aiohttp.BaseConnector):
    # The pool does not look at what came over a connection while it lay idle: it would be taken for the next answer.
    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  its name there
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()


class _QuietSocket(_Quiet, aiohttp.UnixConnector):
    pass


class _QuietHost(_Quiet, aiohttp.TCPConnector):
    pass


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    # Identity was asked for; a compressed body would have to be unpacked under a bound of its own.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise unavailable("OPA compressed its answer unasked")
    if (response.content_length or 0) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> Unavailable:
    return unavailable(f"OPA's answer is over {most} bytes")


def _sendable(token: str) -> str:
    if not token.isascii() or not token.isprintable():
        raise unavailable("[policy.opa] token holds characters no header field may have")
    return token
