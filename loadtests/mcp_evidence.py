"""What a run of ``loadtests/mcp.py`` proves, by the targets for MCP.

``docs/evidence/mcp-speed.json`` is for programs, the marked table in ``docs/performance.md`` for people.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from loadtests import evidence
from loadtests.evidence import Run, Target
from loadtests.idle import Growth
from loadtests.load import HANDSHAKE, STATELESS
from loadtests.streaming import Lag

MARKS: Final = ("<!-- figures:mcp -->", "<!-- /figures:mcp -->")
_RIVALS: Final = {"contextforge": "ContextForge", "litellm": "LiteLLM"}


@dataclass(frozen=True, slots=True)
class Beside:
    """What was measured beside the calls.

    Attributes:
        idle: what idle sessions cost.
        lags: of streamed events.
        missing: rivals that were not measured, and why.
    """

    idle: Sequence[Growth]
    lags: Sequence[Lag]
    missing: Mapping[str, str]


def document(run: Run, beside: Beside) -> dict[str, Any]:
    """The evidence of a whole run."""
    found = evidence.figures(run.rounds, run.memory) | {
        "idle": [asdict(each) | {"mb": round(each.mb, 1)} for each in beside.idle],
        "streaming": [asdict(each) for each in beside.lags],
    }
    judged = targets(found)
    return evidence.document(run) | {
        "campaign": "mcp-speed",
        "figures": found,
        "targets": [asdict(target) for target in judged],
        "not_measured": dict(beside.missing),
        "verdict": "passed" if all(target.met for target in judged) else "failed",
    }


def targets(found: Mapping[str, Any]) -> list[Target]:
    """The targets of a call by MCP. Where a figure has several loads, the worst of them is judged."""
    return [*_calls(found), *_ratios(found["loads"]), *_memory(found), *_streams(found["streaming"])]


def table(said: Mapping[str, Any]) -> str:
    """The evidence as Markdown."""
    found = said["figures"]
    lines = [
        evidence.table(said),
        "",
        "| idle sessions | stream open | gateway before, MB | with them, MB | KB a session |",
        "|---|---|---|---|---|",
        *(
            f"| {each['sessions']:,} | {'yes' if each['streams'] else 'no'} | {each['before_mb']:.0f}"
            f" | {each['after_mb']:.0f} | {each['mb'] * 1e3 / each['sessions']:.0f} |"
            for each in found["idle"]
        ),
        "",
        "| streamed events, each heard before the next was sent | revision | events | p50, us | p99, us |",
        "|---|---|---|---|---|",
        *(
            f"| {each['door']} | {each['version']} | {each['events']:,} | {each['p50_us']:.0f} | {each['p99_us']:.0f} |"
            for each in found["streaming"]
        ),
    ]
    missing = [f"{_RIVALS[name]} was not measured: {reason}." for name, reason in said["not_measured"].items()]
    return "\n".join([*lines, *([""] if missing else []), *missing])


def _calls(found: Mapping[str, Any]) -> Iterator[Target]:
    own = [load for load in found["loads"] if load["door"] == "ostiary" and load["connections"] > 1]
    process = max(load["reference_process_us"]["median"] for load in own) / 1e3
    tree = max(load["reference_tree_us"]["median"] for load in own) / 1e3
    synced = found["fdatasync_p50_us"]["median"] / 1e3
    added = max(each["median"] for each in found["reference_added_p50_us"].values()) / 1e3
    allowed = 0.8 + 2 * synced
    yield _at_most("CPU a call, c = 16, gateway process", "<= 0.5 ms", process, 0.5)
    yield _at_most("CPU a call, c = 16, whole tree", "<= 1.2 ms", tree, 1.2)
    limit = f"<= 0.8 ms + 2 fdatasync of {synced:.2f} ms = {allowed:.2f} ms"
    yield _at_most("added p50, c = 1", limit, added, allowed)


def _ratios(loads: Sequence[Mapping[str, Any]]) -> Iterator[Target]:
    least = min(evidence.ratio_to(loads, version) for version in (STATELESS, HANDSHAKE))
    yield _at_least("CPU a call, c = 16, FastMCP shared client / Ostiary's tree", least, 5)
    for door, name in _RIVALS.items():
        if any(load["door"] == door for load in loads):
            times = evidence.ratio_to(loads, HANDSHAKE, door)
            yield _at_least(f"CPU a call, c = 16, {name} / Ostiary's tree", times, 40)


def _memory(found: Mapping[str, Any]) -> Iterator[Target]:
    for role, name, most in (("gateway", "gateway process", 140), ("policy worker", "policy worker", 60)):
        held = max(each["rss"] for each in found["memory_mb"] if each["role"] == role)
        yield _at_most(f"memory, {name} (RSS)", f"<= {most} MB", held, most)
    worst = max(found["idle"], key=lambda each: each["mb"])
    yield _at_most(f"memory that {worst['sessions']:,} idle sessions add (RSS)", "<= 60 MB", worst["mb"], 60)


def _streams(lags: Sequence[Mapping[str, Any]]) -> Iterator[Target]:
    # The upstream sent none before the one before it was heard: a run in which one was held back is void.
    through = sum(each["events"] for each in lags if each["door"] == "ostiary")
    yield Target("events through the gateway that were heard before the next was sent", "all", through, met=through > 0)


def _at_most(figure: str, limit: str, value: float, most: float) -> Target:
    return Target(figure, limit, round(value, 3), met=value <= most)


def _at_least(figure: str, value: float, least: float) -> Target:
    return Target(figure, f">= {least}", round(value, 3), met=value >= least)
