"""How values travel in MCP header fields (revision 2026-07-28): the base64 wrapping and the ``Mcp-Param-*`` fields.

Headers only help those who route; policy is decided from the body, and a header that says something else is refused.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.core.mcpwire.eras import PARAM_ANNOTATION, PARAM_HEADER_PREFIX

_WRAPPED: Final = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
# What may stand in a field as it is; a byte beyond it is read as this letter by one reader and as that one by another.
_VISIBLE: Final = re.compile(r"[\x20-\x7e\t]*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,32}(?:\.[0-9]{1,32})?")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})

Path = tuple[str, ...]
Scalar = str | int | float | bool


def wrap(value: str) -> str:
    """``value`` as a header field: verbatim where it survives the trip, else ``=?base64?...?=``."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _WRAPPED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def unwrap(field: str) -> str | None:
    """What a header field says, or None where its wrapping is malformed or it holds what has to be wrapped."""
    match = _WRAPPED.fullmatch(field)
    if match is None:
        return field if _VISIBLE.fullmatch(field) else None
    try:
        raw = base64.b64decode(match[1], validate=True)
        # Only the canonical form: two spellings of one value are two chances to disagree.
        return raw.decode() if base64.b64encode(raw).decode() == match[1] else None
    except (binascii.Error, ValueError):
        return None


def says(field: str, value: Scalar) -> bool:
    """Whether a field says this argument; a number may be spelled otherwise (``42.0`` is ``42``)."""
    said = unwrap(field)
    if said is None:
        return False
    if isinstance(value, str | bool) or not _NUMBER.fullmatch(said):
        return said == _text(value)
    return Decimal(said) == Decimal(str(value))


def annotated(schema: Any) -> dict[Path, str]:
    """Header name (lower case, with its prefix) of each argument the schema wants repeated in a header, by path.

    Empty where there is none, and where an annotation is malformed (bad token, wrong type, same name twice): such a
    tool's headers mean nothing, and clients send none.
    """
    return _annotated(schema) or {}


def is_misannotated(schema: Any) -> bool:
    """Whether an annotation is malformed: of an upstream of the stateless era such a tool is not taken."""
    return _annotated(schema) is None


def _annotated(schema: Any) -> dict[Path, str] | None:
    found: dict[Path, str] = {}
    for path, part in _properties(schema):
        token = part.get(PARAM_ANNOTATION)
        if token is None:
            continue
        kind = part.get("type")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not isinstance(kind, str) or kind not in _TYPES:
            return None
        found[path] = PARAM_HEADER_PREFIX + token.lower()
    return found if len(set(found.values())) == len(found) else None


def param_values(names: Mapping[Path, str], arguments: Mapping[str, Any]) -> dict[str, Scalar]:
    """What the ``mcp-param-*`` fields repeat of these arguments, by header name; absent and null ones have none."""
    found = {name: _at(arguments, path) for path, name in names.items()}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def param_fields(names: Mapping[Path, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The ``mcp-param-*`` fields for these arguments, by header name."""
    return {name: wrap(_text(value)) for name, value in param_values(names, arguments).items()}


def _properties(schema: Any) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    # Only what a plain chain of ``properties`` reaches: elsewhere an argument's path is not known.
    level: list[tuple[Path, Any]] = [((), schema)]
    while level:
        path, part = level.pop()
        if not isinstance(part, Mapping):
            continue
        if path:
            yield path, part
        inner = part.get("properties")
        if isinstance(inner, Mapping):
            level += [((*path, name), child) for name, child in inner.items()]


def _at(arguments: Any, path: Path) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, Mapping) else None
    return arguments


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
