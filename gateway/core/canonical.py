"""Strict JSON in, canonical JSON out.

Parsers disagree silently about duplicate keys, case, NaN, lone surrogates and big numbers, and whoever finds two that
disagree walks past the policy. So one parser reads the request, refuses everything ambiguous, and the canonical
re-serialisation of what it read is the only thing that is decided on, digested and forwarded.

Canonical form: UTF-8, keys sorted by code point, no white space, numbers by the lexeme they arrived with.
"""

import hashlib
import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from msgspec import Struct

from gateway.core.errors import GatewayError, InvalidArguments, MalformedRequest, TooLarge

MAX_DEPTH = 64
# Containers and commas of one body: together they bound how many values the readers in Python see.
MAX_PARTS = 32_768
MAX_SAFE_INTEGER = 2**53
_ENCODER = msgspec.json.Encoder(order="sorted")
# Canonical bytes of our own documents (ASCII keys, no floats): equal to RFC 8785 under those rules.
encode: Callable[[Any], bytes] = _ENCODER.encode


class Json(Struct, frozen=True):
    """One parsed JSON value.

    Attributes:
        value: plain Python (dict, list, str, int, float, bool, None).
        exact: the same tree with each non-integer number replaced by its lexeme; what is serialised.
    """

    value: Any
    exact: Any

    def member(self, key: str) -> "Json":
        """The member ``key`` of an object, or the JSON null where there is none (or where this is no object)."""
        if isinstance(self.value, dict) and key in self.value:
            return Json(self.value[key], self.exact[key])
        return Json(None, None)


class Arguments(Struct, frozen=True):
    """The arguments of one call, as decided on and as sent.

    Attributes:
        value: JSON object as plain Python; read only.
        canonical: canonical UTF-8 JSON, forwarded verbatim.
        digest: SHA-256 of ``canonical``, lower-case hex.
        big_integers: whether a number beyond 2^53 occurs, however it is written (only tools that declare
            ``big_integers`` take them).
    """

    value: dict[str, Any]
    canonical: bytes
    digest: str
    big_integers: bool = False


def parse(body: bytes) -> Json:
    """Parse an untrusted body.

    Raises:
        MalformedRequest: not UTF-8, not JSON, duplicate or case-colliding keys, NaN or Infinity, a number out of range
            or with more digits than a double keeps, NUL or a lone surrogate in a string.
        TooLarge: nested deeper than ``MAX_DEPTH``, or more than ``MAX_PARTS`` containers and commas.
    """
    if len(body) > MAX_PARTS:  # what is shorter cannot have more
        _check_parts(body)
    value = as_written(body)
    document = _read(body) if value is UNSURE else Json(value, value)
    # Cheap test first: only a body with that many brackets can be too deep.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(document.value)
    # NUL and surrogates can only arrive as \u escapes (UTF-8 and JSON refuse the raw forms).
    if body.find(b"\\u") >= 0:
        _check_strings(document.value)
    return document


def arguments(document: Json) -> Arguments:
    """The ``Arguments`` of a parsed JSON object (null counts as the empty object).

    Raises:
        InvalidArguments: the value is not an object.
    """
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise InvalidArguments("arguments must be a JSON object", cause_code="type")
    exact = {} if document.value is None else document.exact
    canonical = _ENCODER.encode(exact)
    digest = hashlib.sha256(canonical).hexdigest()
    return Arguments(value, canonical, digest, _MAYBE_BIG.search(canonical) is not None and _has_big_number(value))


def policy_view(canonical: bytes) -> Any:
    """A canonical document as policy reads it: numbers beyond 2^53 are strings of their lexemes, since engines round.

    Every other number keeps its lexeme: what is decided on is what is sent. For ``encode`` and ``msgspec`` only.
    """
    return _VIEW.decode(canonical.decode("utf-8"))


# What may be a number whose lexeme Python would not give back: a fraction or exponent, 16 digits or more, minus zero.
# A hit inside a string only costs a second look; versions and dates, which come with every call, are none. After nine
# characters nothing more is asked: no body makes it look back.
_INEXACT = re.compile(r"[0-9](?:[.eE](?:[0-9eE+-]{0,8}+(?:[\s,}\]]|\Z)|[0-9eE+-]{9})|[0-9]{15}|(?<=-0)(?![0-9]))")


def _fraction(lexeme: str) -> float:
    raise ValueError(lexeme)  # the reader in Python keeps it


_WRITER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(float_hook=_fraction)
# What ``as_written`` says of a body that another reader has to judge.
UNSURE = object()


def as_written(body: bytes) -> Any:
    """The value of a body that is written as our own writer would, or ``UNSURE``.

    ``parse`` makes the same of it, once depth and strings were looked at.
    """
    # Most bodies are written as our own writer would: then nothing in them is ambiguous, and the reader in Python need
    # not look at each object. A key that came twice would be missing from what is written again; two keys that differ
    # in case would be one once all text is folded. Escapes that hide a letter are none that the writer uses.
    try:
        value = _DECODER.decode(body)
        if _WRITER.encode(value) != body:
            return UNSURE
        folded = body.lower() if body.isascii() else body.decode("utf-8").casefold().encode("utf-8")
        if folded != body and _WRITER.encode(_DECODER.decode(folded)) != folded:
            return UNSURE
    except (ValueError, RecursionError):  # the other reader says what is wrong
        return UNSURE
    return value


