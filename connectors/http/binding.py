"""What a catalogue entry says about one HTTP request, and the request made from it and a call's arguments.

The agent chooses values, never structure: path parameters are percent-encoded whole and cannot add, remove or climb
segments; an argument that is named nowhere is refused rather than dropped, as policy decided on all of them; numbers
are sent by the lexeme they arrived with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from gateway.core.canonical import Arguments, encode, parse
from gateway.core.errors import NotSent
from gateway.core.tool import Tool

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
MAX_TARGET_BYTES = 8_000
_MEMBERS = frozenset({"method", "path", "query", "body", "success", "idempotency_header"})
_PARAMETER = re.compile(r"\{([A-Za-z0-9_.-]+)\}")
_LITERAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_KEY_FIELD = re.compile(r"(?i:idempotency-key|x-[a-z0-9-]+)")
_MAX_DECODINGS = 5

Rest = Literal["rest"]


@dataclass(frozen=True, slots=True)
class Route:
    """One declared request.

    Attributes:
        method: upper case.
        pieces: path template cut at its parameters: literal, name, literal, name ... literal.
        query: arguments sent in the query string; an array becomes a repeated parameter, a missing one is left out.
        body: arguments sent as members of a JSON object: names, or ``rest`` for all not named elsewhere; empty = none.
        success: statuses that are a success; empty = 200 to 299.
        idempotency_header: header field that carries the call id, so that the upstream can tell a repetition.
    """

    method: str
    pieces: tuple[str, ...]
    query: tuple[str, ...] = ()
    body: tuple[str, ...] | Rest = ()
    success: frozenset[int] = frozenset()
    idempotency_header: str | None = None

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of the path parameters."""
        return self.pieces[1::2]

    def succeeds(self, status: int) -> bool:
        """Whether the upstream's status is a success."""
        return status in self.success if self.success else 200 <= status < 300  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Request:
    """A request ready to be sent.

    Attributes:
        target: path and query, encoded.
        body: JSON text, or None.
    """

    target: str
    body: bytes | None


def route(binding: Mapping[str, Any]) -> Route:
    """The route a binding declares.

    Raises:
        ValueError: it declares none; the message says what is wrong.
    """
    unknown = sorted(binding.keys() - _MEMBERS)
    if unknown:
        raise ValueError(f"unknown keys {unknown}")
    method = str(binding.get("method", "")).upper()
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}")
    header = binding.get("idempotency_header")
    if header is not None and not _KEY_FIELD.fullmatch(str(header)):
        raise ValueError("idempotency_header is no field for an idempotency key")
    body = binding.get("body") or ()
    found = Route(
        method=method,
        pieces=_pieces(str(binding.get("path", ""))),
        query=_names(binding.get("query") or ()),
        body="rest" if body == "rest" else _names(body),
        success=frozenset(int(status) for status in binding.get("success") or ()),
        idempotency_header=header,
    )
    named = [*found.in_path, *found.query, *(found.body if found.body != "rest" else ())]
    if len(set(named)) != len(named):
        raise ValueError("an argument is used twice")
    if found.body and method in {"GET", "HEAD"}:
        raise ValueError(f"{method} has no body")
    return found


def check(tool: Tool) -> list[str]:
    """What is wrong with the binding of a tool, held against its input schema; empty = nothing."""
    try:
        found = route(tool.binding)
    except (TypeError, ValueError) as error:
        return [f"{tool.fqn}: {error}"]
    schema = tool.definition.get("inputSchema", {})
    declared = set(schema.get("properties", {}))
    named = {*found.in_path, *found.query, *(found.body if found.body != "rest" else ())}
    problems = [f"uses {name!r}, which the schema does not declare" for name in sorted(named - declared)]
    problems += [f"{name!r} is in the path and must be required" for name in _optional(found.in_path, schema)]
    if found.body != "rest":
        problems += [f"{name!r} is declared and sent nowhere" for name in sorted(declared - named)]
        if schema.get("additionalProperties") is not False:
            problems.append("the schema must say additionalProperties: false, as nothing else is sent")
    return [f"{tool.fqn}: {problem}" for problem in problems]


def request(found: Route, arguments: Arguments) -> Request:
    """The request for one call.

    Raises:
        NotSent: the arguments do not fit the route (``cause_code`` is ``argument``); the schema should have said so.
    """
    if found.body == "rest" and len(found.pieces) == 1 and not found.query:
        return Request(found.pieces[0], arguments.canonical)
    exact: dict[str, Any] = dict(parse(arguments.canonical).exact)
    path = _path(found, exact)
    query = "&".join(pair for name in found.query if name in exact for pair in _pairs(name, exact.pop(name)))
    target = f"{path}?{query}" if query else path
    if len(target) > MAX_TARGET_BYTES:
        raise _misfit("the path and query are too long")
    return Request(target, _body(found, exact))


def _path(found: Route, exact: dict[str, Any]) -> str:
    parts = [found.pieces[0]]
    for name, literal in zip(found.pieces[1::2], found.pieces[2::2], strict=True):
        parts += [_segment(name, exact.pop(name, None)), literal]
    return "".join(parts)


def _segment(name: str, value: Any) -> str:
    text = _scalar(name, value)
    plain = text
    # Upstreams that decode twice must not find a separator either.
    for _ in range(_MAX_DECODINGS):
        if not plain or plain in {".", ".."} or any(char in "/\\" or ord(char) < 0x20 for char in plain):  # noqa: PLR2004
            raise _misfit(f"{name!r} cannot be a path parameter")
        plain, before = unquote(plain), plain
        if plain == before:
            return quote(text, safe="")
    raise _misfit(f"{name!r} cannot be a path parameter")


def _pairs(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [f"{quote(name, safe='')}={quote(_scalar(name, item), safe='')}" for item in values]


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, int):
        return str(value)
    raise _misfit(f"{name!r} must be a string, number or boolean here")


def _body(found: Route, left: dict[str, Any]) -> bytes | None:
    if found.body != "rest" and left.keys() - set(found.body):
        raise _misfit("an argument is sent nowhere")
    return encode(left) if found.body else None


def _misfit(detail: str) -> NotSent:
    return NotSent(detail, cause_code="argument")


def _pieces(template: str) -> tuple[str, ...]:
    pieces = tuple(_PARAMETER.split(template))
    if not template.startswith("/") or not all(_LITERAL.fullmatch(literal) for literal in pieces[::2]):
        raise ValueError("path must start with / and hold only path characters and {parameters}")
    segments = template.split("/")[1:]
    if any(unquote(segment) in {".", ".."} for segment in segments) or "" in segments[:-1]:
        raise ValueError("path must have no empty and no dot segments")
    return pieces


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ValueError("query and body are lists of argument names (or body = rest)")
    return tuple(value)


def _optional(names: tuple[str, ...], schema: Mapping[str, Any]) -> list[str]:
    return sorted(set(names) - set(schema.get("required", ())))
