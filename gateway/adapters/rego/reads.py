"""Which facts of the input a bundle can read: seen in its syntax trees, and never fewer than it does read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.adapters.rego.lint import Source

_INPUT = "input"


def members(sources: Sequence[Source]) -> frozenset[str] | None:
    """First-level members of the input that the modules name; None where they may read any (``x := input``)."""
    found = {name for source in sources for name in (*_imported(source), *_named(source.rules))}
    return None if None in found else frozenset(name for name in found if name is not None)


def _imported(source: Source) -> Iterator[str | None]:
    for path in source.imports.values():
        first, *rest = path.split(".")
        if first == _INPUT:
            yield rest[0] if rest else None


def _named(tree: Any) -> Iterator[str | None]:
    level = [tree]
    while level:
        node = level.pop()
        if isinstance(node, Mapping):
            base, accessors = _chain(node)
            if "Var" not in base:
                level += base.values()
            elif base["Var"]["value"] == _INPUT:
                yield _member(accessors[-1]) if accessors else None
            # Of a reference its names are part; what its brackets hold is read on its own.
            level += [accessor["index"] for accessor in accessors if "index" in accessor]
        elif isinstance(node, Sequence) and not isinstance(node, str):
            level += node


def _chain(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """What a reference hangs on, and its accessors from the last to the first; a node that is none is its own base."""
    accessors = []
    while reference := node.get("RefDot") or node.get("RefBrack"):
        accessors.append(reference)
        node = reference["refr"]
    return node, accessors


def _member(accessor: Mapping[str, Any]) -> str | None:
    if "field" in accessor:
        return str(accessor["field"][1])
    literal = accessor["index"].get("String")
    return None if literal is None else str(literal["value"])
