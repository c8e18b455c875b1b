"""The house rules that no linter knows: one door, one maker of each link, small files, plain names."""

import ast
import re
import subprocess
from collections.abc import Iterator

from deploy.checks.suites import PARTS, shares
from tests.arch.sources import PRODUCT, ROOMS, ROOT, Source, called, calls, functions, sources

# Who may construct a link of the evidence chain: modules, by prefix.
MAKERS = {
    "Call": ("gateway.edge",),
    "Principal": ("gateway.adapters.identity", "gateway.adapters.ledger", "gateway.edge", "gateway.app", "gateway.cli"),
    "Caller": ("gateway.adapters.ledger",),
    "Resolved": ("gateway.core.catalog", "gateway.core.pipeline"),
    "Permit": ("gateway.core.pipeline",),
    "Quota": ("gateway.adapters.limiter",),
    "Intent": ("gateway.adapters.ledger",),
    "Lease": ("gateway.adapters.credentials.broker",),
    "Raw": ("connectors",),
    "Verified": ("gateway.core.verify",),
    "Redacted": ("gateway.core.redact",),
    "Answer": ("gateway.adapters.ledger",),
    "Decision": ("gateway.core.decision",),
}
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|base|common|managers?|services?|misc)(_|$)")
FORBIDDEN_CLASSES = re.compile(r"(Manager|Service|Helper|Util|Utils)$")
# What the core may import: pure computing (and locks for it), nothing that reads a clock, a file, a socket or chance.
CORE_IMPORTS = re.compile(
    r"""(__future__|base64|binascii|bisect|collections|contextlib|copy|dataclasses|datetime|decimal|difflib|enum|fnmatch
    |fractions|functools|hashlib|heapq|hmac|ipaddress|itertools|json|math|operator|re|string|struct|types|typing|unicodedata
    |weakref|urllib\.parse|anyio|cryptography|jsonschema_rs|msgspec|re2|gateway\.core)(\.|$)""",
    re.VERBOSE,
)
CONNECTOR_IMPORTS = re.compile(
    r"gateway\.core\.(call|connector|errors|canonical|flow|following|tool|pointer|mcpwire|netguard|resources|sandbox)(\.|$)"
)
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}
MOST_LINES = 400
MOST_FUNCTION_LINES = 50
# Machine paths and registries' addresses, spelt so that this file does not hold them itself.
LEAKS = re.compile(rb"/wo[r]k/|/tm[p]/w/|pypi\.or[g]|pythonhosted\.or[g]|registry\.npmj[s]")


