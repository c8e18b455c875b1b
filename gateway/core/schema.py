"""JSON Schema, compiled once and checked without network: arguments before policy, outputs before redaction.

Draft 2020-12 unless ``$schema`` names another known draft. Formats are annotations, as the drafts say. A reference that
leaves the document is refused when the schema is loaded: fetching it would let whoever wrote the schema make the
gateway send requests, and change the contract later.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema_rs

MAX_PROBLEMS = 8
_MAX_TEXT = 80
# jsonschema_rs collects all errors of a value before it hands out the first (9 us each, with a copy of the value), so a
# hostile value could buy seconds; beyond this many nodes only the first problem is told.
_MAX_NODES = 1_000
# Bounds the backtracking of look-around and back-reference patterns; plain patterns run in linear time.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


class SchemaRefused(ValueError):
    """The schema cannot be used: invalid, of an unknown draft, or with a reference that leaves the document."""


class Checker:
    """A compiled schema."""

    __slots__ = ("_validator",)

    def __init__(self, validator: jsonschema_rs.Validator) -> None:
        self._validator = validator

    def accepts(self, value: Any) -> bool:
        """Whether the value keeps the schema."""
        try:
            return self._validator.is_valid(value)
        except (ValueError, RecursionError):  # no JSON (a key that is no string), or nested beyond any use
            return False

    def problems(self, value: Any) -> list[str]:
        """What is wrong, at most ``MAX_PROBLEMS`` sentences; empty when the value keeps the schema.

        Each is a JSON pointer into the value and the rule broken there; values are never quoted, names of unexpected
        members are, cut short.
        """
        if self.accepts(value):
            return []
        return [_sentence(error) for error in self._errors(value)] or ["/: cannot be read as JSON"]

    def rules(self, value: Any) -> list[str]:
        """The schema's own side of the same: pointers of the broken rules. Holds nothing of the value."""
        return [_pointer(error.schema_path) for error in self._errors(value)]

    def _errors(self, value: Any) -> list[jsonschema_rs.ValidationError]:
        try:
            if _is_small(value):
                return list(itertools.islice(self._validator.iter_errors(value), MAX_PROBLEMS))
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [error]
        except (ValueError, RecursionError):
            return []
        return []


def compile(schema: Any) -> Checker:  # noqa: A001 - reads as schema.compile
    """Compile a schema.

    Raises:
        SchemaRefused: it cannot be used; the message is the library's own and names no host that was asked, as none is.
    """
    if not isinstance(schema, bool | Mapping):
        raise SchemaRefused("a schema is an object or a boolean")
    document = schema if isinstance(schema, bool) else dict(schema)
    try:
        validator = jsonschema_rs.validator_for(document, retriever=_never, pattern_options=_PATTERNS)
    except (ValueError, RecursionError) as error:
        raise SchemaRefused(str(error).partition("\n")[0][:200]) from None
    return Checker(validator)


def _never(uri: str) -> dict[str, Any]:
    raise SchemaRefused(f"the schema refers to {uri!r}: references must stay inside the document")


def _is_small(value: Any) -> bool:
    level, seen = [value], 0
    while level:
        item = level.pop()
        seen += 1
        if seen + len(level) > _MAX_NODES:
            return False
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
    return True


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    return f"{_pointer(error.instance_path) or '/'}: {_rule(error.kind)}"


def _pointer(path: Iterable[str | int]) -> str:
    return _cut("".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path))


def _rule(kind: jsonschema_rs.ValidationErrorKind) -> str:
    # Only what the schema says is told, except for the names of members nobody asked for.
    facts = kind.as_dict()
    rules: dict[str, tuple[str, str]] = {
        "required": ("lacks", "property"),
        "additionalProperties": ("has unexpected members", "unexpected"),
        "unevaluatedProperties": ("has unexpected members", "unexpected"),
        "type": ("must be of type", "types"),
        "enum": ("must be one of", "options"),
        "pattern": ("must match", "pattern"),
    }
    words, fact = rules.get(kind.name, (f"breaks {kind.name}", "limit"))
    if fact not in facts:
        return words
    told = facts[fact]
    return f"{words} {_names(told if isinstance(told, list) else [told])}"


def _names(items: Iterable[Any]) -> str:
    return _cut(", ".join(repr(_cut(str(item))) for item in itertools.islice(items, MAX_PROBLEMS)))


def _cut(text: str) -> str:
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: _MAX_TEXT + 1])
    return clean if len(clean) <= _MAX_TEXT else f"{clean[:_MAX_TEXT]}..."
