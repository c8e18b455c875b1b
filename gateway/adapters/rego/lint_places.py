"""GW008: packages that stand inside one another's rules.

OPA refuses these, or keeps them apart. The embedded engine looks for a name below the module's own package first, so
that a package there takes the place of what the module means: ``package a.b.regex`` with a rule ``match`` would answer
for ``regex.match`` in ``package a.b``, and allow without exporting ``allow``.
"""

from collections.abc import Iterator, Sequence

from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.trees import Source, line_of, nodes, rule_name, static_path


def lint(sources: Sequence[Source]) -> Iterator[Finding]:
    """What one module puts where another one's names are looked up."""
    for module in sources:
        for other in sources:
            if module is not other:
                yield from _inside(module, other)
                yield from _across(module, other)


def _inside(module: Source, other: Source) -> Iterator[Finding]:
    """``module`` is ``package a.b.c``, and ``c`` means something in ``package a.b``."""
    if not module.package.startswith(f"{other.package}."):
        return
    name = module.package.removeprefix(f"{other.package}.").partition(".")[0]
    if name in _meanings(other):
        message = f"would take the place of {name} in package {other.package[5:]} ({other.file}): call it otherwise"
        yield Finding(module.file, 1, "GW008", f"package {module.package[5:]} {message}")


def _across(module: Source, other: Source) -> Iterator[Finding]:
    """A rule ``b`` in ``package a``, where there is a ``package a.b``."""
    for rule in module.rules:
        path = f"{module.package}.{rule_name(rule)}"
        if f"{other.package}.".startswith(f"{path}."):
            message = f"{path[5:]} is a rule in {module.file}, and package {other.package[5:]} in {other.file}"
            # What ships was there before.
            place = (other.file, 1) if module.file.startswith("shipped/") else (module.file, line_of(rule))
            yield Finding(*place, "GW008", f"{message}: call one of them otherwise")


def _meanings(module: Source) -> set[str]:
    """First names of its imports from elsewhere, and of the functions it calls."""
    called = {path[0] for node in nodes(module.rules) if "Call" in node and (path := static_path(node["Call"]["fcn"]))}
    # An import of the very package that stands there means what is found.
    meant = {name for name, path in module.imports.items() if path == f"{module.package}.{name}"}
    return {*module.imports, *called} - meant
