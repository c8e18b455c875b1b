"""``ostiary policy suggest``: a draft of least-privilege rules from what observe mode let pass."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import RenderableType
from rich.text import Text

from gateway.adapters.rego import testing
from gateway.cli.policies import tables
from gateway.cli.policies.draft_rego import policy, tests
from gateway.cli.policies.drafting import Draft, draft
from gateway.cli.policies.picking import Wanted, decisions, picking
from gateway.cli.reach import Reach
from gateway.cli.screen import Failed, Misconfigured, answer, shown, wants_json


@click.command()
@click.option("--out", "folder", required=True, metavar="DIR", type=click.Path(path_type=Path), help="A new folder.")
@click.option("--min-calls", type=click.IntRange(1), default=1, show_default=True, help="Fewest calls of a kind.")
@picking
def suggest(reach: Reach, wanted: Wanted, folder: Path, *, min_calls: int) -> None:
    """Draft a package of rules for what observe mode let pass.

    One rule for each agent, tool and side of the person, with tests; never for tools that move money or destroy, nor
    for what a rule denies. The draft is for review: it allows what was done, not what should be done.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Misconfigured(f"{folder} is there already", "give a new folder")
    if wanted.file is None:
        _apart(folder, reach.get("/v1/policy")["origin"])
    found = decisions(reach, wanted)
    drafted = draft(found.decisions, min_calls)
    if not drafted.rules:
        fix = 'set [policy] mode = "observe", let agents work, then ask again; see also --since and --min-calls'
        raise Failed(f"nothing to suggest from {len(found.decisions)} recorded decisions", fix)
    _write(folder, drafted)
    if wants_json():
        left = [
            {"why": why, "tool": tool, "agent": agent, "reasons": ids, "calls": calls}
            for (why, tool, agent, ids), calls in drafted.left.items()
        ]
        document = {"folder": str(folder), "rules": [asdict(rule) for rule in drafted.rules], "left": left}
        answer(document | {"more": found.more}, ())
        return
    tables.tell(_told(folder, drafted, more=found.more))


def _apart(folder: Path, served: Sequence[str]) -> None:
    # A folder of policy is read anew while the gateway runs: a draft in it would be in force before anybody read it.
    place = folder.resolve()
    for origin in served:
        if place.is_relative_to(Path(origin).resolve()):
            fix = "give a folder outside of it, and add that one to [policy] bundles once it is read"
            raise Misconfigured(f"{folder} is in {shown(origin)}, which is in force, and this is a draft", fix)


def _write(folder: Path, drafted: Draft) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "suggested.rego").write_text(policy(drafted), "utf-8")
        (folder / "suggested_test.rego").write_text(tests(drafted), "utf-8")
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be written: {error.strerror}") from None
    problems = [*map(str, testing.check(folder))]
    if not problems:
        report = testing.test(folder)
        problems = [*report.problems, *(f"{one.rule}: {one.detail}" for one in report.results if not one.passed)]
    if problems:
        lines = "\n".join(f"  {shown(problem)}" for problem in problems)
        raise Failed(f"the draft in {folder} does not pass its own check; do not use it:\n{lines}")


def _told(folder: Path, drafted: Draft, *, more: bool) -> Iterator[RenderableType]:
    if more:
        yield Text("there are more: --limit cut them off", "yellow")
    rows = [
        (
            rule.tool,
            rule.agent or "-",
            ", ".join(rule.groups or rule.users),
            "; ".join(f"{name} in {', '.join(map(str, values))}" for name, values in rule.arguments.items()),
            rule.calls,
        )
        for rule in drafted.rules
    ]
    heads = ("tool", "agent", "persons", "arguments", "seen")
    yield tables.counted(f"rules drafted: {len(rows)}", heads, rows)
    if drafted.left:
        left = [(tool, agent or "-", ids, why, calls) for (why, tool, agent, ids), calls in drafted.left.items()]
        yield tables.counted("left out", ("tool", "agent", "reasons", "why", "seen"), left)
    yield Text(f"a draft for review is in {shown(str(folder))}; next:", "bold")
    yield Text(f"  ostiary policy test {shown(str(folder))}")
    yield Text(f"  ostiary policy try {shown(str(folder))}")
    yield Text("  then add the folder to [policy] bundles, and enforce", "dim")