def under(module: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a module is one of the prefixes or inside of one."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def test_permits_are_made_in_one_function() -> None:
    """``Permit(`` stands once in the product: in ``pipeline.permit_for``."""
    makers = [f"{s.module}.{f.name}" for s in sources(*PRODUCT) for f in functions(s) if calls(f, "Permit")]
    assert makers == ["gateway.core.pipeline.permit_for"]
    assert sum(len(calls(source.tree, "Permit")) for source in sources(*PRODUCT)) == 1


def test_each_link_of_the_chain_is_made_where_it_belongs() -> None:
    """A module outside the allowed ones constructs no evidence."""
    strays = [
        f"{source.path}:{call.lineno} constructs {name}"
        for source in sources(*PRODUCT)
        for name, makers in MAKERS.items()
        for call in calls(source.tree, name)
        if not under(source.module, makers) and ast.unparse(call.func) != f"msgspec.{name}"
    ]
    assert not strays, strays


def test_evidence_is_never_copied_nor_changed() -> None:
    """Nobody goes around a frozen link: it is not set by force, and no ``replace`` stands beside the pipeline."""
    forced = [
        f"{source.path}:{call.lineno}"
        for source in sources(*PRODUCT)
        for force in ("__setattr__", "force_setattr")
        for call in calls(source.tree, force)
    ]
    assert not forced, forced
    near = [
        source
        for source in sources("gateway/core")
        if source.module in {"gateway.core.pipeline", "gateway.core.catalog"}
    ]
    assert len(near) == 2
    assert not [call.lineno for source in near for call in calls(source.tree, "replace")]


def test_a_connector_is_invoked_in_one_place() -> None:
    """``.invoke(`` stands in ``core/catalog.py`` (the connector's) and in the pipeline (the catalogue's), once each."""
    found = [(s.module, len(calls(s.tree, "invoke"))) for s in sources(*PRODUCT) if calls(s.tree, "invoke")]
    assert found == [("gateway.core.catalog", 1), ("gateway.core.pipeline", 1)]


def test_only_surfaces_knock_at_the_door() -> None:
    """``pipeline.handle`` is called from ``gateway.edge`` and nowhere else."""
    callers = {s.module for s in sources(*PRODUCT) for call in calls(s.tree, "handle") if _is_pipeline(call)}
    assert callers, "no surface calls the pipeline"
    assert all(under(module, ("gateway.edge",)) for module in callers), callers


def _is_pipeline(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) or ast.unparse(call.func) == "pipeline.handle"


def test_files_stay_small() -> None:
    """No file passes 400 lines."""
    large = {source.path: len(source.lines) for source in sources(*ROOMS) if len(source.lines) > MOST_LINES}
    assert not large, large


def test_functions_stay_small() -> None:
    """No function passes 50 lines."""
    sizes = {f"{s.path}:{f.name}": (f.end_lineno or 0) - f.lineno + 1 for s in sources(*ROOMS) for f in functions(s)}
    large = {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES}
    assert not large, large


def test_names_say_what_a_thing_is() -> None:
    """No file, folder or class hides behind utils, helpers, base, common, Manager or Service."""
    vague = [s.path for s in sources(*ROOMS) for part in s.module.lower().split(".") if FORBIDDEN_NAMES.search(part)]
    nodes = [(s.path, node) for s in sources(*ROOMS) for node in s.nodes]
    vague += [f"{p}:{n.name}" for p, n in nodes if isinstance(n, ast.ClassDef) and FORBIDDEN_CLASSES.search(n.name)]
    assert not vague, vague


def test_imports_stand_at_the_top() -> None:
    """Only the command line and the composition root load modules inside functions."""
    free = ("gateway.cli", "gateway.app", "gateway.__main__")
    local = [
        f"{source.path}:{node.lineno}"
        for source in sources(*PRODUCT)
        if not under(source.module, free)
        for function in functions(source)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not local, local


def test_modules_hold_no_state() -> None:
    """No ``global``, and no module-level collection under a variable's name."""
    nodes = [(source.path, node) for source in sources(*PRODUCT) for node in source.nodes]
    assert not [f"{path}:{node.lineno}" for path, node in nodes if isinstance(node, ast.Global)]
    state = [f"{s.path}:{node.lineno}" for s in sources(*PRODUCT) for node in s.tree.body if _holds_state(node)]
    assert not state, state


def _holds_state(node: ast.stmt) -> bool:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            # A table in capitals is a constant by agreement, so no function may write to it either (see below).
            return name != "__all__" and name != name.upper() and isinstance(value, MUTABLE)
    return False


def test_constants_stay_constant() -> None:
    """No function stores into, or calls a changing method of, a name in capitals."""
    writes = [f"{s.path}:{ast.unparse(n)}" for s in sources(*PRODUCT) for n in s.nodes if _writes_constant(n)]
    assert not writes, writes


def _writes_constant(node: ast.AST) -> bool:
    match node:
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name.isupper()
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
            return name.isupper() and method in CHANGING
    return False


def test_the_core_imports_pure_modules_only() -> None:
    """The core sees no clock, chance, file, process, socket or vendor: its imports are on an allow-list."""
    foreign = [
        f"{source.path} imports {name}"
        for source in sources("gateway/core")
        for name in _imports(source)
        if not CORE_IMPORTS.match(name)
    ]
    assert not foreign, foreign
    core = sources("gateway/core")
    assert not [
        f"{s.path}:{c.lineno}" for s in core for word in ("now", "utcnow", "today") for c in calls(s.tree, word)
    ]


def test_connectors_see_the_contracts_only() -> None:
    """Of the gateway a connector imports the call, its errors, JSON, tools and the wire: no pipeline, no port."""
    seen = {name for source in sources("connectors") for name in _imports(source) if name.startswith("gateway")}
    strays = {name for name in seen if not CONNECTOR_IMPORTS.match(name)}
    assert not strays, strays


def _imports(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_folder_of_tests_is_run() -> None:
    """`make test` runs them by name, four at a time, and each file of those that are shared out once."""
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(f"tests/{name}" for name in PARTS) == sorted({"/".join(file.split("/")[:2]) for file in there})
    run = [path for _, paths in shares() for path in paths]
    assert sorted(run) == sorted(set(run))
    assert [file for file in there if not any(f"{file}/".startswith(f"{path}/") for path in run)] == []


def test_broad_excepts_say_why() -> None:
    """``except Exception`` (or broader) that swallows has a comment on its line or a line beside it."""
    silent = [f"{s.path}:{h.lineno}" for s in sources(*ROOMS) for h in _broad(s) if not _commented(s, h.lineno)]
    assert not silent, silent


def _broad(source: Source) -> Iterator[ast.ExceptHandler]:
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"Exception"}
            goes_on = ast.unparse(node.body[-1]) == "raise"  # clean-up, nothing is swallowed
            if caught & {"Exception", "BaseException"} and not goes_on:
                yield node


def _commented(source: Source, lineno: int) -> bool:
    # A rule's number alone ("noqa: BLE001") is no reason.
    remark = re.sub(r"noqa(: [A-Z0-9, ]+)?", "", source.lines[lineno - 1].partition("#")[2]).strip(" -#:")
    around = (source.lines[lineno - 2], *source.lines[lineno : lineno + 1])
    return bool(remark) or any(line.strip().startswith("#") for line in around)


def test_every_test_says_what_it_shows() -> None:
    """Each test has a docstring."""
    mute = [f"{s.path}::{f.name}" for s, f in _tests() if not ast.get_docstring(f)]
    assert not mute, mute


def test_every_test_checks_something() -> None:
    """Each test asserts, by itself or through a function or fixture of its own file or of the tests' shared ones."""
    checking = {f.name for s in sources("tests") for f in functions(s) if _asserts(f)}
    idle = [f"{s.path}::{f.name}" for s, f in _tests() if not _asserts(f) and not _names(f) & checking]
    assert not idle, idle


def _tests() -> Iterator[tuple[Source, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for source in sources("tests"):
        if source.path.rpartition("/")[2].startswith("test_"):
            yield from ((source, f) for f in functions(source) if f.name.startswith("test_"))


def _asserts(function: ast.AST) -> bool:
    return bool(calls(function, "raises")) or any(isinstance(node, ast.Assert) for node in ast.walk(function))


def _names(function: ast.AST) -> set[str]:
    found = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}


def test_nothing_is_skipped_without_a_reason() -> None:
    """A skip or an expected failure says why."""
    bare = [f"{s.path}:{ast.unparse(n)}" for s in sources("tests") for n in s.nodes if _bare_skip(n)]
    decorated = [
        f"{source.path}:{mark.lineno}"
        for source in sources("tests")
        for function in functions(source)
        for mark in function.decorator_list
        if isinstance(mark, ast.Attribute) and mark.attr in {"skip", "skipif", "xfail"}
    ]
    assert not bare + decorated, bare + decorated


def _bare_skip(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or called(node) not in {"skip", "skipif", "xfail"}:
        return False
    return "reason" not in [word.arg for word in node.keywords] and not (called(node) == "skip" and node.args)


def test_the_text_speaks_of_the_project_only() -> None:
    """No file of the project names a machine's folder or a package index."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert files
    leaks = [str(file) for file in files if file.is_file() and LEAKS.search(file.read_bytes())]
    assert not leaks, leaks
