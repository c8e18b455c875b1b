"""Sources of policy: a folder or an archive on this machine, or an address that is asked again and again.

A source that was good once keeps its last good layer: what it holds later is taken whole, or not at all.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
from anyio import to_thread

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles.archive import MAX_BUNDLE_BYTES
from gateway.adapters.rego.layers import Layer
from gateway.core.bundle import BundleError
from gateway.core.errors import Unavailable

_NOT_MODIFIED, _OK = 304, 200
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
Mark = tuple[tuple[str, int, int, int, int], ...]


class Source(Protocol):
    """Where a layer comes from."""

    @property
    def origin(self) -> str:
        """The place, for people."""

    @property
    def behind(self) -> tuple[str, ...]:
        """Why the layer may not be the newest, although there is one; empty where it is."""

    async def look(self) -> Layer | None:
        """The layer, or None where it is as it was when it was looked at last.

        Raises:
            BundleError: what is there cannot be used, or nothing can be reached.
        """


@dataclass(slots=True)
class PathSource:
    """A folder or an archive.

    Attributes:
        public_key: PEM; None = it need not be signed.
    """

    path: Path
    public_key: bytes | None = None
    _seen: Mark | None = None
    _problems: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def behind(self) -> tuple[str, ...]:
        """Nothing: what is there is the newest."""
        return ()

    async def look(self) -> Layer | None:
        """The layer as the files are now; see ``Source``."""
        return await to_thread.run_sync(self._look)

    def _look(self) -> Layer | None:
        before = _mark(self.path)
        if before == self._seen:
            # What was no good is no better for being as it was: whoever looks is told until it changes.
            if self._problems:
                raise BundleError(*self._problems)
            return None
        try:
            layer = layers.read(self.path, self.public_key)
        except BundleError as error:
            self._seen, self._problems = before, error.problems
            raise
        # Somebody was writing meanwhile: half of it may be old. It is read again at the next look.
        if _mark(self.path) != before:
            raise BundleError(f"{self.path}: is being changed")
        self._seen, self._problems = before, ()
        return layer


def _mark(path: Path) -> Mark:
    """What changes when a file is written: place, size, inode, and both times, as one of them can be set at will."""
    found = []
    for one in layers.paths(path) if path.is_dir() else [path]:
        try:
            stat = one.stat()
        except OSError as error:
            raise BundleError(f"{one}: cannot be read: {error.strerror}") from None
        found.append((str(one), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return tuple(found)


@dataclass(slots=True)
class HttpSource:
    """An archive at an address, asked for with the ETag of the one at hand.

    Attributes:
        name: its name in the settings.
        url: where it is.
        public_key: PEM; it must be signed with this key's private half.
        kept: file that holds the last good archive, for starts while the address is out of reach; None = nothing is
            kept and nothing of it used.
        session: makes the HTTP client.
        token: gives the bearer token, or None.
    """

    name: str
    url: str
    public_key: bytes
    kept: Path | None
    session: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]
    token: Callable[[], str] | None = None
    _etag: str | None = None
    _has_layer: bool = field(default=False)
    _behind: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The address."""
        return self.url

    @property
    def behind(self) -> tuple[str, ...]:
        """Why the copy that was kept is in use."""
        return self._behind

    async def look(self) -> Layer | None:
        """What the address holds now; see ``Source``. At first, what was kept of it where it cannot be reached."""
        try:
            content, etag = await self._fetched()
        except BundleError as error:
            if self._has_layer:
                raise
            self._behind = error.problems
            return await self._at_hand()
        if content is None:
            return None
        layer = await to_thread.run_sync(layers.unpacked, self.name, content, self.public_key)
        if self.kept is not None:
            await to_thread.run_sync(_keep, self.kept, content)
        self._etag, self._has_layer, self._behind = etag, True, ()
        return layer

    async def _at_hand(self) -> Layer:
        """Raises ``BundleError`` where nothing was kept; what was is checked like what is fetched."""
        if self.kept is None or not self.kept.is_file():
            raise BundleError(*self._behind, f"{self.url}: no earlier policy of it was kept")
        content = await to_thread.run_sync(_read_kept, self.kept)
        layer = await to_thread.run_sync(layers.unpacked, self.name, content, self.public_key)
        self._has_layer = True
        return layer

    async def _fetched(self) -> tuple[bytes | None, str | None]:
        try:
            headers = self._headers()
            async with (
                self.session() as session,
                # Where the address says policy is elsewhere, the operator must say so, too.
                session.get(
                    self.url, headers=headers, allow_redirects=False, timeout=_TIMEOUT, auto_decompress=False
                ) as answer,
            ):
                if answer.status == _NOT_MODIFIED and self._etag:
                    return None, self._etag
                if answer.status != _OK:
                    raise BundleError(f"{self.url}: answers {answer.status}")
                content = await _read(answer.content, self.url)
                return content, answer.headers.get("etag")
        except (aiohttp.ClientError, TimeoutError, OSError, Unavailable) as error:
            raise BundleError(f"{self.url}: cannot be reached: {str(error) or type(error).__name__}") from None

    def _headers(self) -> dict[str, str]:
        # As it is: an archive is compressed already, and servers name that as an encoding, which would be taken off.
        headers = {"accept": "application/gzip, application/octet-stream", "accept-encoding": "identity"}
        headers |= {"if-none-match": self._etag} if self._etag else {}
        return headers | ({"authorization": f"Bearer {self.token()}"} if self.token else {})


def _read_kept(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None


async def _read(stream: aiohttp.StreamReader, url: str) -> bytes:
    content = bytearray()
    async for block in stream.iter_chunked(1 << 16):
        content += block
        if len(content) > MAX_BUNDLE_BYTES:
            raise BundleError(f"{url}: more than {MAX_BUNDLE_BYTES} bytes")
    return bytes(content)


def _keep(path: Path, content: bytes) -> None:
    # Not taken where it cannot be kept: a start while the address is out of reach would go back to older policy.
    draft = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror}") from None
