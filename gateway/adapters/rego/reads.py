"""Which facts of the input the rules of a bundle can read: seen in its syntax trees, and never fewer than they do read.

A rule reads what it names and what every rule it refers to reads, wherever that is. Where a step of a reference is not
written down (``input[x]``, ``data.a[x]``), everything below the step before it may be meant.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.adapters.rego.trees import Source, below, rule_name

Path = tuple[str, ...]
"""Names from the input, or from ``data``, downwards; the empty path is all of it."""

_INPUT: Final = "input"
_DATA: Final = "data"


@dataclass(slots=True)
class _Rule:
    """What a rule names itself, in all its definitions."""

    facts: set[Path] = field(default_factory=set)
    refers: set[Path] = field(default_factory=set)


class Reads:
    """The rules of a bundle, by what they read."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._rules: defaultdict[Path, _Rule] = defaultdict(_Rule)
        for module in sources:
            package, own = _package(module), frozenset(module.names)
            for rule in module.rules:
                entry = self._rules[(*package, rule_name(rule))]
                for base, steps, _line in references(rule):
                    full = resolved(module, own, base, steps)
                    if full[:1] == (_INPUT,):
                        entry.facts.add(full[1:])
                    elif full[:1] == (_DATA,):
                        entry.refers.add(full)

    def of(self, *roots: Path) -> frozenset[Path]:
        """The facts that the rules at or below ``roots`` (full paths, ``data`` first) can read."""
        found: set[Path] = set()
        seen: set[Path] = set()
        level = set(roots)
        followed: set[Path] = set()
        while level:
            followed |= level
            rules = {name for name in self._rules.keys() - seen if any(overlaps(name, path) for path in level)}
            seen |= rules
            found.update(*(self._rules[name].facts for name in rules))
            level = {path for name in rules for path in self._rules[name].refers} - followed
        return frozenset(found)

    def modules(self, first: Source) -> tuple[str, ...]:
        """Names of the modules that the rules of ``first`` can reach, whichever of their rules are evaluated."""
        found = {first.file}
        level = [first]
        while level:
            module = level.pop()
            named = {path for name, rule in self._rules.items() if _is_of(name, module) for path in rule.refers}
            for other in self._sources:
                if other.file not in found and any(overlaps(_package(other), path) for path in named):
                    found.add(other.file)
                    level.append(other)
        return tuple(sorted(found))


def _package(module: Source) -> Path:
    return tuple(module.package.split("."))


def _is_of(rule: Path, module: Source) -> bool:
    return rule[:-1] == _package(module)


def overlaps(one: Path, other: Path) -> bool:
    """Whether one path leads to the other's place or into it."""
    return one[: len(other)] == other[: len(one)]


def resolved(module: Source, own: frozenset[str], base: str, steps: Path) -> Path:
    """The full path of a reference in ``module``, which has the rules ``own``; empty for a variable."""
    if base in {_INPUT, _DATA}:
        return (base, *steps)
    if base in own:
        return (*module.package.split("."), base, *steps)
    # Not an import: a variable, and what it was bound to is read where it was bound.
    return (*module.imports[base].split("."), *steps) if base in module.imports else ()


def references(tree: Any) -> Iterator[tuple[str, Path, int]]:
    """Every reference in a tree: the name it hangs on, the names that follow, and its line."""
    level = [tree]
    while level:
        node = level.pop()
        if isinstance(node, dict):
            base, accessors = chain(node)
            if "Var" not in base:
                level += below(base)
            else:
                yield str(base["Var"]["value"]), names(accessors), int(base["Var"]["span"]["line"])
            # Of a reference its names are part; what its brackets hold is read on its own.
            level += [accessor["index"] for accessor in accessors if "index" in accessor]
        elif isinstance(node, list):
            level += node


def chain(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """What a reference hangs on, and its accessors from the last to the first; a node that is none is its own base."""
    accessors = []
    while reference := node.get("RefDot") or node.get("RefBrack"):
        accessors.append(reference)
        node = reference["refr"]
    return node, accessors


def names(accessors: Sequence[Mapping[str, Any]]) -> Path:
    """The names at the beginning of a reference: up to the first accessor that is none."""
    found: list[str] = []
    for accessor in reversed(accessors):
        name = accessor["field"][1] if "field" in accessor else accessor["index"].get("String", {}).get("value")
        if name is None:
            break
        found.append(str(name))
    return tuple(found)
