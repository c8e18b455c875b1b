r"""Secrets the gateway knows, found again in every encoding a tool is likely to give them back in.

Each value becomes a dozen needles: as it is, JSON-escaped, hex in any case, base64 at the three alignments (so also in
the middle of something longer), reversed; each also with any of its characters written as ``%41``, ``\x41`` or
``\u0041``, and split by white space (also written ``\n``), controls or characters that show as nothing. Two passes over
bytes find them:

1. ``may_hold`` on squeezed bytes: white space, controls, backslashes and the letters of ``\b \f \n \r \t`` are deleted
   on both sides, so that escaped and broken-up occurrences collapse into one search. May say yes wrongly; never no,
   but for what ``VEILS`` match.
2. ``spans`` on decoded text: exact places, overlapping ones merged.

Both search a fixed-size piece out of each needle by one RE2 alternation, so the cost hardly depends on how many secrets
there are. A short body is mostly cleared without it: a piece that stands in it has four bytes at a place that four
divides, and these few are looked up among the fours of all pieces.
"""

import base64
import binascii
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes

import re2

MIN_LENGTH = 8
MAX_LENGTH = 16 * 1024
PLACEHOLDERS = ("[redacted:known_value]", "[redacted:secret_key]")

_PIECE = 8  # every needle has at least as many bytes, white space not counted
_SQUEEZED_PIECE = 12
# A search by RE2 gives the interpreter lock away, and getting it back takes longer than looking at up to so many bytes.
_SHORT_BYTES = 1024
_QUAD = 4
_MOST_QUADS = 4096  # with more of them chance hits are frequent
_ASCII_GAPS = bytes([*range(0x21), 0x7F])
_LETTERS_OUT = b"bf"  # of those deleted from squeezed bytes, the ones that are hexadecimal digits
_SQUEEZED_OUT = _ASCII_GAPS + b"\\nrt" + _LETTERS_OUT
# In small letters, and without those that are deleted only where they are small: as hexadecimal digits they may be
# written in either case.
_SMALL = bytes(range(256)).lower()
_FOLDED_OUT = _SQUEEZED_OUT + _LETTERS_OUT.upper()
# Beyond ASCII: controls, white space, and all that Unicode lets a reader see nothing of (also fillers and Braille's
# blank): U+0080-00A0 00AD 034F 061C 115F-1160 1680 17B4-17B5 180B-180F 2000-200F 2028-202F 205F-206F 2800 3000 3164
# FE00-FE0F FEFF FFA0 FFF0-FFFB 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF, in UTF-8.
_WIDE_GAPS = (
    rb"\xc2[\x80-\xa0\xad]|\xcd\x8f|\xd8\x9c|\xe1(?:\x85[\x9f\xa0]|\x9a\x80|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])"
    rb"|\xe2(?:\x80[\x80-\x8f\xa8-\xaf]|\x81[\x9f-\xaf]|\xa0\x80)|\xe3(?:\x80\x80|\x85\xa4)"
    rb"|\xef(?:\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbb])"
    rb"|\xf0(?:\x9b\xb2[\xa0-\xa3]|\x9d\x85[\xb3-\xba])|\xf3\xa0[\x80-\xbf][\x80-\xbf]"
)
_GAPS = re.compile(rb"(?:[\x00-\x20\x7f]|" + _WIDE_GAPS + rb")+")
_BYTE = rb"[0-9a-fA-F]{2}"
# What squeezed bytes still hide: a pattern for RE2.
VEILS = rb"\\u" + _BYTE + _BYTE + rb"|\\x" + _BYTE + rb"|" + _WIDE_GAPS
# A character written as its number, or white space as its letter; backslashes are doubled in texts inside texts.
_WRITTEN = re.compile(
    rb"%(?P<percent>" + _BYTE + rb")|(?<!\\)\\++(?:x(?P<x>" + _BYTE + rb")"
    rb"|u(?P<high>[dD][89abAB]" + _BYTE + rb")\\++u(?P<low>[dD][c-fC-F]" + _BYTE + rb")"
    rb"|u(?P<u>" + _BYTE + _BYTE + rb")|(?P<gap>[bfnrt\n]))"
)
_IN_HEX = re.compile(rb"[0-9a-f]{16,}")

Span = tuple[int, int]


class UnfitSecret(ValueError):
    """The value cannot be kept out of outputs, so it must not be used as a secret: too short, too long, too many."""


class TooManySecrets(UnfitSecret):
    """Nothing is wrong with the value, but no more can be kept out of outputs at a time."""


