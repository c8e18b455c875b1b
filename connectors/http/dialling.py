"""Where an origin may be dialled: resolved once, every answer checked, and exactly a checked address dialled."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.core.netguard import AddressClass, Guard, is_numeric, read

_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


class AddressRefused(OSError):
    """A host name resolved to an address that may not be dialled."""

    def __init__(self, kind: AddressClass) -> None:
        super().__init__(f"address refused: {kind}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream.

    Attributes:
        text: as in ``https://api.example.com:8443``; no slash at the end.
        host: name in lower case, or address without brackets.
        port: explicit or the scheme's.
    """

    text: str
    host: str
    port: int


def origin(text: str) -> Origin:
    """Read an operator's origin.

    Raises:
        ValueError: anything but scheme, host and port in it, or a host that parsers read in different ways.
    """
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("an origin is http(s)://host[:port] and nothing else")
    host = parts.hostname or ""
    if "@" in parts.netloc or "%" in host or text.endswith(("?", "#")):
        raise ValueError("an origin has no user, zone id, query or fragment")
    if read(host) is None and (is_numeric(host) or not _NAME.fullmatch(host)):
        raise ValueError(f"{host!r} is neither a host name nor an address in its plain form")
    written = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return Origin(f"{parts.scheme}://{written}{port}", host, parts.port or (443 if parts.scheme == "https" else 80))


class GuardedResolver(AbstractResolver):
    """Resolves by another resolver and lets an answer through only if each of its addresses may be dialled.

    One bad address refuses the whole answer: a name that also points inside is not trusted with the rest.
    """

    def __init__(self, inner: AbstractResolver, guard: Guard, timeout_s: float) -> None:
        self._inner = inner
        self._guard = guard
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of the host.

        Raises:
            AddressRefused: one of them may not be dialled.
            OSError: it cannot be resolved, or not in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._inner.resolve(host, port, family)
        except TimeoutError:
            raise OSError("name resolution timed out") from None
        for answer in answers:
            kind = self._guard.refusal(answer["host"])
            if kind is not None:
                raise AddressRefused(kind)
        return answers

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


@asynccontextmanager
async def asking_once(
    guard: Guard, times: aiohttp.ClientTimeout, name_s: float
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for a single question: names go through ``GuardedResolver``, which has ``name_s`` seconds for each.

    It keeps no connection and no cookie, takes no proxy from the environment and unpacks nothing. An address that is
    written in the URL passes no resolver: whoever asks has checked it.
    """
    resolver = GuardedResolver(aiohttp.ThreadedResolver(), guard, name_s)
    async with (
        aiohttp.TCPConnector(resolver=resolver, force_close=True) as connector,
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=times,
        ) as session,
    ):
        yield session
