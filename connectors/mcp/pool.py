"""Connections to MCP servers, kept open between calls and shared by all upstreams of a process."""

import asyncio
import re
import ssl
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from anyio import Semaphore, WouldBlock
from yarl import URL

from connectors.mcp.wire import NotConnected, Wire

# Shorter than the five seconds after which common servers close a quiet connection: what is sent on a connection that
# is just being closed is lost, and nobody knows whether it arrived.
_KEEP_S: Final = 4.0
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+")


class Use(StrEnum):
    """What a connection is for; each has places of its own.

    Otherwise streams that stand open would keep calls from their server, and calls that wait for an answer of ours
    would keep that answer from it.
    """

    ASK = "ask"
    TELL = "tell"
    STAND = "stand"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        host: name in ASCII, or address without brackets.
        authority: value of the Host field.
        path: request target.
        use: what its connections are for.
    """

    tls: bool
    host: str
    port: int
    authority: str
    path: str
    use: Use = Use.ASK


def target(text: str) -> Target:
    """Read a URL an operator wrote.

    Raises:
        ValueError: it is no http(s) URL, or carries a user or password.
    """
    url = URL(text)
    if url.scheme not in {"http", "https"} or url.raw_host is None or url.port is None:
        raise ValueError("an MCP endpoint is an http(s) URL")
    if not _HOST.fullmatch(url.raw_host):
        raise ValueError("an MCP endpoint's host is a name or an address")
    if "@" in url.raw_authority:
        raise ValueError("an MCP endpoint's URL has no user or password: configure a credential")
    bracketed = f"[{url.raw_host}]" if ":" in url.raw_host else url.raw_host
    authority = bracketed if url.is_default_port() else f"{bracketed}:{url.port}"
    return Target(url.scheme == "https", url.raw_host, url.port, authority, url.raw_path_qs)


@dataclass(slots=True)
class Line:
    """The connections of one use to one host and port: those that wait, and how many more there may be.

    Attributes:
        at: who asked for it first; host, port and use are the same for all who do.
    """

    at: Target
    places: Semaphore
    idle: deque[Wire] = field(default_factory=deque)


class Pool:
    """Keeps connections; an async context manager that closes them.

    The newest is used first, so that what is too many grows old and goes.

    One server that hangs uses up its own places only.
    """

    def __init__(self, per_server: int = 256) -> None:
        """``per_server``: most exchanges under way at a time with one host and port, of each use."""
        self._per_server = per_server
        self._lines: dict[tuple[Use, bool, str, int], Line] = {}
        self._tls: ssl.SSLContext | None = None
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close every connection that waits; those in use end with their exchange."""
        self._is_closed = True
        for line in self._lines.values():
            while line.idle:
                line.idle.pop().close()
        await asyncio.sleep(0)  # the transports take note

    def line(self, at: Target) -> Line:
        """What leads there; the same for all targets of one use, host and port."""
        key = (at.use, at.tls, at.host, at.port)
        found = self._lines.get(key)
        if found is None:
            found = self._lines[key] = Line(at, Semaphore(self._per_server, fast_acquire=True))
        return found

    async def take(self, line: Line, within_s: float) -> Wire:
        """A connection for one exchange; give it back with ``give``.

        Raises:
            NotConnected: there was none to be had in time.
        """
        wire = self._ready(line) if line.idle else None
        if wire is not None:
            return wire
        try:
            async with asyncio.timeout(within_s):  # for a place and a connection together
                return await self._made(line)
        except (OSError, ValueError) as error:  # time-outs and TLS are OSErrors; the other is a name
            raise NotConnected(type(error).__name__) from error

    def give(self, line: Line, wire: Wire) -> None:
        """Give a connection back: one that is fit for another exchange is kept, any other is closed."""
        line.places.release()
        if self._is_closed:
            wire.close()
        elif wire.settle():
            wire.idle_since = now = self._loop.time()
            line.idle.append(wire)
            while len(line.idle) > 1 and now - line.idle[0].idle_since > _KEEP_S:
                line.idle.popleft().close()

    def _ready(self, line: Line) -> Wire | None:
        # A place and a connection, where nothing has to be waited for.
        try:
            line.places.acquire_nowait()
        except WouldBlock:
            return None
        wire = self._kept(line)
        if wire is None:
            line.places.release()
        return wire

    def _kept(self, line: Line) -> Wire | None:
        now = self._loop.time()
        while line.idle:
            wire = line.idle.pop()
            if wire.is_fit and now - wire.idle_since <= _KEEP_S:
                return wire
            wire.close()
        return None

    async def _made(self, line: Line) -> Wire:
        await line.places.acquire()
        try:
            wire = self._kept(line)  # one may have come back meanwhile
            if wire is None:
                at = line.at
                tls = self._context() if at.tls else None
                _, wire = await self._loop.create_connection(Wire, at.host, at.port, ssl=tls)
        except BaseException:
            line.places.release()
            raise
        return wire

    def _context(self) -> ssl.SSLContext:
        # Made once and only where it is needed: reading the trust store takes longer than a hundred calls.
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