def _read(body: bytes) -> Json:
    try:
        text = body.decode("utf-8")
        value = _PLAIN.decode(text)
        return Json(value, _EXACT.decode(text) if _INEXACT.search(text) else value)
    except GatewayError:
        raise
    except RecursionError:
        raise TooLarge(f"JSON is nested deeper than {MAX_DEPTH} levels", cause_code="depth") from None
    except ValueError as error:
        raise MalformedRequest(f"not JSON: {_position(error)}", cause_code="json") from None


# Any number beyond 2^53 has as many digits, or an exponent; so may strings.
_MAYBE_BIG = re.compile(rb"[0-9](?:[0-9]{15}|[eE])")
# A point and up to 15 digits without an exponent: a double keeps them.
_PLAIN_FRACTION = 16
# The longest lexeme of a fraction that is looked at; the shortest form of any double has at most 24 characters.
_MAX_LEXEME = 64


def _is_inexact(lexeme: str) -> bool:
    # 15 digits are always below 2^53 and within 64 bits; "-0" would come back as "0".
    return len(lexeme) > 15 or lexeme == "-0"  # noqa: PLR2004


def _exact_integer(lexeme: str) -> int | msgspec.Raw:
    return msgspec.Raw(lexeme.encode()) if _is_inexact(lexeme) else int(lexeme)


def _double(lexeme: str) -> float:
    number = float(lexeme)
    if number in (float("inf"), float("-inf")):
        raise MalformedRequest("a number is out of range", cause_code="number")
    # What policy compares is the double, what is sent is the lexeme: they must be one number.
    is_plain = len(lexeme) <= _PLAIN_FRACTION and "e" not in lexeme and "E" not in lexeme
    if not is_plain and repr(number) != lexeme and not _is_same(number, lexeme):
        raise MalformedRequest("a number has more digits than a double keeps", cause_code="number")
    return number


def _is_same(number: float, lexeme: str) -> bool:
    if len(lexeme) > _MAX_LEXEME:
        return False
    try:
        return Decimal(repr(number)) == Decimal(lexeme)
    except InvalidOperation:  # an exponent beyond anything; the double is then zero
        return False


def _viewed(lexeme: str) -> str | msgspec.Raw:
    return lexeme if abs(float(lexeme)) > MAX_SAFE_INTEGER else msgspec.Raw(lexeme.encode())


def _viewed_integer(lexeme: str) -> str | msgspec.Raw:
    # Not by ``float``, which rounds 2^53 + 1 down.
    return lexeme if abs(int(lexeme)) > MAX_SAFE_INTEGER else msgspec.Raw(lexeme.encode())


def _constant(name: str) -> float:
    raise MalformedRequest(f"{name} is not JSON", cause_code="number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(pairs) <= 1:
        return members
    if len(members) != len(pairs):
        raise MalformedRequest("an object has the same key twice", cause_code="duplicate_key")
    if len(set(map(str.casefold, members))) != len(members):
        raise MalformedRequest("an object has two keys that differ only in case", cause_code="duplicate_key")
    return members


_PLAIN = json.JSONDecoder(object_pairs_hook=_object, parse_float=_double, parse_constant=_constant)
_EXACT = json.JSONDecoder(
    object_pairs_hook=dict, parse_float=lambda lexeme: msgspec.Raw(lexeme.encode()), parse_int=_exact_integer
)
_VIEW = json.JSONDecoder(parse_float=_viewed, parse_int=_viewed_integer)


def _position(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "a number is out of range"


# A whole string, or the rest of the body where it does not end; possessive, so that no body makes it look back.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def _check_parts(body: bytes) -> None:
    # Most bodies are cleared by counting bytes; only where strings might hold the excess they are left out.
    if parts(body) > MAX_PARTS and parts(_STRING.sub(b"", body)) > MAX_PARTS:
        raise TooLarge(f"JSON has more than {MAX_PARTS} containers and commas", cause_code="parts")


def parts(body: bytes) -> int:
    """How many containers and commas there are, those in strings among them."""
    return body.count(b"{") + body.count(b"[") + body.count(b",")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise TooLarge(f"JSON is nested deeper than {MAX_DEPTH} levels", cause_code="depth")
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]


def _check_strings(value: Any) -> None:
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            _check_string(item)
        elif isinstance(item, dict):
            level += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            level += item


_NUL_OR_SURROGATE = re.compile("[\x00\ud800-\udfff]")


def _check_string(item: str) -> None:
    found = _NUL_OR_SURROGATE.search(item)
    if found is None:
        return
    if found[0] == "\x00":
        raise MalformedRequest("a string holds U+0000", cause_code="nul")
    raise MalformedRequest("a string holds a lone surrogate", cause_code="surrogate")


def _has_big_number(value: Any) -> bool:
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
        elif isinstance(item, int | float) and abs(item) > MAX_SAFE_INTEGER:  # a double that large is an integer
            return True
    return False