class Squeezed:
    """A body as ``Needles.may_hold`` takes it.

    Attributes:
        quads: each four bytes of it in any case; None where it is long.
    """

    __slots__ = ("_body", "_decoded", "_text", "quads")

    def __init__(self, body: bytes) -> None:
        self._body = body
        # What shows as nothing is no veil without percent-encoding: as its numbers it is not seen.
        self._decoded = _GAPS.sub(b"", unquote_to_bytes(body)) if body.find(b"%") >= 0 else None
        self._text: bytes | None = None
        self.quads: Sequence[int] | None = None
        if len(body) <= 2 * _SHORT_BYTES:
            folded = body.translate(_SMALL, _FOLDED_OUT)
            if self._decoded is not None:
                folded += b"\0" + self._decoded.translate(_SMALL, _FOLDED_OUT)
            if len(folded) <= _SHORT_BYTES:
                self.quads = _quads(folded)

    @property
    def text(self) -> bytes:
        """Squeezed, and once more without percent-encoding if it has any; not looked at where ``quads`` will do."""
        if self._text is None:
            self._text = self._body.translate(None, _SQUEEZED_OUT)
            if self._decoded is not None:  # nothing that is searched holds a zero, so nothing is found across it
                self._text += b"\0" + self._decoded.translate(None, _SQUEEZED_OUT)
        return self._text


class Needles:
    """All encodings of a set of values, compiled; immutable."""

    __slots__ = ("_by_piece", "_everywhere", "_exact", "_quads", "_squeezed", "values")

    def __init__(self, values: Iterable[str], needles: Iterable[bytes] | None = None) -> None:
        """Compile: 0.1 ms a value where its ``encodings`` are given as ``needles``, otherwise 0.3.

        Raises:
            UnfitSecret: a value is shorter than 8 or longer than 16,384 bytes (white space not counted), or is part of
                a placeholder.
        """
        self.values = frozenset(values)
        wanted = {needle for value in self.values for needle in encodings(value)} if needles is None else set(needles)
        # By their pieces in small letters: hex digits may be written in either case.
        self._by_piece: dict[bytes, list[tuple[int, bytes, bool]]] = {}
        pieces, squeezed, folded = set[bytes](), set[bytes](), set[bytes]()
        for needle in wanted:
            at = (len(needle) - _PIECE) // 2
            piece, is_hex = needle[at : at + _PIECE], _IN_HEX.fullmatch(needle) is not None
            self._by_piece.setdefault(piece.lower(), []).append((at, needle, is_hex))
            pieces.add(_in_any_case(piece) if is_hex else re2.escape(piece))
            squeezed_piece = _squeezed_piece(needle)
            squeezed.add(_squeezed_pattern(squeezed_piece, is_hex=is_hex))
            folded.add(squeezed_piece.translate(_SMALL, _FOLDED_OUT))
        self._exact = _alternation(pieces)
        self._everywhere = b"" in squeezed
        self._squeezed = None if self._everywhere else _alternation(squeezed)
        self._quads = _quads_of_all(folded)

    def may_hold(self, body: Squeezed) -> bool:
        """Whether a body, squeezed, may hold a value: False is certain unless ``VEILS`` match in the body."""
        own, its = self._quads, body.quads
        if own is not None and its is not None and own.isdisjoint(its):
            return False
        return self._everywhere or (self._squeezed is not None and self._squeezed.search(body.text) is not None)

    def spans(self, data: bytes) -> list[Span]:
        """The places of all values in UTF-8 text, in order, not overlapping, white space inside included."""
        if len(data) < MIN_LENGTH:
            return []
        found = self._in_plain(data)
        if b"%" in data or b"\\" in data:
            found += self._in_written(data)
        return _merged(found)

    def _in_written(self, data: bytes) -> list[Span]:
        # An upstream can write megabytes as escapes: where they stand is only asked if a value is found among them.
        meant = _meant(data)
        found = [] if meant == data else self._in_plain(meant)
        if not found:
            return []
        places = _Places((*match.span(), len(_character(match))) for match in _WRITTEN.finditer(data))
        return [(places.first(start), places.last(end)) for start, end in found]

    def _in_plain(self, data: bytes) -> list[Span]:
        solid = data.translate(None, _ASCII_GAPS)
        found = list(self._found(solid if data.isascii() else _GAPS.sub(b"", solid)))
        if not found:
            return []
        places = _Places((*match.span(), 0) for match in _GAPS.finditer(data))
        return [(places.first(start), places.last(end)) for start, end in found]

    def _found(self, data: bytes) -> Iterator[Span]:
        start = 0
        while self._exact is not None and (match := self._exact.search(data, start)) is not None:
            start = match.start() + 1  # the next needle may overlap this one
            for at, needle, is_hex in self._by_piece[match.group().lower()]:
                first = match.start() - at
                last = first + len(needle)
                if first >= 0 and (data[first:last].lower() if is_hex else data[first:last]) == needle:
                    yield first, last


