"""What the benchmark of MCP calls concludes from its samples."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from loadtests.evidence import Round, Run
from loadtests.idle import Growth
from loadtests.load import REFERENCE_PROBE_MS, Sample
from loadtests.mcp import LOADS, Size
from loadtests.mcp_evidence import Beside, document, table
from loadtests.processes import Memory
from loadtests.rivals import RIVALS
from loadtests.streaming import Lag

PROMISED = 10
NOTHING: Mapping[str, float] = {}
LAGS = [Lag(door, "2025-11-25", 50, 30.0, 90.0) for door in ("direct", "ostiary")]
QUIET = Growth(1000, streams=False, before_mb=100.0, after_mb=120.0)
LISTENING = Growth(1000, streams=True, before_mb=100.0, after_mb=160.0)
KEPT = Beside([QUIET, LISTENING], LAGS, {})


def run(worse: Mapping[str, float] = NOTHING, without: str = "") -> Run:
    """A run in which every target is met, but for what ``worse`` says of one of Ostiary's loads."""
    samples = {}
    for load in LOADS:
        figures = {"p50_us": 300.0, "cpu_process_us": 50.0, "cpu_tree_us": 50.0}
        if load.door == "fastmcp-shared":
            figures |= {"cpu_process_us": 2500.0, "cpu_tree_us": 2500.0}
        if load.door in RIVALS:
            figures |= {"cpu_process_us": 20_000.0, "cpu_tree_us": 20_000.0}
        if load.door == "ostiary":
            figures |= {"p50_us": 2000.0, "cpu_process_us": 400.0, "cpu_tree_us": 500.0}
            figures |= worse if load.version == "2025-11-25" else NOTHING
        sample = Sample(calls=100, seconds=1.0, per_second=100.0, p99_us=9000.0, **figures, probe_ms=REFERENCE_PROBE_MS)
        if load.door != without:
            samples[load] = sample
    rounds = [Round(samples, fdatasync_us=500.0, probe_ms=(40.0, 50.0), load_average=(1.0, 1.0, 1.0))] * 3
    memory = [Memory("gateway", 140.0, 80.0), Memory("policy worker", 60.0, 40.0)]
    about = {"cores": 2, "processor": "p", "kernel": "k", "python": "3", "file_system": "ext4", "versions": {"a": "1"}}
    return Run(seed=7, seconds=12.0, digest="d", rounds=rounds, memory=memory, conditions=about)


def missed(found: dict[str, Any]) -> list[str]:
    """The figures whose target is missed."""
    return [each["figure"] for each in found["targets"] if not each["met"]]


def test_a_run_that_keeps_every_promise_passes() -> None:
    """All targets are judged, at their limits, and met."""
    found = document(run(), KEPT)
    assert (found["verdict"], missed(found), len(found["targets"])) == ("passed", [], PROMISED)
    assert found["campaign"] == "mcp-speed"


@pytest.mark.parametrize(
    ("worse", "figures"),
    [
        ({"cpu_process_us": 501.0}, ["CPU a call, c = 16, gateway process"]),
        (
            {"cpu_tree_us": 1201.0},
            [
                "CPU a call, c = 16, whole tree",
                "CPU a call, c = 16, FastMCP shared client / Ostiary's tree",
                "CPU a call, c = 16, ContextForge / Ostiary's tree",
                "CPU a call, c = 16, LiteLLM / Ostiary's tree",
            ],
        ),
        ({"p50_us": 2101.0}, ["added p50, c = 1"]),
    ],
)
def test_the_worst_load_of_a_figure_is_judged(worse: dict[str, float], figures: list[str]) -> None:
    """One era over its limit fails the run, though the other keeps it."""
    found = document(run(worse), KEPT)
    assert found["verdict"] == "failed"
    assert missed(found) == figures


def test_the_dearer_kind_of_idle_session_is_judged() -> None:
    """Whether it has a stream open or not."""
    dear = Beside([replace(QUIET, after_mb=160.1), replace(LISTENING, after_mb=120.0)], LAGS, {})
    assert missed(document(run(), dear)) == ["memory that 1,000 idle sessions add (RSS)"]


def test_a_rival_that_is_not_here_is_named_with_the_reason() -> None:
    """No target speaks of it, and the page says why."""
    found = document(run(without="litellm"), Beside(KEPT.idle, LAGS, {"litellm": "it is not installed"}))
    assert len(found["targets"]) == PROMISED - 1
    assert "LiteLLM was not measured: it is not installed." in table(found)


def test_no_events_through_the_gateway_are_no_proof() -> None:
    """A run without a stream through the gateway does not pass."""
    found = document(run(), Beside(KEPT.idle, LAGS[:1], {}))
    assert missed(found) == ["events through the gateway that were heard before the next was sent"]


def test_the_page_has_every_part() -> None:
    """Calls, idle sessions and streams, each with its figures."""
    text = table(document(run(), KEPT))
    assert "| contextforge | 2025-11-25 | 16 | 1 |" in text
    assert "| 1,000 | yes | 100 | 160 | 60 |" in text
    assert "| ostiary | 2025-11-25 | 50 | 30 | 90 |" in text


def test_less_than_everything_is_no_evidence() -> None:
    """Fewer rounds, doors or sessions only look."""
    doors = ("direct", "ostiary", "fastmcp-shared", *RIVALS)
    assert Size(9, 1.0, doors).is_whole
    assert not any(
        size.is_whole for size in (Size(8, 1.0, doors), Size(9, 1.0, doors[:-1]), Size(9, 1.0, doors, sessions=999))
    )
