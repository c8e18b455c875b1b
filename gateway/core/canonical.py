"""Strict JSON in, canonical JSON out.

Parsers disagree silently about duplicate keys, case, NaN, lone surrogates and big numbers, and whoever finds two that
disagree walks past the policy. So one parser reads the request, refuses everything ambiguous, and the canonical
re-serialisation of what it read is the only thing that is decided on, digested and forwarded.

Canonical form: UTF-8, keys sorted by code point, no white space, numbers by the lexeme they arrived with.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.core.errors import GatewayError, InvalidArguments, MalformedRequest, TooLarge

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53
_ENCODER = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class Json:
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


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, as decided on and as sent.

    Attributes:
        value: JSON object as plain Python; read only.
        canonical: canonical UTF-8 JSON, forwarded verbatim.
        digest: SHA-256 of ``canonical``, lower-case hex.
        big_integers: whether an integer beyond 2^53 occurs (only tools that declare ``big_integers`` take them).
    """

    value: dict[str, Any]
    canonical: bytes
    digest: str
    big_integers: bool = False


def encode(value: Any) -> bytes:
    """Canonical bytes of our own documents (ASCII keys, no floats): equal to RFC 8785 under those rules."""
    return _ENCODER.encode(value)


def parse(body: bytes) -> Json:
    """Parse an untrusted body.

    Raises:
        MalformedRequest: not UTF-8, not JSON, duplicate or case-colliding keys, NaN or Infinity, a number out of range,
            NUL or a lone surrogate in a string.
        TooLarge: nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = body.decode("utf-8")
        value = _PLAIN.decode(text)
        exact = _EXACT.decode(text) if _INEXACT.search(text) else value
    except GatewayError:
        raise
    except RecursionError:
        raise TooLarge(f"JSON is nested deeper than {MAX_DEPTH} levels", cause_code="depth") from None
    except ValueError as error:
        raise MalformedRequest(f"not JSON: {_position(error)}", cause_code="json") from None
    # Cheap test first: only a body with that many brackets can be too deep.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    _check_strings(value, text)
    return Json(value, exact)


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
    return Arguments(value, canonical, digest, exact is not value and _has_big_integer(value))


def policy_view(value: Any) -> Any:
    """``value`` as policy reads it: integers beyond 2^53 become strings, as engines would round them silently."""
    if isinstance(value, dict):
        return {key: policy_view(item) for key, item in value.items()}
    if isinstance(value, list):
        return [policy_view(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_SAFE_INTEGER:
        return str(value)
    return value


# What may be a number whose lexeme Python would not give back: a fraction or exponent, 16 digits or more, minus zero.
# A hit inside a string only costs a second look.
_INEXACT = re.compile(r"[0-9][.eE]|[0-9]{16}|-0")


def _is_inexact(lexeme: str) -> bool:
    # 15 digits are always below 2^53 and within 64 bits; "-0" would come back as "0".
    return len(lexeme) > 15 or lexeme == "-0"  # noqa: PLR2004


def _exact_integer(lexeme: str) -> int | msgspec.Raw:
    return msgspec.Raw(lexeme.encode()) if _is_inexact(lexeme) else int(lexeme)


def _finite(lexeme: str) -> float:
    number = float(lexeme)
    if number in (float("inf"), float("-inf")):
        raise MalformedRequest("a number is out of range", cause_code="number")
    return number


def _constant(name: str) -> float:
    raise MalformedRequest(f"{name} is not JSON", cause_code="number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(pairs) < 2:  # noqa: PLR2004
        return members
    if len(members) != len(pairs):
        raise MalformedRequest("an object has the same key twice", cause_code="duplicate_key")
    if len({key.casefold() for key in members}) != len(members):
        raise MalformedRequest("an object has two keys that differ only in case", cause_code="duplicate_key")
    return members


_PLAIN = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_constant)
_EXACT = json.JSONDecoder(
    object_pairs_hook=dict, parse_float=lambda lexeme: msgspec.Raw(lexeme.encode()), parse_int=_exact_integer
)


def _position(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "a number is out of range"


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


def _check_strings(value: Any, text: str) -> None:
    # NUL and surrogates can only arrive as \u escapes (UTF-8 and JSON refuse the raw forms).
    if "\\u0000" not in text and "\\ud" not in text and "\\uD" not in text:
        return
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            _check_string(item)
        elif isinstance(item, dict):
            level += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            level += item


def _check_string(item: str) -> None:
    if "\x00" in item:
        raise MalformedRequest("a string holds U+0000", cause_code="nul")
    if any("\ud800" <= char <= "\udfff" for char in item):
        raise MalformedRequest("a string holds a lone surrogate", cause_code="surrogate")


def _has_big_integer(value: Any) -> bool:
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
        elif isinstance(item, int) and not isinstance(item, bool) and abs(item) > MAX_SAFE_INTEGER:
            return True
    return False
