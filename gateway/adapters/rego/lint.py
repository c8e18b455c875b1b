"""What makes a bundle unsafe though it parses: found in its syntax trees, reported with file and line.

Only checks that are sound stand here: what they report is wrong, or reads differently on another engine.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.adapters.rego import lint_builtins, lint_forms, lint_places
from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.trees import Source, line_of, nodes, rule_name, static_path

# GW002: answers that depend on the world or on chance cannot be replayed, and some reach out to the network.
IMPURE = frozenset(
    {
        "http.send",
        "net.lookup_ip_addr",
        "opa.runtime",
        "rand.intn",
        "time.now_ns",
        "trace",
        "uuid.rfc4122",
        "io.jwt.decode_verify",
    }
)
# GW005: what the gateway always puts into the input; anything else may be missing, and the reason with it.
ALWAYS = (
    ("schema",),
    ("phase",),
    ("kind",),
    ("time",),
    ("context",),
    ("principal", "kind"),
    ("principal", "id"),
    ("run", "id"),
    ("run", "kind"),
    *(("tool", name) for name in ("server", "name", "fqn", "digest", "effect", "reversible", "open_world", "labels")),
)
# The partial sets that packages export, and what each of their objects must have.
PARTS = {
    "allow": ("id", "msg"),
    "deny": ("id", "msg"),
    "hint": ("id", "msg"),
    "require": ("id", "msg"),
    "oblige": ("id", "kind"),
}
_POLICIES = "data.gateway.policies."
_PACKAGE = re.compile(r"gateway\.(main|policies\.[^.]+|(lib|tests)\..+)|(?!gateway(\.|$)).+")
_REFS = ("RefDot", "RefBrack")
_COMPREHENSIONS = ("ArrayCompr", "SetCompr", "ObjectCompr")


@dataclass(frozen=True, slots=True)
class _Bundle:
    builtins: frozenset[str]
    rules: frozenset[str] = field(default_factory=frozenset)
    total: frozenset[str] = field(default_factory=frozenset)


def lint(sources: Sequence[Source], builtins: frozenset[str]) -> list[Finding]:
    """All findings, by file and line."""
    rules = {f"{s.package}.{rule_name(rule)}" for s in sources for rule in s.rules}
    total = {f"{s.package}.{rule_name(rule)}" for s in sources for rule in s.rules if _always_defined(rule)}
    known = _Bundle(builtins | {"print"}, frozenset(rules), frozenset(total))
    findings = [finding for s in sources for rule in s.rules for finding in _lint_rule(s, rule, known)]
    packages = [source.package for source in sources]
    dialects = [finding for s in sources for finding in (*lint_builtins.lint(s), *lint_forms.lint(s, packages))]
    return sorted({*findings, *dialects, *_recursion(sources, known), *_packages(sources), *lint_places.lint(sources)})


def _lint_rule(module: Source, rule: Mapping[str, Any], known: _Bundle) -> Iterator[Finding]:
    for node in nodes(rule):
        if "NotExpr" in node:
            yield from _negation(module, node["NotExpr"], known)
        if "Call" in node:
            yield from _call(module, node["Call"], known)
    if module.package.startswith(_POLICIES):
        yield from _reason(module, rule)


def _negation(module: Source, node: Mapping[str, Any], known: _Bundle) -> Iterator[Finding]:
    ((kind, negated),) = node["expr"].items()
    if kind not in ("Call", "Membership", "BoolExpr"):
        return
    operands = {key: value for key, value in negated.items() if key != "fcn"}
    if any(_may_be_undefined(module, operand, known) for operand in _operands(operands)):
        message = "`not` over an expression that may be undefined: engines differ; write `not NAME` with a helper rule"
        yield Finding(module.file, node["span"]["line"], "GW001", message)


def _call(module: Source, node: Mapping[str, Any], known: _Bundle) -> Iterator[Finding]:
    name = _function(module, node, known)
    line = node["span"]["line"]
    if name in IMPURE:
        yield Finding(module.file, line, "GW002", f"{name} reads the world or chance, so decisions cannot be replayed")
    elif name not in known.builtins and name not in known.rules:
        yield Finding(module.file, line, "GW003", f"{name} is no function of this engine nor of the bundle")


def _reason(module: Source, rule: Mapping[str, Any]) -> Iterator[Finding]:
    spec = rule.get("Spec")
    part = rule_name(rule)
    if spec is None or part not in PARTS:
        return
    line = spec["span"]["line"]
    if "Set" not in spec["head"]:
        yield Finding(module.file, line, "GW005", f"{part} must be a partial set: `{part} contains {{...}} if`")
        return
    key = spec["head"]["Set"].get("key") or {}
    if "Object" not in key:
        return  # built in the body: its shape shows only when it is evaluated
    members = {entry[1]["String"]["value"]: entry[2] for entry in key["Object"]["fields"] if "String" in entry[1]}
    for name in PARTS[part]:
        if name not in members:
            yield Finding(module.file, line, "GW005", f"{part} without `{name}`")
    if "id" in members and "String" not in members["id"]:
        yield Finding(module.file, line, "GW005", f"{part} with an id that is no plain string")
    yield from _vanishing(module, part, members, line)


def _vanishing(module: Source, part: str, members: Mapping[str, Any], line: int) -> Iterator[Finding]:
    for name, value in members.items():
        for node in _operands(value):
            path = static_path(node)
            if path[:1] == ["input"] and not any(tuple(path[1 : 1 + len(p)]) == p for p in ALWAYS):
                where = ".".join(path)
                yield Finding(
                    module.file,
                    line,
                    "GW005",
                    f"{part} vanishes where {where} is missing: bind it in the body ({name})",
                )


def _packages(sources: Sequence[Source]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    # What ships comes first: of two files of one package the other one is to blame.
    for module in sorted(sources, key=lambda one: not one.file.startswith("shipped/")):
        name = module.package[5:]
        if module.package in owners:
            # This engine silently skips the rules of a package's second file.
            yield Finding(module.file, 1, "GW008", f"package {name} is already in {owners[module.package]}")
        elif not _PACKAGE.fullmatch(name):
            yield Finding(module.file, 1, "GW008", f"package {name} is never asked: use gateway.policies.NAME")
        owners.setdefault(module.package, module.file)
        if name.startswith("gateway.tests.") != module.file.endswith("_test.rego"):
            yield Finding(module.file, 1, "GW008", "tests stand in *_test.rego, and in package gateway.tests.NAME")


def _recursion(sources: Sequence[Source], known: _Bundle) -> Iterator[Finding]:
    # The engine overflows its stack on a function that reaches itself.
    calls: dict[str, set[str]] = {}
    places: dict[str, tuple[str, int]] = {}
    for module in sources:
        for rule in module.rules:
            name = f"{module.package}.{rule_name(rule)}"
            reached = {_function(module, node["Call"], known) for node in nodes(rule) if "Call" in node}
            calls.setdefault(name, set()).update(reached & known.rules)
            places.setdefault(name, (module.file, line_of(rule)))
    for name in calls:
        if name in _reached(name, calls):
            yield Finding(*places[name], "GW004", f"{name[5:]} calls itself")


def _reached(start: str, calls: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    level = set(calls.get(start, ()))
    while level:
        seen |= level
        level = {callee for name in level for callee in calls.get(name, ())} - seen
    return seen


def _function(module: Source, node: Mapping[str, Any], known: _Bundle) -> str:
    return _resolve(module, static_path(node["fcn"]), known)


def _resolve(module: Source, path: Sequence[str], known: _Bundle) -> str:
    first, rest = path[0], path[1:]
    if f"{module.package}.{first}" in known.rules:
        return ".".join([module.package, *path])
    return ".".join([module.imports.get(first, first), *rest])


def _may_be_undefined(module: Source, node: Mapping[str, Any], known: _Bundle) -> bool:
    path = static_path(node)
    if not path:
        return True
    full = _resolve(module, path, known)
    if "Var" in node:
        return full in known.rules and full not in known.total
    return full not in known.total


def _always_defined(rule: Mapping[str, Any]) -> bool:
    spec = rule.get("Spec")
    return spec is None or "Set" in spec["head"]


def _operands(tree: Any) -> Iterator[Mapping[str, Any]]:
    # References and variables below ``tree``, not those in a comprehension (undefined there is just empty).
    if isinstance(tree, dict):
        if any(kind in tree for kind in (*_REFS, "Var")):
            yield tree
            return
        for key, value in tree.items():
            if key not in ("span", "fcn", *_COMPREHENSIONS):
                yield from _operands(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _operands(item)
