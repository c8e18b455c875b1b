"""What ``ostiary policy check`` and ``ostiary policy test`` do."""

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles.archive import MANIFEST
from gateway.adapters.rego.bundles.manifest import parse as parse_manifest
from gateway.adapters.rego.examination import answers
from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.preflight import examine, parse, preflight
from gateway.adapters.rego.settings import EngineSettings
from gateway.adapters.rego.trees import Source
from gateway.core.bundle import Bundle, BundleError

RULE_DEADLINE_S = 5.0
_SINGLE = (".rego", ".json")


@dataclass(frozen=True, slots=True)
class TestResult:
    """One ``test_`` rule.

    Attributes:
        rule: full path, ``data.gateway.tests.x.test_y``.
        file: module it stands in.
        passed: whether it is true.
        detail: why it did not pass, or empty.
    """

    rule: str
    file: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of one module the tests evaluated.

    Attributes:
        file: module.
        covered: lines evaluated.
        missed: lines never evaluated.
    """

    file: str
    covered: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def percent(self) -> float:
        """Share of lines evaluated, 0..100."""
        total = len(self.covered) + len(self.missed)
        return 100.0 if not total else 100.0 * len(self.covered) / total


@dataclass(frozen=True, slots=True)
class TestReport:
    """All ``test_`` rules of a directory.

    Attributes:
        results: by file and rule.
        coverage: of the modules that are no tests, by file.
        problems: why the tests could not be run, or empty.
    """

    results: tuple[TestResult, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are tests and all of them pass."""
        return not self.problems and bool(self.results) and all(result.passed for result in self.results)


def check(path: Path, *said_by: str) -> list[Finding]:
    """Everything wrong with the policies in ``path``, by file and line; empty = nothing found.

    They are read together with the shipped ones, unless they hold ``package gateway.main`` themselves. A single file is
    read as a folder that holds it alone: it cannot call functions of files beside it, and a ``data.json`` stands at the
    root. ``said_by`` says that they may only restrict, as their own ``.manifest`` can. Not to be called inside an event
    loop.
    """
    place = _in_shipped(path)
    try:
        bundle = read(shipped() if place else path, *said_by)
    except BundleError as error:
        return [Finding("", 0, "GW000", problem) for problem in error.problems]
    found = asyncio.run(_check(bundle))
    return [finding for finding in found if finding.file in ("", place)] if place else found


def test(directory: Path, rule_deadline_s: float = RULE_DEADLINE_S) -> TestReport:  # noqa: PT028  no pytest test
    """Run every ``test_`` rule in ``directory``: one that hangs or crashes the engine fails, the others still run.

    Not to be called inside an event loop.
    """
    try:
        bundle = read(directory)
    except BundleError as error:
        return TestReport(problems=error.problems)
    return asyncio.run(_run_tests(bundle, label(directory), rule_deadline_s))


def read(path: Path, *said_by: str) -> Bundle:
    """The policies in ``path``, completed by the shipped ones unless they have a ``gateway.main`` of their own.

    ``said_by``: who says that they may only restrict, besides their own manifest.

    Raises:
        BundleError: as ``layers.load``.
    """
    if path.is_file() and path.suffix in _SINGLE:
        with TemporaryDirectory() as scratch:
            # Named as its folder is, so that findings say where it stands.
            folder = Path(scratch, path.absolute().parent.name or "file")
            folder.mkdir()
            shutil.copyfile(path, folder / path.name)
            return read(folder, *said_by, *_said_above(path))
    own = layers.read(path)
    own = own.restricted(*said_by) if said_by else own
    alone = layers.joined([own])
    if any(re.search(r"^package\s+gateway\.main\s*$", module.text, re.MULTILINE) for module in alone.modules):
        return alone
    return layers.joined([layers.read(shipped()), own])


def _said_above(file: Path) -> tuple[str, ...]:
    """What the manifest of the bundle that a file stands in says of it."""
    for folder in file.absolute().parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            return (MANIFEST,) if parse_manifest(folder.name, manifest.read_bytes()).metadata.ostiary.deny_only else ()
    return ()


def _in_shipped(path: Path) -> str:
    """The name in findings of a single file that is one of the served shipped packages, or empty."""
    root, whole = shipped().resolve(), path.resolve()
    if not (path.is_file() and whole.is_relative_to(root)):
        return ""
    name, bundle = f"shipped/{whole.relative_to(root).as_posix()}", load([shipped()])
    return name if any(module.name == name for module in (*bundle.modules, *bundle.tests)) else ""


def label(directory: Path) -> str:
    """How the files of ``directory`` begin in findings and results."""
    return "shipped/" if directory == shipped() else f"{directory.absolute().name}/"


async def _check(bundle: Bundle) -> list[Finding]:
    findings = (await examine((*bundle.modules, *bundle.tests), bundle.deny_only)).findings
    if not findings:
        try:
            await preflight(bundle, EngineSettings().pool())
        except BundleError as error:
            findings = [Finding("", 0, "GW000", problem) for problem in error.problems]
    return findings


async def _run_tests(bundle: Bundle, prefix: str, deadline_s: float) -> TestReport:
    modules = (*bundle.modules, *bundle.tests)
    parsed = await parse(modules)
    if parsed.findings:
        return TestReport(problems=tuple(str(finding) for finding in sorted(parsed.findings)))
    rules = {path: s.file for s in parsed.sources if s.file.startswith(prefix) for path in _test_rules(s)}
    results: dict[str, TestResult] = {}
    seen: dict[str, tuple[set[int], set[int]]] = {}
    while left := [rule for rule in rules if rule not in results]:
        request = {
            "task": "test",
            "modules": [[module.name, module.text] for module in modules],
            "data": bundle.data,
            "rules": left,
        }
        said, ending = await answers(request, deadline_s)
        _take(said, rules, results, seen)
        # What began and never ended is the culprit; without one the engine cannot even load the bundle.
        begun = [answer["begins"] for answer in said if "begins" in answer]
        culprit = next((rule for rule in reversed(begun) if rule not in results), None)
        if culprit is None and any(rule not in results for rule in rules):
            return TestReport(problems=(f"the engine {ending or 'fails'} while loading the bundle",))
        if culprit is not None:
            results[culprit] = TestResult(
                culprit, rules[culprit], passed=False, detail=f"the engine {ending or 'died'}"
            )
    return TestReport(tuple(results[rule] for rule in rules), _coverage(bundle, prefix, seen))


def _take(
    said: Sequence[Mapping[str, Any]],
    rules: Mapping[str, str],
    results: dict[str, TestResult],
    seen: dict[str, tuple[set[int], set[int]]],
) -> None:
    for answer in said:
        if "rule" in answer:
            rule = answer["rule"]
            detail = "" if answer["passed"] else answer.get("error") or "not true"
            results[rule] = TestResult(rule, rules[rule], answer["passed"], detail)
        for file, covered, missed in answer.get("coverage", ()):
            hit, miss = seen.setdefault(file, (set(), set()))
            hit.update(covered)
            miss.update(missed)


def _coverage(bundle: Bundle, prefix: str, seen: Mapping[str, tuple[set[int], set[int]]]) -> tuple[Coverage, ...]:
    found: list[Coverage] = []
    for module in bundle.modules:
        if module.name.startswith(prefix):
            hit, miss = seen.get(module.name, (set(), set()))
            found.append(Coverage(module.name, tuple(sorted(hit)), tuple(sorted(miss - hit))))
    return tuple(found)


def _test_rules(module: Source) -> list[str]:
    return [f"{module.package}.{name}" for name in module.names if name.startswith("test_")]
