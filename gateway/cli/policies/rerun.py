"""``ostiary policy explain``: a recorded decision made again, with the rules that spoke and their source."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import click
from rich.console import RenderableType
from rich.text import Text

from gateway.adapters.rego.following import RULE, Followed, Line, follow
from gateway.cli.policies import tables
from gateway.cli.policies.evaluating import same
from gateway.cli.policies.events import Recorded
from gateway.cli.policies.picking import Revisions, Wanted, of_call
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, Misconfigured, answer, shown, wants_json
from gateway.core.bundle import Bundle

_UNFAITHFUL = 2
_TRACE_S = 60
_MARKS = {True: ("▶", "green"), False: (" ", "dim"), None: (" ", "")}
_NO_OPA = "--trace needs the opa command on PATH: https://www.openpolicyagent.org/docs/#running-opa"


@click.command("explain")
@click.argument("call_id", metavar="CALL_ID")
@click.option("--trace", is_flag=True, help="Print the full trace of a real OPA, where the command opa is on PATH.")
@click.option("--from", "file", type=click.Path(path_type=Path), metavar="FILE", help="Read an exported file.")
@click.option("--revisions", type=click.Path(path_type=Path), metavar="DIR", help="Read exported revisions.")
@reaching
def rerun(reach: Reach, call_id: str, *, trace: bool, file: Path | None, revisions: Path | None) -> None:
    """Make a recorded decision again, and show the rules that spoke.

    It is made on the policy of the time. Each rule is shown by file and line, with the lines that were evaluated
    marked. Exit code 2 where the decision comes out otherwise than it was recorded.
    """
    if trace and shutil.which("opa") is None:
        raise Misconfigured(_NO_OPA)
    found = of_call(reach, Wanted(file=file, revisions=revisions), call_id)
    if not found:
        raise Failed(f"no decision of call {shown(call_id)} is recorded", "`ostiary audit search --call ID` shows it")
    store = Revisions(reach, revisions)
    agreed = [_explained(one, store, trace=trace) for one in found]
    if not all(agreed):
        raise click.exceptions.Exit(_UNFAITHFUL)


def _explained(one: Recorded, store: Revisions, *, trace: bool) -> bool:
    if one.lacking is not None:
        raise Failed(f"the decision cannot be made again: {one.lacking}")
    bundle = store.bundle(one.revision)
    if bundle is None:
        raise Failed(f"the policy of the time, {shown(one.revision)}, is not kept any more")
    word, words = same(bundle, one)
    followed = asyncio.run(follow(bundle, one.document))
    traced = _traced(bundle, one.document) if trace else None
    if wants_json():
        facts = {"call_id": one.event.ostiary.call_id, "revision": one.revision, "same": not words}
        facts |= {"differs": list(words), "effect": word.seen}
        answer(facts | asdict(followed) | ({} if traced is None else {"trace": traced}), ())
    else:
        tables.tell((*_heading(one, words), *_told(followed)))
        click.echo("" if traced is None else traced, nl=traced is not None)
    return not words


def _heading(one: Recorded, words: tuple[str, ...]) -> Iterator[RenderableType]:
    facts, result = one.event.ostiary, one.event.result
    observed = "" if facts.enforced else " (observed, not enforced)"
    yield Text(f"{shown(one.tool)}: {result.effect} in phase {facts.phase}{observed}", "bold")
    yield Text(f"who       {tables.who(one)}")
    yield Text(f"when      {one.event.timestamp.isoformat()}")
    yield Text(f"revision  {shown(one.revision)}")
    if not words:
        yield Text("made again on the policy of the time: the same effect, reasons and requirements", "green")
    for line in words:
        yield Text(f"made again it is NOT the same: {shown(line)}", "bold red")
    for reason in result.reasons:
        fact = f"  (look at: {shown(reason.fact)})" if reason.fact else ""
        yield Text(f"  {shown(reason.id)}: {shown(reason.msg)}{fact}")


def _told(followed: Followed) -> Iterator[RenderableType]:
    if followed.fault:
        yield Text(f"it cannot be followed: {shown(followed.fault)}", "red")
    for one in followed.spoke:
        yield Text(f"\n{one.part} {shown(one.id)}  {shown(one.file)}:{one.lines[0].number}", "bold")
        yield from _source(one.lines, "  ")
        for rule in one.through:
            yield Text(f"    through {shown(rule.name)}  {shown(rule.file)}:{rule.lines[0].number}", "cyan")
            yield from _source(rule.lines, "    ")
    yield Text(f"\n{followed.silent} more rules were evaluated and had nothing to say", "dim")


def _source(lines: Sequence[Line], indent: str) -> Iterator[Text]:
    for line in lines:
        mark, style = _MARKS[line.evaluated]
        yield Text(f"{indent}{line.number:4} {mark} {shown(line.text.expandtabs(4))}", style)


def _traced(bundle: Bundle, document: bytes) -> str:
    # A folder of our own (0700): the input holds arguments.
    with tempfile.TemporaryDirectory(prefix="ostiary-") as name:
        folder = Path(name)
        for module in bundle.modules:
            path = PurePosixPath(module.name)
            if path.is_absolute() or ".." in path.parts:
                raise Misconfigured(f"{shown(module.name)} is no name of a module")
            place = folder / "policy" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(module.text, "utf-8")
        (folder / "policy" / "data.json").write_text(bundle.data, "utf-8")
        (folder / "input.json").write_bytes(document)
        command = ["opa", "eval", "--explain", "full", "--format", "pretty"]
        command += ["--data", "policy", "--input", "input.json", RULE]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command; nothing of it comes from the record
                command, cwd=folder, capture_output=True, text=True, timeout=_TRACE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"opa fails: {type(error).__name__}") from None
    if done.returncode != 0:
        raise Failed(f"opa refuses: {shown(done.stderr.strip()[:500])}")
    return "\n".join(shown(line.expandtabs(2)) for line in done.stdout.splitlines())
