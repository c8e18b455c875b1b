"""The shipped JSON Schemas of what policy reads and says, and whether a path can be there at all.

The document policy reads is closed: a member the schema does not name is in no input. ``args`` is free.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

INPUT: Final = "policy-input.v1"
DECISION: Final = "policy-decision.v1"
NAMES: Final = (INPUT, DECISION)
# Keywords by which a schema says more than is looked at here: below it anything may be.
_OPEN: Final = ("allOf", "patternProperties", "unevaluatedProperties", "$dynamicRef")


def text(name: str) -> str:
    """The text of one schema, as it is shipped; ``name`` is of ``NAMES``."""
    return files("gateway").joinpath("schemas", f"{name}.json").read_text("utf-8")


def unknown(path: Sequence[str]) -> int | None:
    """The place in ``path``, names below ``input``, of the first step that no input document has; None = all may be."""
    for length in range(1, len(path) + 1):
        if not any(True for _ in _below(_input(), path[:length])):
            return length - 1
    return None


def members(path: Sequence[str]) -> frozenset[str]:
    """The members that an input document may have at ``path``, as far as the schema names them."""
    return frozenset(name for found in _below(_input(), path) for name in found.get("properties", {}))


@lru_cache(maxsize=1)
def _input() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text(INPUT))
    return document


def _below(schema: Any, path: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Every schema that may hold for the value at ``path`` below a value of ``schema``."""
    if schema is False:
        return
    schema = {} if schema is True else _resolved(schema)
    branches = [branch for kind in ("anyOf", "oneOf") for branch in schema.get(kind, ())]
    if branches and "properties" not in schema:
        for branch in branches:
            yield from _below(branch, path)
    elif not path:
        yield schema
    else:
        yield from _below(_step(schema, path[0]), path[1:])


def _step(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties", {})
    if name in properties:
        return properties[name]
    if any(kind in schema for kind in _OPEN) or not schema.keys() - {"description", "title"}:
        return True
    if "object" not in schema.get("type", ("object",) if "properties" in schema else ()):
        return False
    return schema.get("additionalProperties", True)


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Any = _input()
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema
