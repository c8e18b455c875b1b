"""``ostiary audit export``: a bundle that a stranger checks without this code."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from gateway.cli.export import verify
from gateway.cli.export.collecting import Collection, Selection
from gateway.cli.export.packing import Records, placed, seal, write_policy
from gateway.cli.export.report import Facts, page
from gateway.cli.export.story import Story
from gateway.cli.export.testimony import witnessed, write_trust
from gateway.cli.moments import ago_or_moment
from gateway.cli.reach import Line, Reach, reaching
from gateway.cli.screen import Failed, Misconfigured, answer, shown

_PATIENCE_S = 600.0
_STEP = 1000
_OPENED = "opened, all that are not erased: the exporter has the scope audit"
_REVISION = re.compile(r"[0-9a-f]{64}")
More = Callable[[Line, Path], None]
UNPROVEN = (
    "the selection is complete only for runs that verify.py calls whole",
    "report.html, README.txt, verify.py, trust.py, this manifest and a folder evidence: the exporter's word",
    "payloads: who has keys.json can try guesses against the commitments of every payload under the same data keys",
)


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which records, and where to."""
    for option in reversed(
        (
            click.option("--run", "run_id", help="All records of this run."),
            click.option("--call", "call_id", help="All records of this call, and of its approval."),
            click.option("--since", callback=ago_or_moment, help="All records since 24h, 7d, or an ISO 8601 time."),
            click.option("--until", callback=ago_or_moment, help="With --since: not after."),
            click.option(
                "-o",
                "--output",
                required=True,
                type=click.Path(path_type=Path),
                help="New folder, or file NAME.tar.gz.",
            ),
            click.option("--payloads", is_flag=True, help="Open goals, arguments and answers, too; this is recorded."),
        )
    ):
        command = option(command)
    return command


@click.command("export")
@choosing
@reaching
def export(reach: Reach, output: Path, *, payloads: bool, **given: Any) -> None:
    """Write records with their proofs as a bundle that anybody can check.

    Who receives it needs the log's public key from elsewhere, Python and the package cryptography: verify.py and
    README.txt are in the bundle, and report.html for reading. Without --payloads it holds ids, names of tools,
    enumerations, numbers and signatures only.
    """
    write(reach, Wish(selection(given), output, payloads=payloads))


def selection(given: dict[str, Any]) -> Selection:
    """The selection of the options.

    Raises:
        Misconfigured: none, or more than one.
    """
    chosen = Selection(given["run_id"], given["call_id"], given["since"], given["until"])
    named = [chosen.run, chosen.call, chosen.since_us]
    if sum(one is not None for one in named) != 1 or (chosen.until_us is not None and chosen.since_us is None):
        raise Misconfigured("one of --run, --call and --since is needed (--until goes with --since)")
    return chosen


class Wish:
    """What is to be written where; ``more`` adds files to the folder before it is sealed."""

    def __init__(self, chosen: Selection, output: Path, *, payloads: bool, more: More | None = None) -> None:
        self.chosen = chosen
        self.output = output
        self.payloads = payloads
        self.more = more


def write(reach: Reach, wish: Wish) -> None:
    """Write the bundle, check it as its receiver will, and say what is in it."""
    with reach.line(_PATIENCE_S) as line, placed(wish.output) as folder:
        seen = witnessed(line)  # before the tree that is exported: that one continues it
        collection = Collection(line, wish.chosen, payloads=wish.payloads)
        story = Story()
        records = _fill(folder, collection, story)
        write_trust(folder, line, collection.head, seen)
        for revision in sorted(records.revisions):
            found = collection.policy(revision) if _REVISION.fullmatch(revision) else None
            if found is not None:
                write_policy(folder, revision, found)
        if wish.more is not None:
            wish.more(line, folder)
        result = _checked(folder, collection.head.vkey)
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        made_by = f"ostiary {version('ostiary')}"
        facts = Facts(_title(wish.chosen), made_at, made_by, wish.payloads)
        with (folder / "report.html").open("x", encoding="utf-8") as file:
            file.writelines(page(facts, story, result))
        claims = {
            "format": verify.FORMAT,
            "made_at": made_at,
            "made_by": made_by,
            "selection": wish.chosen.document | {"payloads": _OPENED if wish.payloads else "not opened"},
            "origin": collection.head.vkey.split("+")[0],
            "size": collection.head.size,
            "records": records.records,
            "payloads": records.payloads,
            "unproven": UNPROVEN,
        }
        seal(folder, claims)
    _answer(wish, result)


def _fill(folder: Path, collection: Collection, story: Story) -> Records:
    head = collection.head
    (folder / "checkpoint").write_text(head.checkpoint, "utf-8")
    (folder / "log.vkey").write_text(f"{head.vkey}\n", "utf-8")
    with Records(folder) as records:
        for row in collection.rows():
            records.add(row)
            story.add(row)
            _progress(records.records)
    return records


def _progress(count: int) -> None:
    if count % _STEP == 0 and sys.stderr.isatty():
        click.echo(f"\r{count:,} records", err=True, nl=False)


def _checked(folder: Path, vkey: str) -> verify.Result:
    try:
        return verify.check_contents(folder, vkey)
    except (verify.Unsound, *verify.MALFORMED) as error:
        raise Failed(
            f"what the gateway gave does not hold: {shown(str(error))}; nothing was written",
            "look at the log itself with `ostiary audit verify`",
        ) from None


def _title(chosen: Selection) -> str:
    if chosen.run is not None:
        return f"The run {chosen.run}"
    if chosen.call is not None:
        return f"The call {chosen.call}"
    since, until = chosen.since_us or 0, chosen.until_us
    return f"Records from {_day(since)} to {'the newest' if until is None else _day(until)}"


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")


def _answer(wish: Wish, result: verify.Result) -> None:
    whole = [name for name, run in result.runs.items() if run.whole]
    document = {
        "bundle": str(wish.output),
        "records": result.records,
        "payloads": result.payloads,
        "runs": len(result.runs),
        "whole_runs": whole,
        "size": result.size,
        "vkey": result.key,
        "unchecked": verify.unchecked(result),
    }
    lines = [
        f"written: {wish.output}",
        f"{result.records} records, {result.payloads} opened payloads; {len(whole)} of {len(result.runs)} runs whole",
        "give the log's public key on another way: log.vkey in the bundle proves nothing by itself",
    ]
    answer(document, lines)
