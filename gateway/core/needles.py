r"""Secrets the gateway knows, found again in every encoding a tool is likely to give them back in.

Each value becomes a dozen needles: as it is, JSON-escaped, URL-encoded, hex, base64 at the three alignments (so also in
the middle of something longer), reversed; each also split by white space or zero-width characters. Two passes over
bytes find them:

1. ``may_hold`` on squeezed bytes: white space, backslashes and the letters of ``\n \r \t \f`` are deleted on both
   sides, so that escaped and broken-up occurrences collapse into one literal search. May say yes wrongly, never no.
2. ``spans`` on decoded text: exact places, overlapping ones merged.

Both search a fixed-size piece out of each needle by one RE2 alternation, so the cost hardly depends on how many secrets
there are.
"""

import base64
import binascii
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

import re2

MIN_LENGTH = 8
MAX_LENGTH = 16 * 1024
PLACEHOLDERS = ("[redacted:known_value]", "[redacted:secret_key]")

_PIECE = 8  # every needle has at least as many bytes, white space not counted
_SQUEEZED_PIECE = 12
_SQUEEZED_OUT = b" \t\r\n\f\\nrtf"
# White space and what shows as nothing: U+00A0, U+00AD, U+2000-200F, U+2028-202F, U+205F-2064, U+3000, U+FEFF.
WIDE_GAPS = rb"\xc2[\xa0\xad]|\xe2\x80[\x80-\x8f\xa8-\xaf]|\xe2\x81[\x9f-\xa4]|\xe3\x80\x80|\xef\xbb\xbf"
_ASCII_GAPS = b" \t\r\n\v\f"
_GAPS = re.compile(rb"(?:[" + _ASCII_GAPS + rb"]|" + WIDE_GAPS + rb")+")

Span = tuple[int, int]


class UnfitSecret(ValueError):
    """The value cannot be kept out of outputs, so it must not be used as a secret: too short, too long, too many."""


def squeeze(body: bytes) -> bytes:
    """``body`` as ``Needles.may_hold`` takes it."""
    return body.translate(None, _SQUEEZED_OUT)


class Needles:
    """All encodings of a set of values, compiled; immutable."""

    __slots__ = ("_by_piece", "_everywhere", "_exact", "_squeezed", "values")

    def __init__(self, values: Iterable[str], needles: Iterable[bytes] | None = None) -> None:
        """Compile: 0.1 ms a value where its ``encodings`` are given as ``needles``, otherwise 0.3.

        Raises:
            UnfitSecret: a value is shorter than 8 or longer than 16,384 bytes (white space not counted), or is part of
                a placeholder.
        """
        self.values = frozenset(values)
        wanted = {needle for value in self.values for needle in encodings(value)} if needles is None else set(needles)
        self._by_piece: dict[bytes, list[tuple[int, bytes]]] = {}
        for needle in wanted:
            at = (len(needle) - _PIECE) // 2
            self._by_piece.setdefault(needle[at : at + _PIECE], []).append((at, needle))
        self._exact = _alternation(self._by_piece)
        squeezed = {_middle(squeeze(needle)) for needle in wanted}
        self._everywhere = any(len(piece) < _PIECE // 2 for piece in squeezed)  # too little left to tell
        self._squeezed = None if self._everywhere else _alternation(squeezed)

    def may_hold(self, squeezed: bytes) -> bool:
        r"""Whether a body, squeezed, may hold a value: False is certain unless it uses ``\u`` escapes or wide gaps."""
        return self._everywhere or (self._squeezed is not None and self._squeezed.search(squeezed) is not None)

    def spans(self, data: bytes) -> list[Span]:
        """The places of all values in UTF-8 text, in order, not overlapping, white space inside included."""
        if len(data) < MIN_LENGTH:
            return []
        solid = data.translate(None, _ASCII_GAPS)
        found = list(self._found(solid if data.isascii() else _GAPS.sub(b"", solid)))
        if not found:
            return []
        shift = _Shift([match.span() for match in _GAPS.finditer(data)])
        return _merged((shift.first(start), shift.last(end)) for start, end in found)

    def _found(self, data: bytes) -> Iterator[Span]:
        start = 0
        while self._exact is not None and (match := self._exact.search(data, start)) is not None:
            start = match.start() + 1  # the next needle may overlap this one
            for at, needle in self._by_piece[match.group()]:
                first = match.start() - at
                if first >= 0 and data.startswith(needle, first):
                    yield first, first + len(needle)


class _Shift:
    """Maps places in text without gaps to places in the text with them."""

    __slots__ = ("_removed", "_solid")

    def __init__(self, gaps: list[Span]) -> None:
        self._solid: list[int] = []  # where each gap was, in the text without gaps
        self._removed = [0]
        for start, end in gaps:
            self._solid.append(start - self._removed[-1])
            self._removed.append(self._removed[-1] + end - start)

    def first(self, place: int) -> int:
        """Place of the byte at ``place``."""
        return place + self._removed[bisect_right(self._solid, place)]

    def last(self, end: int) -> int:
        """Place just after the byte before ``end``."""
        return self.first(end - 1) + 1


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _middle(needle: bytes) -> bytes:
    # The middle tells secrets apart; tokens and PEM blocks begin and end alike.
    at = max(0, (len(needle) - _SQUEEZED_PIECE) // 2)
    return needle[at : at + _SQUEEZED_PIECE]


def _alternation(literals: Iterable[bytes]) -> "re2._Regexp | None":
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes are bytes
    options.never_capture = True
    options.log_errors = False
    options.max_mem = 64 * 1024 * 1024
    pattern = b"|".join(re2.escape(literal) for literal in sorted(literals))
    return re2.compile(pattern, options) if pattern else None


def encodings(value: str) -> frozenset[bytes]:
    """What ``value`` is searched as: all its encodings, free of white space, as texts are searched without theirs.

    Raises:
        UnfitSecret: see ``Needles``.
    """
    raw = value.encode("utf-8", "surrogatepass")
    solid = _GAPS.sub(b"", raw)
    if not MIN_LENGTH <= len(solid) <= MAX_LENGTH:
        raise UnfitSecret(f"a secret has {MIN_LENGTH} to {MAX_LENGTH} bytes, white space not counted")
    if any(solid in placeholder.encode() for placeholder in PLACEHOLDERS):
        raise UnfitSecret("a secret must not be a word of the placeholder that replaces it")
    backwards = value[::-1].encode("utf-8", "surrogatepass")
    forms = {raw, backwards, *_escaped(value), *_percent(value, raw), *_hex(raw), *_base64(raw)}
    if solid != raw:
        forms |= {*_hex(solid), *_base64(solid)}
    return frozenset(_GAPS.sub(b"", form) for form in forms)


def _escaped(value: str) -> Iterator[bytes]:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        for form in (text, text.replace("/", "\\/")):
            yield form.encode("utf-8", "surrogatepass")


def _percent(value: str, raw: bytes) -> Iterator[bytes]:
    for form in (quote(raw), quote(raw, safe=""), quote_plus(raw), "".join(f"%{byte:02X}" for byte in raw)):
        yield form.encode()
        yield re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), form).encode()
    yield "".join(f"\\u{ord(char):04x}" for char in value).encode()


def _hex(raw: bytes) -> Iterator[bytes]:
    digits = binascii.hexlify(raw)
    yield digits
    yield digits.upper()


def _base64(raw: bytes) -> Iterator[bytes]:
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # Only characters all of whose bits come from the value: what stands before and after it is unknown.
        inner = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
