"""Schemas of OpenAPI 3.0 and 3.1 as whole JSON Schemas of draft 2020-12: no references, no members nobody checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli.openapi.document import At, Document

# One operation, all its schemas unfolded: references into references multiply.
MOST_NODES: Final = 5_000
DEEPEST: Final = 48
_PLAIN: Final = frozenset(
    {
        "const", "contentEncoding", "contentMediaType", "default", "dependentRequired", "description", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems", "maxLength", "maxProperties",
        "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "pattern",
        "required", "title", "type", "uniqueItems",
    }
)  # fmt: skip
_ONE: Final = frozenset(
    {
        "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems",
        "unevaluatedProperties",
    }
)  # fmt: skip
_MANY: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"dependentSchemas", "patternProperties", "properties"})
_BESIDE: Final = frozenset({"deprecated", "discriminator", "example", "examples", "externalDocs", "xml", "$comment"})
_DIRECTIONS: Final = frozenset({"nullable", "readOnly", "writeOnly", "$ref"})


@dataclass(slots=True)
class Unfolding:
    """Unfolds the schemas of one operation.

    Attributes:
        document: the whole.
        hides: the mark of properties that do not travel in this direction: ``readOnly`` or ``writeOnly``.
        nodes: how many schemas it has unfolded.
        depth: how many it is in the middle of.
    """

    document: Document
    hides: str
    nodes: int = 0
    depth: int = 0

    def schema(self, at: At) -> Any:
        """The whole schema at ``at``.

        Raises:
            Refused: a reference that leaves the document or goes in a circle, a keyword that is not understood, too
                many schemas.
        """
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise at.refused("too_large", f"more than {MOST_NODES} schemas in one operation, references unfolded")
        if self.depth >= DEEPEST:
            raise at.refused("too_deep", f"more than {DEEPEST} schemas inside each other, references unfolded")
        self.depth += 1
        try:
            return self._unfolded(at)
        finally:
            self.depth -= 1

    def _unfolded(self, at: At) -> Any:
        if isinstance(at.value, bool):
            return at.value
        if not isinstance(at.value, dict):
            raise at.refused("schema", "a schema is an object or a boolean")
        found = self.document.followed(at)
        if found is at:
            return self._whole(at)
        beside = {} if self.document.is_old else {key: one for key, one in at.value.items() if key != "$ref"}
        referred = self.schema(found)
        if not beside:
            return referred
        own = self._whole(At(at.pointer, beside, at.chain))
        both = own if referred is True else {**own, "allOf": [*own.get("allOf", ()), referred]} if own else referred
        _not_required(both, self._hidden(at))
        return both

    def _whole(self, at: At) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, member in at.members():
            if key in _PLAIN:
                found[key] = _formed(key, member)
            elif key in _ONE:
                found[key] = self.schema(member)
            elif key in _MANY:
                found[key] = [self.schema(item) for item in member.items()]
            elif key in _NAMED:
                found[key] = {name: self.schema(one) for name, one in member.members() if not self._is_hidden(one)}
            elif key not in _BESIDE | _DIRECTIONS and not key.startswith("x-"):
                raise member.refused("keyword", f"the schema keyword {key[:40]!r} is not understood")
        _not_required(found, self._hidden(at))
        return _modern(at, found) if self.document.is_old else found

    def _is_hidden(self, at: At) -> bool:
        found = self.document.followed(at)
        return any(one.has(self.hides) and one.value[self.hides] is True for one in (at, found))

    def _hidden(self, at: At) -> set[str]:
        """Names that do not travel: of members at ``at``, of parts of its ``allOf``, of what it refers to."""
        found = self.document.followed(at)
        referred = set() if found is at else self._hidden(found)
        if found is not at and self.document.is_old:
            return referred
        hidden = {name for name, one in at.member("properties").members() if self._is_hidden(one)}
        return hidden.union(referred, *map(self._hidden, at.member("allOf").items()))


def _not_required(found: Any, hidden: set[str]) -> None:
    """Require none of ``hidden`` in ``found``, nor in the parts of its ``allOf``: one may require another's members."""
    if not hidden or not isinstance(found, dict):
        return
    if isinstance(found.get("required"), list):
        found["required"] = [name for name in found["required"] if name not in hidden]
    for part in found.get("allOf", ()):
        _not_required(part, hidden)


def _formed(key: str, member: At) -> Any:
    # What is read here; the rest its own reader judges.
    value = member.value
    names = value if isinstance(value, list) else [value]
    if key in {"type", "required"} and not all(isinstance(name, str) for name in names):
        raise member.refused("schema", f"{key} is not of names")
    if key in {"required", "enum"} and not isinstance(value, list):
        raise member.refused("schema", f"{key} is no list")
    return value


def _modern(at: At, found: dict[str, Any]) -> dict[str, Any]:
    for least, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(strict), bool):
            is_strict = found.pop(strict)
            if is_strict and least in found:
                found[strict] = found.pop(least)
    if at.value.get("nullable") is not True:
        return found
    if isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        if "enum" in found and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]
        return found
    return {"anyOf": [found, {"type": "null"}]} if found else found


def types(schema: Any) -> frozenset[str]:
    """The types that a schema names; empty where it names none."""
    said = schema.get("type") if isinstance(schema, dict) else None
    return frozenset([said] if isinstance(said, str) else said if isinstance(said, list) else ())


def without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` for a place where there is no null: a parameter is there or not."""
    found = dict(schema)
    if isinstance(found.get("type"), list):
        left = [one for one in found["type"] if one != "null"]
        found["type"] = left[0] if len(left) == 1 else left
    if isinstance(found.get("enum"), list):
        found["enum"] = [one for one in found["enum"] if one is not None]
    return found


_NOT_FLAT: Final = frozenset(
    {
        "anyOf", "const", "dependentRequired", "dependentSchemas", "enum", "if", "not", "oneOf", "patternProperties",
        "propertyNames", "unevaluatedProperties",
    }
)  # fmt: skip


def _is_closed(part: Mapping[str, Any]) -> bool:
    # Such a part forbids the members of the others, too.
    return part.get("additionalProperties") is False


def flat(schema: Mapping[str, Any], clash: Callable[[str], Exception]) -> dict[str, Any] | None:
    """An object schema whose members are all named, parts of ``allOf`` joined; None where it is none.

    ``clash`` makes the error of a member that two parts describe in different ways.
    """
    parts = schema.get("allOf", ())
    if schema.keys() & _NOT_FLAT or any(isinstance(part, dict) and _is_closed(part) for part in parts):
        return None
    if types(schema) - {"object", "null"} or isinstance(schema.get("additionalProperties"), dict):
        return None
    properties, required = dict(schema.get("properties", {})), list(schema.get("required", ()))
    for part in parts:
        inner = flat(part, clash) if isinstance(part, dict) else None
        if inner is None:
            return None
        for name, one in inner["properties"].items():
            if properties.setdefault(name, one) != one:
                raise clash(name)
        required += inner["required"]
    if not properties and not types(schema):
        return None
    return {"properties": properties, "required": list(dict.fromkeys(required))}
