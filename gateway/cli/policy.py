"""``ostiary policy``: Rego before it is served; no gateway need run."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.adapters.rego import testing
from gateway.adapters.rego.testing import TestReport
from gateway.cli.policies import PolicyGroup
from gateway.cli.screen import answer, json_option, shown

_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))


@click.group(cls=PolicyGroup)
def policy() -> None:
    """Check, test, replay and draft Rego policies."""


@policy.command()
@click.argument("path", metavar="DIR|FILE", type=click.Path(path_type=Path, exists=True))
@click.option("--deny-only", is_flag=True, help="They may only restrict, as gateway.toml or a .manifest can say.")
@json_option
def check(path: Path, *, deny_only: bool) -> None:
    """Parse and lint the policies in DIR, or one FILE, as they are before they are served.

    Each finding is one line FILE:LINE: RULE: message. Exit code 1 where there is any. A FILE is read together with the
    shipped packages alone; what it needs of other files must be checked with them, as DIR.
    """
    findings = testing.check(path, *(["--deny-only"] if deny_only else []))
    lines = [f"{shown(found.file)}:{found.line}: {found.rule}: {shown(found.message)}" for found in findings]
    answer({"ok": not findings, "findings": [asdict(found) for found in findings]}, lines or ["no findings"])
    if findings:
        raise click.exceptions.Exit(1)


@policy.command()
@_folder
@click.option("--verbose", "-v", is_flag=True, help="Show passing tests and lines no test evaluated, too.")
@json_option
def test(folder: Path, *, verbose: bool) -> None:
    """Run the test_ rules in DIR, with coverage.

    Exit code 1 where one fails, or where there is none.
    """
    report = testing.test(folder)
    answer(_document(report), _lines(report, verbose=verbose))
    if not report.passed:
        raise click.exceptions.Exit(1)


def _document(report: TestReport) -> dict[str, Any]:
    coverage = [{"file": one.file, "percent": round(one.percent, 1), "missed": one.missed} for one in report.coverage]
    return {
        "ok": report.passed,
        "results": [asdict(result) for result in report.results],
        "coverage": coverage,
        "problems": list(report.problems),
    }


def _lines(report: TestReport, *, verbose: bool) -> Iterator[str]:
    for problem in report.problems:
        yield shown(problem)
    for result in report.results:
        if verbose or not result.passed:
            yield f"{'pass' if result.passed else 'FAIL'}  {result.rule}  {shown(result.detail)}".rstrip()
    for one in report.coverage:
        missed = f"  never evaluated: {', '.join(map(str, one.missed))}" if verbose and one.missed else ""
        yield f"{one.percent:5.1f} %  {shown(one.file)}{missed}"
    passed = sum(result.passed for result in report.results)
    yield f"{passed} of {len(report.results)} tests pass" if report.results else "there are no tests"
