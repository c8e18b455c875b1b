"""Which packages a document concerns, and so whether the answer to it holds for others as well.

Some facts differ from call to call: the time, the arguments, what the run has done. An answer holds for every document
that has the other facts in common, if no package that had a say can read one that differs. A package has no say where
its *guard* does not hold: the rule that is the first condition of everything the package exports.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.adapters.rego.lint import PARTS
from gateway.adapters.rego.reads import Path, Reads, overlaps
from gateway.adapters.rego.trees import Source, nodes, rule_name
from gateway.core.decision import Phase

MAX_GUARDS: Final = 32
MAIN: Final = "data.gateway.main"
_POLICIES: Final = "data.gateway.policies."
# What two documents of one caller, run and tool may differ in.
_DIFFERS: Final[Mapping[Phase, tuple[Path, ...]]] = {
    Phase.LIST: (("time",),),
    Phase.CALL: (
        ("time",),
        ("args",),
        ("args_digest",),
        ("approvals",),
        ("budget",),
        ("risk",),
        ("evidence",),
        *(("run", name) for name in ("calls", "sums", "amounts")),
    ),
}


@dataclass(frozen=True, slots=True)
class _Part:
    """What can have a say.

    Attributes:
        bit: of its guard, or 0 where it has none.
        open: the phases whose differing facts it can read where its guard holds.
        shut: those whose differing facts the guard itself can read.
        package: its name below ``data.gateway.policies``; empty where it is the whole bundle.
        sets: the partial sets it exports.
        modules: names of the modules its rules can reach, its own among them.
    """

    bit: int
    open: frozenset[Phase]
    shut: frozenset[Phase]
    package: str = ""
    sets: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spoken:
    """A package as a worker is told of it, which is asked for calls by key.

    Attributes:
        package: its name below ``data.gateway.policies``.
        sets: the partial sets it exports.
        guard: the place of its guard, or -1.
        open: whether calls of one key get the same from it where its guard holds.
        shut: whether they do where it does not, and its guard is the same for all of them.
        modules: names of the modules its rules can reach, its own among them.
    """

    package: str
    sets: tuple[str, ...]
    guard: int
    open: bool
    shut: bool
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Routes:
    """The packages of one bundle.

    Attributes:
        guards: full names of the guards; bit ``1 << n`` stands for the guard at ``n``.
    """

    guards: tuple[str, ...]
    _parts: tuple[_Part, ...]

    def spoken(self) -> list[Spoken]:
        """Each package that exports something; none where they are not asked one by one."""
        return [
            Spoken(
                part.package,
                part.sets,
                part.bit.bit_length() - 1,
                Phase.CALL not in part.open,
                Phase.CALL not in part.shut,
                part.modules,
            )
            for part in self._parts
            if part.sets
        ]

    def holds(self, phase: Phase, idle: int) -> bool:
        """Whether an answer holds for documents that differ in what may; ``idle``: the guards that did not hold."""
        return all(phase not in (part.shut if part.bit & idle else part.open) for part in self._parts)


NOWHERE: Final = Routes((), (_Part(0, frozenset(Phase), frozenset(Phase)),))
"""Of a bundle nothing is known of: no answer holds for another document."""


def routes(sources: Sequence[Source], *, plain: bool) -> Routes:
    """The routes of a bundle; ``plain`` says that its package ``gateway.main`` is the one that comes with the gateway.

    Another one may read what packages do not export, so there everything has a say.
    """
    reads = Reads(sources)
    if not plain:
        said = _differing(reads.of(("data",)))
        return Routes((), (_Part(0, said, said),))
    guards: list[str] = []
    parts: list[_Part] = []
    for module in sources:
        if module.package.startswith(_POLICIES):
            guard = _guard(module, reads)
            parts.append(_part(module, guard, len(guards), reads))
            guards += [f"{module.package}.{guard}"] if parts[-1].bit else []
    found = Routes(tuple(guards), tuple(parts))
    # Where no answer to a call can hold, asking for the guards would be for nothing.
    everything = (1 << len(guards)) - 1
    return found if found.holds(Phase.CALL, everything) else Routes((), tuple(_unguarded(parts)))


def _part(module: Source, guard: str | None, number: int, reads: Reads) -> _Part:
    package = tuple(module.package.split("."))
    said = _differing(reads.of(package))
    shut = said if guard is None else _differing(reads.of((*package, guard)))
    is_of_use = shut < said and number < MAX_GUARDS
    sets = tuple(name for name in module.names if name in PARTS)
    bit, outside = (1 << number, shut) if is_of_use else (0, said)
    return _Part(bit, said, outside, module.package.rpartition(".")[2], sets, reads.modules(module))


def _unguarded(parts: Iterable[_Part]) -> Iterator[_Part]:
    yield from (replace(part, bit=0, shut=part.open) for part in parts)


def _differing(reads: frozenset[Path]) -> frozenset[Phase]:
    return frozenset(
        phase for phase, paths in _DIFFERS.items() if any(overlaps(read, path) for read in reads for path in paths)
    )


def _guard(module: Source, reads: Reads) -> str | None:
    """The plain rule that is the first condition of all that the module exports, if there is one."""
    exports = [rule for rule in module.rules if rule_name(rule) in PARTS]
    found = {_first(rule) for rule in exports}
    if len(found) != 1 or (name := found.pop()) is None or name in module.imports:
        return None
    if not all(_is_plain(rule) for rule in module.rules if rule_name(rule) == name) or name not in module.names:
        return None
    # The engine evaluates every rule of a package that is looked into; one that fails would be heard of.
    package = tuple(module.package.split("."))
    others = {other for other in module.names if other not in PARTS and other != name}
    return name if not any(_differing(reads.of((*package, other))) for other in others) else None


def _first(rule: Mapping[str, Any]) -> str | None:
    """The name that is the first condition of each body of a partial set."""
    spec = rule.get("Spec")
    if spec is None or "Set" not in spec["head"] or not spec["bodies"]:
        return None
    names = {_first_of(body) for body in spec["bodies"]}
    return names.pop() if len(names) == 1 else None


def _first_of(body: Mapping[str, Any]) -> str | None:
    first, *others = body["query"]["stmts"]
    name = first["literal"].get("Expr", {}).get("expr", {}).get("Var", {}).get("value")
    # A variable of that name, declared further down, would be meant instead.
    declared = any("SomeVars" in node or node.get("value") == name for node in nodes(others))
    return None if name is None or first.get("with_mods") or declared or body["is_else"] else str(name)


def _is_plain(rule: Mapping[str, Any]) -> bool:
    """True where its bodies hold, otherwise undefined."""
    spec = rule.get("Spec")
    if spec is None or spec["head"].get("Compr", {}).get("assign", ...) is not None:
        return False
    return bool(spec["bodies"]) and all(body["assign"] is None for body in spec["bodies"])
