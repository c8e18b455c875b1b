"""``ostiary policy replay``: what a candidate would have said to what happened."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from gateway.adapters.clock import SystemClock
from gateway.adapters.rego.candidate import candidate
from gateway.cli import home
from gateway.cli.policies import tables
from gateway.cli.policies.evaluating import Mismatch, Replay, Replayed
from gateway.cli.policies.evaluating import replay as replayed
from gateway.cli.policies.picking import Found, Revisions, Wanted, decisions, picking
from gateway.cli.reach import Reach
from gateway.cli.screen import Misconfigured, answer, shown, wants_json
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Phase
from gateway.core.known import KnownValues
from gateway.core.replaying import Shift, differences, matrix, shift
from gateway.parts.policy_sources import Sources
from gateway.settings import SettingsError

Instead = Callable[[Bundle], Bundle]
"""What would be in force in the place of a bundle of the past."""
_UNFAITHFUL = 2
# What replays. With a real OPA before the gateway, too: it serves one policy at a time, and to calls.
_EMBEDDED = "regorus/"
_TITLES = {
    Shift.FAULT: ("the candidate fails", "bold red"),
    Shift.NEWLY_ALLOWED: ("newly allowed", "bold red"),
    Shift.NEWLY_DENIED: ("newly denied", "bold yellow"),
    Shift.CHANGED: ("asked otherwise: approval, or what a call is bound to", "bold yellow"),
    Shift.REASONS: ("for other reasons", "bold"),
}
_FAILS = {
    None: frozenset[Shift](),
    "newly-allowed": frozenset({Shift.FAULT, Shift.NEWLY_ALLOWED}),
    "any-change": frozenset(Shift) - {Shift.SAME},
}


own_data_option = click.option(
    "--own-data", is_flag=True, help="Of a folder: its data alone counts, nothing of what was in force at the time."
)


@click.command()
@click.option(
    "--candidate",
    "place",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True),
    help="The policies that might come into force: a folder, an archive, or a gateway.toml with all it names.",
)
@own_data_option
@click.option(
    "--fail-on", type=click.Choice(["newly-allowed", "any-change"]), help="Exit with 1 where this is found; for CI."
)
@picking
def replay(reach: Reach, wanted: Wanted, place: Path, *, own_data: bool, fail_on: str | None) -> None:
    """Evaluate recorded decisions with the policies in DIR.

    Each is first made again by the policy that made it; where one comes out otherwise than it was recorded, the exit
    code is 2, as a replay that does not reproduce the past says nothing of the future. A hidden tool that would be
    there counts as newly allowed. With --fail-on nothing replayed is a failure, too.
    """
    found = decisions(reach, wanted)
    done = carried_out(found, Revisions(reach, wanted.revisions), loaded(place, own_data=own_data))
    shifts = {kind: [one for one in done.replayed if shift(one.before, one.after) is kind] for kind in Shift}
    failed = any(shifts[kind] for kind in _FAILS[fail_on]) or (fail_on is not None and not done.replayed)
    if wants_json():
        answer(_document(done, shifts, found) | {"ok": not (failed or done.mismatches)}, ())
    else:
        tables.tell(_told(done, shifts, found))
    if done.mismatches:
        raise click.exceptions.Exit(_UNFAITHFUL)
    if failed:
        raise click.exceptions.Exit(1)


def loaded(place: Path, *, own_data: bool = False) -> Instead:
    """What would be in force instead: the policies at ``place`` over those of the past, or all a gateway.toml names.

    Raises:
        Misconfigured: it cannot be read.
    """
    try:
        if place.suffix != ".toml":
            return candidate(place, own_data=own_data).over
        whole = asyncio.run(Sources(home.read(place), KnownValues(), SystemClock(), keep=False).first())
    except BundleError as error:
        raise Misconfigured("the candidate cannot be read: " + "; ".join(map(shown, error.problems))) from None
    except SettingsError as error:
        raise home.unusable(error) from None
    return lambda _past: whole


def carried_out(found: Found, revisions: Revisions, instead: Instead) -> Replay:
    """All of them evaluated twice, with a bar on a terminal."""
    # Both phases of a call, each by two policies.
    total = sum(2 * (1 if one.event.ostiary.phase is Phase.LIST else 2) for one in found.decisions)
    with tables.progress("evaluating", total) as tick:
        return replayed(found.decisions, revisions.bundle, instead, tick)


def fidelity(done: Replay) -> Iterator[RenderableType]:
    """What was and was not replayed, and whether the past came out as it was."""
    count = len(done.replayed)
    yield Text(f"{count} recorded decisions evaluated again", "bold")
    for why, number in done.lacking.items():
        yield Text(f"{number} cannot be: {why}", "yellow")
    for engine, number in _elsewhere(done).items():
        yield Text(f"{number} were decided by {shown(engine)}; what follows is the embedded engine's word", "yellow")
    if not done.mismatches:
        yield Text(f"fidelity: {count} of {count} come out as they were recorded", "green")
        return
    text = f"fidelity: {len(done.mismatches)} of {count} do NOT come out as they were recorded; nothing below counts"
    yield Text(text, "bold red")
    for one in done.mismatches[: tables.MOST]:
        facts = one.recorded.event.ostiary
        yield Text(f"  {shown(facts.call_id)}  {shown(one.recorded.tool)}", "red")
        for words in one.words:
            yield Text(f"    {shown(words)}", "dim")


def counts(done: Replay) -> dict[str, Any]:
    """The same for machines."""
    return {
        "replayed": len(done.replayed),
        "decided_by_another_engine": _elsewhere(done),
        "not_replayable": {str(why): number for why, number in done.lacking.items()},
        "fidelity": {
            "reproduced": len(done.replayed) - len(done.mismatches),
            "mismatches": [_mismatched(one) for one in done.mismatches],
        },
    }


def _elsewhere(done: Replay) -> dict[str, int]:
    engines = (one.recorded.event.ostiary.engine for one in done.replayed)
    return dict(Counter(engine for engine in engines if engine and not engine.startswith(_EMBEDDED)))


def _told(done: Replay, shifts: dict[Shift, list[Replayed]], found: Found) -> Iterator[RenderableType]:
    yield from fidelity(done)
    if found.more:
        yield Text("there are more: --limit cut them off", "yellow")
    if not done.replayed:
        yield Text("nothing could be replayed, so this says nothing", "yellow")
        return
    yield tables.matrix(matrix((one.before, one.after) for one in done.replayed))
    for kind, (title, style) in _TITLES.items():
        if shifts[kind]:
            rows = [(one.recorded, one.before, one.after, differences(one.before, one.after)) for one in shifts[kind]]
            yield tables.calls(title, style, rows)
    if len(shifts[Shift.SAME]) == len(done.replayed):
        yield Text("nothing changes", "bold green")
    elif not shifts[Shift.NEWLY_ALLOWED]:
        yield Text("nothing is newly allowed", "bold green")


def _document(done: Replay, shifts: dict[Shift, list[Replayed]], found: Found) -> dict[str, Any]:
    cells = matrix((one.before, one.after) for one in done.replayed)
    return {
        **counts(done),
        "more": found.more,
        "matrix": [{"before": a, "after": b, "count": cells[a, b]} for a, b in sorted(cells)],
        "shifts": dict(Counter(kind for kind, ones in shifts.items() for _ in ones)),
        **{str(kind): [_row(one) for one in shifts[kind]] for kind in _TITLES},
    }


def _row(one: Replayed) -> dict[str, Any]:
    facts = one.recorded.event.ostiary
    return {
        "call_id": facts.call_id,
        "index": facts.index,
        "tool": one.recorded.tool,
        "agent": one.recorded.agent,
        "user": one.recorded.person,
        "before": {"effect": one.before.seen, "reasons": list(one.before.ids)},
        "after": {"effect": one.after.seen, "reasons": list(one.after.ids)},
        "differences": list(differences(one.before, one.after)),
    }


def _mismatched(one: Mismatch) -> dict[str, Any]:
    facts = one.recorded.event.ostiary
    return {"call_id": facts.call_id, "index": facts.index, "tool": one.recorded.tool, "words": list(one.words)}