class _Places:
    """Maps places in an edited text to places in the text as it was."""

    __slots__ = ("_news", "_olds")

    def __init__(self, edits: Iterable[tuple[int, int, int]]) -> None:
        """``edits``: start and end of what was replaced, and the length of what stands there now."""
        self._news: list[int] = [0]  # where an edit begins and where it ends, in turns, in the edited text ...
        self._olds: list[int] = [0]  # ... and in the old one
        for start, end, length in edits:
            new = self._news[-1] + start - self._olds[-1]
            self._news += (new, new + length)
            self._olds += (start, end)

    def first(self, place: int) -> int:
        """Place of the byte at ``place``; where that is in an edit, of the edit's beginning."""
        at = bisect_right(self._news, place) - 1
        return self._olds[at] if at % 2 else self._olds[at] + place - self._news[at]

    def last(self, end: int) -> int:
        """Place just after the byte before ``end``; where that is in an edit, of the edit's end."""
        at = bisect_right(self._news, end - 1) - 1
        return self._olds[at + 1] if at % 2 else self._olds[at] + end - self._news[at]


def _meant(data: bytes) -> bytes:
    # Every character that is written as something else, as it is; each spelling is worked out once.
    known: dict[bytes, bytes] = {}

    def character(match: re.Match[bytes]) -> bytes:
        spelling = match[0]
        if spelling not in known:
            known[spelling] = _character(match)
        return known[spelling]

    return _WRITTEN.sub(character, data)


def _character(match: re.Match[bytes]) -> bytes:
    byte = match["percent"] or match["x"]
    if match["gap"]:
        return b" "
    if byte:
        return bytes.fromhex(byte.decode())
    units = (match["u"] or match["high"] + match["low"]).decode()
    return bytes.fromhex(units).decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _squeezed_piece(needle: bytes) -> bytes:
    # So much of the needle that a piece is left when it is squeezed; empty where too little is left to tell. The middle
    # tells secrets apart: tokens and PEM blocks begin and end alike.
    places = [place for place, byte in enumerate(needle) if byte not in _SQUEEZED_OUT]
    if len(places) < _PIECE // 2:
        return b""
    at = max(0, (len(places) - _SQUEEZED_PIECE) // 2)
    return needle[places[at] : places[min(at + _SQUEEZED_PIECE, len(places)) - 1] + 1]


def _squeezed_pattern(piece: bytes, *, is_hex: bool) -> bytes:
    if not is_hex:
        return bytes(re2.escape(piece.translate(None, _SQUEEZED_OUT)))
    # Only small letters are deleted; as capitals they may stand there.
    return _in_any_case(re.sub(b"([" + _LETTERS_OUT + b"])", rb"\1?", piece))


def _quads(folded: bytes) -> list[int]:
    # Four bytes each, as numbers; what is left over at the end is none.
    return memoryview(folded[: len(folded) // _QUAD * _QUAD]).cast("I").tolist()


def _quads_of_all(pieces: Iterable[bytes]) -> frozenset[int] | None:
    # One of these is among the quads of any folded text that holds one of the pieces, wherever it begins; None where
    # that cannot be said, or is said too often.
    found = set[int]()
    for piece in pieces:
        if len(piece) < 2 * _QUAD - 1:
            return None
        for shift in range(_QUAD):
            found.update(_quads(piece[shift : shift + _QUAD]))
    return frozenset(found) if len(found) <= _MOST_QUADS else None


def _in_any_case(pattern: bytes) -> bytes:
    return b"(?i:" + pattern + b")"


def _alternation(patterns: Iterable[bytes]) -> "re2._Regexp | None":
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes are bytes
    options.never_capture = True
    options.log_errors = False
    options.max_mem = 64 * 1024 * 1024
    pattern = b"|".join(sorted(patterns))
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
    forms = {raw, backwards, *_escaped(value), raw.replace(b" ", b"+"), binascii.hexlify(raw), *_base64(raw)}
    if solid != raw:
        forms |= {binascii.hexlify(solid), *_base64(solid)}
    return frozenset(_GAPS.sub(b"", form) for form in forms)


def _escaped(value: str) -> Iterator[bytes]:
    text = json.dumps(value, ensure_ascii=False)[1:-1]
    for form in (text, text.replace("/", "\\/")):
        yield form.encode("utf-8", "surrogatepass")


def _base64(raw: bytes) -> Iterator[bytes]:
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # Only characters all of whose bits come from the value: what stands before and after it is unknown.
        inner = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
