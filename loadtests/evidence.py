"""What a benchmark run proves: figures from samples, targets and whether they are met, and where that is written.

``docs/evidence/one-door.json`` is for programs, the marked table in ``docs/performance.md`` for people; both come from
the same figures. The digest of the covered sources lets anybody see whether the evidence is about the present code:
SHA-256 over each covered file in order of its path: path, NUL, SHA-256 of its bytes in hex, line feed.
"""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.load import HANDSHAKE, ROOT, STATELESS, Load, Sample, spread
from loadtests.processes import Memory

COVERED: Final = ("gateway", "connectors", "policies")
MARK_START: Final = "<!-- figures:one-door -->"
MARK_END: Final = "<!-- /figures:one-door -->"
_IGNORED: Final = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})
_FIGURES: Final = (
    "cpu_process_us",
    "cpu_tree_us",
    "reference_process_us",
    "reference_tree_us",
    "p50_us",
    "p99_us",
    "per_second",
    "calls",
    "probe_ms",
)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured; every load once, in a shuffled order.

    Attributes:
        samples: by load.
        fdatasync_us: median time of a durable append, before the loads.
        probe_ms: how fast a core was, before and after the loads.
        load_average: of the machine, after the loads.
    """

    samples: Mapping[Load, Sample]
    fdatasync_us: float
    probe_ms: tuple[float, float]
    load_average: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run.

    Attributes:
        seed: of the loads' order and the texts sent.
        seconds: how long it took.
        digest: of the covered sources.
        rounds: what was measured.
        memory: of the gateway's processes after the last round.
        conditions: under what.
    """

    seed: int
    seconds: float
    digest: str
    rounds: Sequence[Round]
    memory: Sequence[Memory]
    conditions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the verdict.

    Attributes:
        figure: what was promised.
        limit: the promise in words.
        value: what was measured, in the limit's unit.
        met: whether it holds.
    """

    figure: str
    limit: str
    value: float
    met: bool


def document(run: Run) -> dict[str, Any]:
    """The evidence of a run in which every door was measured."""
    found = figures(run.rounds, run.memory)
    judged = targets(found)
    samples = [sample for each in run.rounds for sample in each.samples.values()]
    return {
        "campaign": "one-door",
        "commit": commit(),
        "covered": list(COVERED),
        "digest": run.digest,
        "seed": run.seed,
        "seconds": round(run.seconds, 1),
        "counts": {"rounds": len(run.rounds), "loads": len(samples), "calls": sum(each.calls for each in samples)},
        "conditions": dict(run.conditions),
        "load_averages": [each.load_average for each in run.rounds],
        "figures": found,
        "targets": [asdict(target) for target in judged],
        "verdict": "passed" if all(target.met for target in judged) else "failed",
    }


def figures(rounds: Sequence[Round], memory: Sequence[Memory]) -> dict[str, Any]:
    """The figures of a run: medians with least and most over the rounds."""
    loads = [
        asdict(load) | {name: spread([getattr(each.samples[load], name) for each in rounds]) for name in _FIGURES}
        for load in rounds[0].samples
    ]
    return {
        "loads": loads,
        "added_p50_us": {
            version: spread([_added(each.samples, version) for each in rounds]) for version in (STATELESS, HANDSHAKE)
        },
        "reference_added_p50_us": {
            version: spread([_reference_added(each, version) for each in rounds]) for version in (STATELESS, HANDSHAKE)
        },
        "fdatasync_p50_us": spread([each.fdatasync_us for each in rounds]),
        "probe_ms": spread([probe for each in rounds for probe in each.probe_ms]),
        "memory_mb": [asdict(each) for each in memory],
    }


def targets(found: Mapping[str, Any]) -> list[Target]:
    """The targets of a governed call. Where a figure has several loads, the worst of them is judged.

    Times are judged at the reference's speed: on a shared machine the same code takes twice as long from one minute to
    the next, and the probe beside each load says how slow the machine was.
    """
    own = [load for load in found["loads"] if load["door"] == "ostiary" and load["connections"] > 1]
    process = max(load["reference_process_us"]["median"] for load in own) / 1e3
    tree = max(load["reference_tree_us"]["median"] for load in own) / 1e3
    synced = found["fdatasync_p50_us"]["median"] / 1e3
    added = max(each["median"] for each in found["reference_added_p50_us"].values()) / 1e3
    ratio = min(ratio_to(found["loads"], version) for version in (STATELESS, HANDSHAKE))
    gateway = max(each["rss"] for each in found["memory_mb"] if each["role"] == "gateway")
    worker = max(each["rss"] for each in found["memory_mb"] if each["role"] == "policy worker")
    allowed = 2 + 2 * synced
    limit = f"<= 2 ms + 2 fdatasync of {synced:.2f} ms = {allowed:.2f} ms"
    return [
        _target("CPU a call, c = 16, gateway process", "<= 1.2 ms", process, met=process <= 1.2),
        _target("CPU a call, c = 16, whole tree", "<= 2.2 ms", tree, met=tree <= 2.2),
        _target("added p50, c = 1", limit, added, met=added <= allowed),
        _target("CPU a call, c = 16, FastMCP shared client / Ostiary's tree", ">= 2", ratio, met=ratio >= 2),
        _target("memory, gateway process (RSS)", "<= 140 MB", gateway, met=gateway <= 140),
        _target("memory, policy worker (RSS)", "<= 60 MB", worker, met=worker <= 60),
    ]


def conditions(folder: Path, versions: Mapping[str, str]) -> dict[str, Any]:
    """Under what the figures were taken; ``folder`` is where the log was written."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file_system": _file_system(folder),
        "versions": dict(sorted(versions.items())),
    }


