"""What the benchmark concludes from its samples, and where it writes it."""

from pathlib import Path
from typing import Any

import pytest

from loadtests.evidence import MARK_END, MARK_START, Round, Run, document, sources_digest, table, write_table
from loadtests.load import REFERENCE_PROBE_MS, Sample
from loadtests.one_door import LOADS
from loadtests.processes import Memory

PROMISED = 6


def run(slowness: float = 1.0, **worse: float) -> Run:
    """A run of three rounds in which every target is met, but for what ``worse`` says of one of Ostiary's loads."""
    samples = {}
    for load in LOADS:
        figures = {"p50_us": 300.0, "cpu_process_us": 100.0, "cpu_tree_us": 100.0}
        if load.door.startswith("fastmcp"):
            figures |= {"cpu_process_us": 4000.0, "cpu_tree_us": 4000.0}
        if load.door == "ostiary":
            figures |= {"p50_us": 2000.0, "cpu_process_us": 900.0, "cpu_tree_us": 1500.0}
            figures |= worse if load.runs > 1 or load.connections == 1 else {}
        slow = {"probe_ms": REFERENCE_PROBE_MS * slowness}
        samples[load] = Sample(calls=100, seconds=1.0, per_second=100.0, p99_us=9000.0, **figures, **slow)
    rounds = [Round(samples, fdatasync_us=500.0, probe_ms=(40.0, 50.0), load_average=(1.0, 1.0, 1.0))] * 3
    memory = [Memory("gateway", 100.0, 80.0), Memory("policy worker", 50.0, 40.0)]
    about = {"cores": 2, "processor": "p", "kernel": "k", "python": "3", "file_system": "ext4", "versions": {"a": "1"}}
    return Run(seed=7, seconds=12.0, digest="d", rounds=rounds, memory=memory, conditions=about)


def missed(found: dict[str, Any]) -> list[str]:
    """The figures whose target is missed."""
    return [each["figure"] for each in found["targets"] if not each["met"]]


def test_a_run_that_keeps_every_promise_passes() -> None:
    """All targets are judged, met, and counted."""
    found = document(run())
    assert found["verdict"] == "passed"
    assert len(found["targets"]) == PROMISED
    assert found["counts"] == {"rounds": 3, "loads": 3 * len(LOADS), "calls": 300 * len(LOADS)}


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        ({"cpu_process_us": 1201.0}, "CPU a call, c = 16, gateway process"),
        ({"cpu_tree_us": 2201.0}, "CPU a call, c = 16, whole tree"),
        ({"cpu_tree_us": 2001.0}, "CPU a call, c = 16, FastMCP shared client / Ostiary's tree"),
        ({"p50_us": 3301.0}, "added p50, c = 1"),
    ],
)
def test_the_worst_load_of_a_figure_is_judged(worse: dict[str, float], figure: str) -> None:
    """One load over its limit fails the run, though the others keep it."""
    found = document(run(**worse))
    assert found["verdict"] == "failed"
    assert figure in missed(found)


def test_a_slow_machine_is_taken_into_account() -> None:
    """Times are judged as they would be at the reference's speed; syncing, and ratios, are not stretched."""
    late = {"cpu_process_us": 1799.0, "cpu_tree_us": 1799.0, "p50_us": 4200.0}
    assert missed(document(run(slowness=1.5, **late))) == []
    assert "added p50, c = 1" in missed(document(run(slowness=1.5, **late | {"p50_us": 4400.0})))
    assert missed(document(run(slowness=1.5, **late | {"cpu_tree_us": 2001.0}))) == [
        "CPU a call, c = 16, FastMCP shared client / Ostiary's tree"
    ]


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    """Only what stands between the marks is replaced, as often as one likes."""
    page, text = tmp_path / "page.md", table(document(run()))
    page.write_text(f"before\n{MARK_START}\nold\n{MARK_END}\nafter\n", "utf-8")
    for _ in range(2):
        write_table(page, text)
    assert page.read_text("utf-8") == f"before\n{MARK_START}\n{text}\n{MARK_END}\nafter\n"
    assert "| ostiary | 2026-07-28 | 16 | 16 |" in text
    page.write_text("no marks\n", "utf-8")
    with pytest.raises(ValueError, match="no <!--"):
        write_table(page, text)


def test_the_digest_follows_the_sources(tmp_path: Path) -> None:
    """Another byte, another name: another digest; caches do not count."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "a.py").write_text("1")
    first = sources_digest(tmp_path, ["gateway"])
    (tmp_path / "gateway" / "__pycache__").mkdir()
    (tmp_path / "gateway" / "__pycache__" / "a.pyc").write_text("x")
    assert sources_digest(tmp_path, ["gateway"]) == first
    (tmp_path / "gateway" / "a.py").rename(tmp_path / "gateway" / "b.py")
    second = sources_digest(tmp_path, ["gateway"])
    (tmp_path / "gateway" / "b.py").write_text("2")
    assert len({first, second, sources_digest(tmp_path, ["gateway"])}) == 3
