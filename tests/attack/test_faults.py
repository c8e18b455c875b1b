"""Whatever breaks, and when: every effect has its own earlier durable intent, and every intent ends once.

The first hundred runs of the fault campaign, on the real parts; ``make campaign NAME=faults`` is all of it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.campaigns.faults.plan import DEADLY, GRID, MUTE, UNPLACED, Fault, Kind, Side, Step, plan
from tests.fixtures.broken_doors import BROKEN
from tests.tiers import tiered

ROOT = Path(__file__).parents[2]
SLICE = 25


def conducted(*command: str) -> tuple[int, list[str]]:
    """Run a campaign as a process of its own, as it forks; its exit code, and what it said while it ran."""
    said = []
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()
        return process.wait(), said


@pytest.mark.requirement("TEST-5")
@pytest.mark.parametrize("first", range(0, 4 * SLICE, SLICE))
def test_the_invariant_holds_whatever_breaks(first: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Twenty-five seeded runs with one fault each; a run that breaks the invariant says how to repeat it."""
    with capfd.disabled():
        code, said = conducted("deploy.campaigns.faults", "--seed", str(first), "--runs", str(SLICE))
    assert code == 0, "".join(said)
    assert said[-1].startswith(f"passed: {SLICE} runs"), said[-1]


def test_a_first_start_that_is_killed_can_be_taken_up_again() -> None:
    """Killed between any two files of keys, log and guard: the next start finds nothing that looks lost or set back."""
    code, said = conducted("deploy.campaigns.faults", "--fault", Fault.KILLED_STARTING, "--runs", "12")
    assert code == 0, "".join(said)


@pytest.mark.parametrize("name", tiered(["acknowledges_before_the_commit", "invokes_twice"], deep=sorted(BROKEN)))
def test_a_gateway_that_breaks_a_promise_is_found_out(name: str) -> None:
    """Each of the gateways that are broken on purpose is reported, with the seed to repeat it by."""
    code, said = conducted("tests.fixtures.broken_doors", name)
    assert code == 0, "".join(said)
    assert any('again: make campaign NAME=faults ARGS="--seed ' in line for line in said)


def test_the_grid_is_whole() -> None:
    """Every fault strikes before and after every step, and as many seeds as entries try them all."""
    pairs = {(found.fault, found.point) for found in map(plan, range(len(GRID)))}
    placed = set(Fault) - UNPLACED
    assert len(pairs) == len(placed) * len(Step) * len(Side) + len(UNPLACED)
    assert placed >= MUTE
    assert UNPLACED - {Fault.NONE} <= DEADLY


def test_a_seed_makes_the_same_run_again() -> None:
    """The plan is the seed's; each run has calls of all four effect classes and some that must reach nothing."""
    assert plan(7) == plan(7) != plan(7 + len(GRID))
    for seed in range(200):
        calls = plan(seed).calls
        tools = {call.tool.partition(".")[2] for call in calls if call.kind is Kind.PERMITTED}
        assert tools & {"look", "find"}
        assert tools & {"write", "enter"}
        assert tools & {"remove", "strike"}
        assert "pay" in tools
        assert sum(call.kind is not Kind.PERMITTED for call in calls) == 3
        assert len({call.marker for call in calls}) == len(calls)