def sources_digest(root: Path = ROOT, covered: Iterable[str] = COVERED) -> str:
    """Digest of the sources the evidence is about, lower-case hex."""
    files = sorted(
        path.relative_to(root).as_posix()
        for name in covered
        for path in (root / name).rglob("*")
        if path.is_file() and not _IGNORED.intersection(path.parts)
    )
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def commit(root: Path = ROOT) -> str:
    """The commit the sources stand on; ``unknown`` outside a repository. The digest is what counts."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write_table(page: Path, table: str, marks: tuple[str, str] = (MARK_START, MARK_END)) -> None:
    """Put ``table`` between the marks of ``page``.

    Raises:
        ValueError: the page has no marks.
    """
    text = page.read_text("utf-8")
    before, start, rest = text.partition(marks[0])
    _, stop, after = rest.partition(marks[1])
    if not (start and stop):
        raise ValueError(f"{page}: no {marks[0]} ... {marks[1]}")
    page.write_text(f"{before}{start}\n{table}\n{stop}{after}", "utf-8")


def table(evidence: Mapping[str, Any]) -> str:
    """The evidence as Markdown."""
    found, counts = evidence["figures"], evidence["counts"]
    lines = [
        f"{counts['rounds']} rounds, {counts['calls']:,} calls, every answer checked, seed {evidence['seed']}.",
        "Medians over the rounds, [least, most] in brackets.",
        "",
        _circumstances(evidence),
        "",
        "| door | revision | c | runs | CPU, ms: process | tree | at reference speed | p50, ms | p99, ms | calls/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(load) for load in found["loads"]),
        "",
        "| target | limit | measured | |",
        "|---|---|---|---|",
        *(
            f"| {each['figure']} | {each['limit']} | {each['value']:.2f} | {'met' if each['met'] else '**missed**'} |"
            for each in evidence["targets"]
        ),
        "",
        "Targets are judged at reference speed. Added p50 at c = 1 as measured: "
        + ", ".join(f"{version} {_milli(value)}" for version, value in found["added_p50_us"].items())
        + " ms. Memory after the run (RSS / PSS, MB): "
        + ", ".join(f"{each['role']} {each['rss']:.0f} / {each['pss']:.0f}" for each in found["memory_mb"])
        + ".",
    ]
    return "\n".join(lines)


def _circumstances(evidence: Mapping[str, Any]) -> str:
    about, found = evidence["conditions"], evidence["figures"]
    firsts = [each[0] for each in evidence["load_averages"]]
    probe = found["probe_ms"]
    return (
        f"{about['cores']} cores ({about['processor']}), {about['kernel']}, Python {about['python']}, log on"
        f" {about['file_system']}. Load average {min(firsts):.1f} to {max(firsts):.1f}; speed probe"
        f" {probe['median']:.0f} [{probe['min']:.0f}, {probe['max']:.0f}] ms; fdatasync p50"
        f" {_milli(found['fdatasync_p50_us'])} ms. "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + "."
    )


def _target(figure: str, limit: str, value: float, *, met: bool) -> Target:
    return Target(figure, limit, round(value, 3), met)


def _added(samples: Mapping[Load, Sample], version: str) -> float:
    alone = {load.door: sample for load, sample in samples.items() if (load.version, load.connections) == (version, 1)}
    return alone["ostiary"].p50_us - alone["direct"].p50_us


def _reference_added(each: Round, version: str) -> float:
    # Syncing takes what it takes; the rest is work.
    own = next(
        s for load, s in each.samples.items() if (load.door, load.version, load.connections) == ("ostiary", version, 1)
    )
    synced = 2 * each.fdatasync_us
    return synced + (_added(each.samples, version) - synced) / own.slowness


def ratio_to(loads: Sequence[Mapping[str, Any]], version: str, door: str = "fastmcp-shared") -> float:
    """How many times as much CPU a call through a peer takes as one through Ostiary's whole tree, c = 16."""
    many = [load for load in loads if load["version"] == version and load["connections"] > 1]
    own = max(load["reference_tree_us"]["median"] for load in many if load["door"] == "ostiary")
    peer = next(load["reference_tree_us"]["median"] for load in many if load["door"] == door)
    return float(peer / own)


def _row(load: Mapping[str, Any]) -> str:
    cells = [load["door"], load["version"], load["connections"], load["runs"]]
    cells += [_milli(load[name]) for name in ("cpu_process_us", "cpu_tree_us")]
    cells.append(
        " / ".join(f"{load[name]['median'] / 1e3:.2f}" for name in ("reference_process_us", "reference_tree_us"))
    )
    cells += [_milli(load[name]) for name in ("p50_us", "p99_us")]
    return "| " + " | ".join(map(str, [*cells, f"{load['per_second']['median']:,.0f}"])) + " |"


def _milli(figure: Mapping[str, float]) -> str:
    median, least, most = (figure[name] / 1e3 for name in ("median", "min", "max"))
    return f"{median:.2f} [{least:.2f}, {most:.2f}]"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    # The mount with the longest path that holds the folder; see proc_pid_mountinfo(5).
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if folder.resolve().is_relative_to(point) and len(point) > len(best):
            best, kind = point, right.split()[0]
    return kind
