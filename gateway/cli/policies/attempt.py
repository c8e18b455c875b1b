"""``ostiary policy try``: what of what happened would have been stopped, had the policies been enforced."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import RenderableType
from rich.text import Text

from gateway.cli.policies import tables
from gateway.cli.policies.evaluating import Replayed
from gateway.cli.policies.picking import Revisions, Wanted, decisions, picking
from gateway.cli.policies.replay import carried_out, counts, fidelity, loaded, own_data_option
from gateway.cli.reach import Reach
from gateway.cli.screen import answer, wants_json
from gateway.core.decision import Effect, Phase
from gateway.core.replaying import Seen

_UNFAITHFUL = 2


@click.command("try")
@click.argument("place", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@own_data_option
@picking
def attempt(reach: Reach, wanted: Wanted, place: Path, *, own_data: bool) -> None:
    """Say what of the calls that passed the policies in DIR would stop or park.

    For calls that were recorded in observe mode, and for those that were allowed. DIR is a folder, an archive, or a
    gateway.toml with all it names. Exit code 1 where anything would be stopped or would wait for people, or where
    nothing passed; 2 where the past does not come out as it was recorded.
    """
    found = decisions(reach, wanted)
    done = carried_out(found, Revisions(reach, wanted.revisions), loaded(place, own_data=own_data))
    passed = [one for one in done.replayed if _passed(one)]
    held = [one for one in passed if one.after.faulty or one.after.seen is not Seen.ALLOW]
    if wants_json():
        rows = [dict(zip(_HEADS, (*key, number), strict=True)) for key, number in _grouped(held)]
        ok = bool(passed) and not (held or done.mismatches)
        answer({**counts(done), "passed": len(passed), "held": rows, "more": found.more, "ok": ok}, ())
    else:
        tables.tell((*fidelity(done), *_told(passed, held, more=found.more)))
    if done.mismatches:
        raise click.exceptions.Exit(_UNFAITHFUL)
    if held or not passed:
        raise click.exceptions.Exit(1)


def _passed(one: Replayed) -> bool:
    # What went through at the time: allowed, or let pass by observe mode. A phase ``list`` record is of no execution.
    event = one.recorded.event
    allowed = event.result.effect is Effect.ALLOW or not event.ostiary.enforced
    return allowed and event.ostiary.phase is Phase.CALL


def _told(passed: Sequence[Replayed], held: Sequence[Replayed], *, more: bool) -> Iterator[RenderableType]:
    if more:
        yield Text("there are more: --limit cut them off", "yellow")
    if not passed:
        yield Text("no recorded call passed, so this says nothing", "yellow")
        return
    if not held:
        yield Text(f"everything observed would pass: {len(passed)} of {len(passed)} calls", "bold green")
        return
    yield Text(f"{len(held)} of {len(passed)} calls that passed would not", "bold red")
    rows = [(tool, who, tables.seen(Seen(after)), why, number) for (tool, who, after, why), number in _grouped(held)]
    yield tables.counted("stopped or parked", _HEADS, rows)


_HEADS = ("tool", "who", "effect", "reasons", "calls")


def _grouped(held: Sequence[Replayed]) -> list[tuple[tuple[str, str, str, str], int]]:
    keys = (
        (one.recorded.tool, tables.who(one.recorded), str(one.after.seen), ", ".join(one.after.ids)) for one in held
    )
    return Counter[tuple[str, str, str, str]](keys).most_common()
