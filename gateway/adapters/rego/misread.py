"""GW015: a rule reads what is in no input document, so it can never hold; a deny rule that never holds is a hole."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from gateway.adapters.rego.contract import INPUT, members, unknown
from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.reads import Path, chain, names, references, resolved
from gateway.adapters.rego.trees import Source, nodes, static_path

_OPA = "data.system."


def misreads(sources: Sequence[Source]) -> list[Finding]:
    """Every path below ``input`` that the schema does not know, by file and line. Below ``args`` everything may be.

    Packages below ``system`` are an OPA server's own: it asks them about inputs of its own making.
    """
    asked = [module for module in sources if not module.package.startswith(_OPA)]
    return sorted({finding for module in asked for rule in module.rules for finding in _of(module, rule)})


def _of(module: Source, rule: Mapping[str, Any]) -> Iterator[Finding]:
    own = frozenset(module.names)
    for base, steps, line in references(rule):
        yield from _finding(module, resolved(module, own, base, steps), line)
    for node in nodes(rule):
        if "Call" in node and static_path(node["Call"]["fcn"]) == ["object", "get"]:
            yield from _with_default(module, own, node["Call"])


def _with_default(module: Source, own: frozenset[str], call: Mapping[str, Any]) -> Iterator[Finding]:
    """``object.get(input.tool, "fqn", "")`` reads ``input.tool.fqn``; a key that is never there gives the default."""
    if len(call["params"]) != 3:  # noqa: PLR2004  object, key, default
        return
    base, accessors = chain(call["params"][0])
    steps = names(accessors)
    keys = call["params"][1]
    if "Var" not in base or len(steps) != len(accessors):
        return
    wanted = keys["Array"]["items"] if "Array" in keys else [keys]
    more: list[str] = []
    for key in wanted:
        if "String" not in key:
            break
        more.append(str(key["String"]["value"]))
    path = resolved(module, own, str(base["Var"]["value"]), (*steps, *more))
    yield from _finding(module, path, int(call["span"]["line"]))


def _finding(module: Source, path: Path, line: int) -> Iterator[Finding]:
    place = unknown(path[1:]) if path[:1] == ("input",) else None
    if place is None:
        return
    steps = path[1:]
    there = ".".join(path[: place + 1])
    close = get_close_matches(steps[place], members(steps[:place]), n=1)
    hint = f"; did you mean {there}.{close[0]}?" if close else ""
    yield Finding(module.file, line, "GW015", f"no input has {there}.{steps[place]} ({INPUT}.json){hint}")
