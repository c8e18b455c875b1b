"""GW006: what a layer that may only restrict must not hold.

With such a layer nothing is allowed, and no call is bound less, that is not so without it. It follows from this:

1. it exports no ``allow``, in no spelling, and its ``oblige`` can only bind more;
2. it has packages ``gateway.policies.NAME`` and libraries of its own, but neither the package that joins all, nor data
   of the shipped ones, nor what an OPA server asks for itself (``system``);
3. no rule of another layer reads anything it defines, and none of its packages stands above or below another's. So
   what the others say is the same with it and without it.

What is left are ``deny``, ``require``, ``oblige`` and ``hint`` of its own packages. The fold takes a deny before
anything else, asks for every requirement, and merges obligations to the strictest.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.reads import Path, overlaps, references
from gateway.adapters.rego.trees import Source, line_of, rule_name
from gateway.core.bundle import DenyOnly

_RULE: Final = "GW006"
_POLICIES: Final = "data.gateway.policies."
_LIBRARIES: Final = "data.gateway.lib."
# Kinds that bind more, however they are put together with others; "sandbox" is looked at by itself.
_BINDING: Final = ("timeout", "rate_limit")
_MEMBERS: Final = ("id", "kind", "timeout_s", "per_minute", "accept_missing", "msg")
_OTHERS: Final = ("gateway", "system")


@dataclass(frozen=True, slots=True)
class _Read:
    """A place below ``data`` that a rule names."""

    path: Path
    where: str


def lint(sources: Sequence[Source], layers: Sequence[DenyOnly], plain: Collection[str]) -> Iterator[Finding]:
    """What ``layers`` could loosen; ``plain`` names the module that joins all as the shipped one does."""
    served = [module for module in sources if not module.file.endswith("_test.rego")]
    for layer in layers:
        own = [module for module in served if module.file in layer.modules]
        others = [module for module in served if module.file not in layer.modules]
        # The shipped one reads what packages export, and that is looked at by name.
        reads = sorted(
            (read for module in others if module.file not in plain for read in _reads(module)),
            key=lambda read: read.where,
        )
        yield from _data(layer, reads, others)
        for module in own:
            yield from _exports(layer, module)
            yield from _package(layer, module, reads, others)


def _words(layer: DenyOnly, message: str) -> str:
    return f"{message} ({layer.label} is deny-only, says {' and '.join(layer.said_by)})"


def _exports(layer: DenyOnly, module: Source) -> Iterator[Finding]:
    if not module.package.startswith(_POLICIES):
        return
    for rule in module.rules:
        name = rule_name(rule)
        problem = "allow in a deny-only layer: grant in another one" if name == "allow" else None
        if name == "oblige":
            problem = _loosening(rule)
        if problem is not None:
            yield Finding(module.file, line_of(rule), _RULE, _words(layer, problem))


def _loosening(rule: Mapping[str, Any]) -> str | None:
    """What in a rule ``oblige`` could bind less, or cannot be seen; None where it can only bind more."""
    key = rule.get("Spec", {}).get("head", {}).get("Set", {}).get("key") or {}
    members: dict[str, Mapping[str, Any]] = {}
    for _place, name, value in key.get("Object", {}).get("fields", ()):
        text = name.get("String", {}).get("value")
        if text not in _MEMBERS or text in members:
            return f"oblige with members other than {', '.join(_MEMBERS)}, each once, could bind less"
        members[text] = value
    kind = members.get("kind", {}).get("String", {}).get("value")
    if kind in _BINDING:
        return None
    if kind == "sandbox":
        accepted = members.get("accept_missing", {"Array": {"items": []}}).get("Array", {}).get("items")
        return (
            None if accepted == [] else "oblige that lets a sandbox lack something binds less: only [] may stand here"
        )
    return f"oblige must be written out in its head, with kind {', '.join(_BINDING)} or sandbox in place"


def _package(layer: DenyOnly, module: Source, reads: Sequence[_Read], others: Sequence[Source]) -> Iterator[Finding]:
    path = _flat(module.package.split(".")[1:])
    shown = module.package[5:]
    if path[0] in _OTHERS and not module.package.startswith((_POLICIES, _LIBRARIES)):
        message = f"package {shown} is not for a deny-only layer: gateway.policies.NAME, or a library of your own"
        yield Finding(module.file, 1, _RULE, _words(layer, message))
    for other in others:
        if overlaps(path, _flat(other.package.split(".")[1:])):
            message = f"package {shown} stands above or below package {other.package[5:]} ({other.file})"
            yield Finding(module.file, 1, _RULE, _words(layer, message))
    read = _reader(path, reads)
    if read is not None:
        lines = [line_of(rule) for rule in module.rules if rule_name(rule) == "".join(read.path[len(path) :][:1])]
        message = f"package {shown} is read at {read.where}, and could loosen what is decided there"
        yield Finding(module.file, min(lines, default=1), _RULE, _words(layer, message))


def _data(layer: DenyOnly, reads: Sequence[_Read], others: Sequence[Source]) -> Iterator[Finding]:
    packages = [_flat(module.package.split(".")[1:]) for module in others]
    for file, steps in layer.data:
        path, shown = _flat(steps), ".".join(("data", *steps))
        read = _reader(path, reads)
        if path[0] in _OTHERS:
            message = f"{shown} is not for a deny-only layer: write a rule `deny`, with data of a name of your own"
        elif any(overlaps(path, package) for package in packages):
            message = f"{shown} stands where a package of another layer is"
        elif read is not None:
            message = f"{shown} is read at {read.where}, and could loosen what is decided there"
        else:
            continue
        yield Finding(file, 0, _RULE, _words(layer, message))


def _reads(module: Source) -> Iterator[_Read]:
    """What the rules of a module name below ``data``, themselves or by an import."""
    for rule in module.rules:
        for base, steps, line in references(rule):
            where = f"{module.file}:{line}"
            if base == "data":
                yield _Read(_flat(steps), where)
            imported = module.imports.get(base, "").split(".")
            if imported[0] == "data":
                yield _Read(_flat((*imported[1:], *steps)), where)


def _reader(path: Path, reads: Sequence[_Read]) -> _Read | None:
    return next((read for read in reads if overlaps(path, read.path)), None)


def _flat(steps: Sequence[str]) -> Path:
    # Imports and packages are kept as text, where a dot inside a name looks like one between two.
    return tuple(part for step in steps for part in step.split("."))
