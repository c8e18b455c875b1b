"""The search itself: every place, looked at in several ways, for every way a secret can be written."""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import re2

from tests.hunting.spellings import betrayals

_GAPS = re.compile(rb"[\x00-\x20\x7f]+|\\+[nrt]|\xe2\x80[\x8b-\x8f]|\xc2\xad|\xef\xbb\xbf")
_WRITTEN = re.compile(rb"\\+(?:u00|x)([0-9a-fA-F]{2})|&#(?:x([0-9a-fA-F]{2})|([0-9]{2,3}));")
_SLASHES = re.compile(rb"\\+([^\\])")
_PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_MOST_INFLATED = 64 * 1024 * 1024
_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class Secret:
    """What must stand nowhere.

    Attributes:
        name: what it is.
        value: the secret part of it and no more, as what is public beside it may be shown.
    """

    name: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, order=True)
class Find:
    """A secret where it must not be."""

    secret: str
    place: str
    spelling: str
    near: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """A place that may hold a secret; both by pattern.

    Attributes:
        why: for the reader.
    """

    secret: str
    place: str
    why: str

    def covers(self, find: Find) -> bool:
        """Whether this is what was meant."""
        return re.fullmatch(self.secret, find.secret) is not None and re.fullmatch(self.place, find.place) is not None


def forbidden(found: Iterable[Find], allowed: Sequence[Allowed]) -> list[Find]:
    """What of it is not allowed."""
    return [find for find in found if not any(one.covers(find) for one in allowed)]


class Hunt:
    """All spellings of some secrets, compiled into one search."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._meant: dict[bytes, tuple[str, str]] = {}
        for secret in secrets:
            assert len(secret.value) >= 8, f"{secret.name} is too short to be told from chance"
            for spelling, needles in betrayals(secret.value).items():
                for needle in needles:
                    self._meant.setdefault(needle, (secret.name, spelling))
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = _MEMORY
        # The longest first, so that a whole is not told as its half.
        ordered = sorted(self._meant, key=len, reverse=True)
        self._pattern: Any = re2.compile(b"|".join(re2.escape(needle) for needle in ordered), options)

    def through(self, places: Mapping[str, bytes]) -> list[Find]:
        """What is found."""
        return sorted({find for place, data in places.items() for find in self._in(place, data)})

    def _in(self, place: str, data: bytes) -> Iterator[Find]:
        for look, seen in _looks(data):
            for match in self._pattern.finditer(seen):
                name, spelling = self._meant[match.group()]
                near = seen[max(0, match.start() - 60) : match.start()].decode("latin-1")
                yield Find(name, place, f"{spelling}{look}", near)


def _looks(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", data
    yield from _plainer(data)
    for packed in _inflated(data):
        yield ", packed", packed
        yield from ((f"{look}, packed", seen) for look, seen in _plainer(packed))


def _plainer(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield ", broken up", _GAPS.sub(b"", data)
    if b"\\" in data:
        yield ", in a text in a text", _SLASHES.sub(rb"\\\1", data)
    written = _WRITTEN.sub(_char, data)
    if b"%" in written:
        written = unquote_to_bytes(written)
    if written != data:
        yield ", partly escaped", written
        yield ", partly escaped and broken up", _GAPS.sub(b"", written)


def _char(match: "re.Match[bytes]") -> bytes:
    number = int(match[1] or match[2], 16) if match[1] or match[2] else int(match[3])
    return bytes([number]) if number < 256 else match[0]


def _inflated(data: bytes) -> Iterator[bytes]:
    for match in _PACKED.finditer(data):
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            yield unpacking.decompress(data[match.start() :], _MOST_INFLATED)
        except zlib.error:
            continue
