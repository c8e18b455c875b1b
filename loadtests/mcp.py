"""``make bench NAME=mcp``: the gateway as an MCP gateway, against the upstream itself and three others.

Calls as in ``loadtests/one_door.py``, judged by the targets for MCP: every round loads every door once, in a shuffled
order. Then, each before a fresh gateway: how long an event of an upstream takes to its client, and that none waits for
the next one (``streaming.py``); and a thousand idle sessions, without and with a stream open in each (``idle.py``).

Run: ``python -m loadtests.mcp``; ``--quick`` looks in a minute, at ourselves only, without writing evidence.
"""

import argparse
import contextlib
import dataclasses
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from loadtests import evidence, idle, mcp_evidence, one_door, streaming
from loadtests.load import HANDSHAKE, ROOT, STATELESS, Door, Load, measure
from loadtests.mcp_evidence import Beside
from loadtests.processes import BenchmarkError, memory, serving
from loadtests.rivals import RIVALS, NotHere

EVIDENCE: Final = ROOT / "docs" / "evidence" / "mcp-speed.json"
PAGE: Final = ROOT / "docs" / "performance.md"
LEAST_ROUNDS: Final = 9
EVENTS: Final = 500
_OURS: Final = ("direct", "ostiary")
_PEERS: Final = ("fastmcp-shared",)
# Both speak the handshake era to their clients; they are slow, so that few calls are made to warm up with.
_OF_RIVALS: Final = tuple(
    Load(name, HANDSHAKE, connections, calls=calls, warmup=2, patience=4)
    for name in RIVALS
    for connections, calls in ((1, 60), (one_door.MANY, 160))
)
LOADS: Final = (*(load for load in one_door.LOADS if load.door in {*_OURS, *_PEERS}), *_OF_RIVALS)


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: of calls.
        seconds: longest time of one load.
        doors: which are loaded.
        sessions: idle ones.
        events: of each stream.
    """

    rounds: int
    seconds: float
    doors: Sequence[str]
    sessions: int = idle.SESSIONS
    events: int = EVENTS

    @property
    def is_whole(self) -> bool:
        """Whether it is enough for evidence."""
        everything = {*_OURS, *_PEERS, *RIVALS}
        return self.rounds >= LEAST_ROUNDS and everything <= {*self.doors} and self.sessions >= idle.SESSIONS


@contextlib.contextmanager
def doors(folder: Path, size: Size) -> Iterator[tuple[dict[str, Door], dict[str, str], dict[str, str]]]:
    """Every door, running; yields them, the versions of what runs, and why a rival is not among them.

    Raises:
        BenchmarkError: one of the others did not start.
    """
    with contextlib.ExitStack() as stack:
        found, versions = stack.enter_context(one_door.doors(folder, size.doors))
        missing = {}
        for name in (name for name in RIVALS if name in size.doors):
            print(f"starting {name}", flush=True)
            try:
                door, version = stack.enter_context(RIVALS[name](folder, found["direct"].url))
                _tried(door, size.seconds)
                found[name], versions[name] = door, version
            except (NotHere, BenchmarkError) as reason:
                missing[name] = str(reason)
                print(f"{name} is not measured: {reason}", flush=True)
        yield found, versions, missing


def _tried(door: Door, seconds: float) -> None:
    # A rival that cannot answer so many at a time says so before the run, and does not void it.
    for load in _OF_RIVALS:
        if load.door == door.name:
            measure(door, load, seconds / load.patience, 0)


@contextlib.contextmanager
def talking(folder: Path) -> Iterator[tuple[Door, Door, str]]:
    """A fresh gateway before a talker; yields both, and the talker's origin.

    Raises:
        BenchmarkError: one did not start.
    """
    command = [sys.executable, "-m", "loadtests.talker"]
    with (
        serving(command, folder, "talker", {"PYTHONPATH": str(ROOT)}) as (pid, said),
        one_door.ostiary(folder, said["url"], ("echo", "count"), runs=1) as door,
    ):
        yield Door("direct", said["url"], "count", pid), door, said["url"].removesuffix("/mcp")


def beside(size: Size, seed: int, missing: dict[str, str]) -> Beside:
    """Streams and idle sessions.

    Raises:
        BenchmarkError: an event was held back, or an answer was not right.
    """
    lags, grown = [], []
    for streams in (False, True):
        with (
            tempfile.TemporaryDirectory(prefix="ostiary-bench-") as name,
            talking(Path(name)) as (talker, door, origin),
        ):
            if not streams:
                counting = dataclasses.replace(door, tool="up__count")
                for version in (STATELESS, HANDSHAKE):
                    for at in (talker, counting):
                        lags.append(streaming.lag(at, version, origin, size.events, seed))
                        print(f"  {lags[-1]}", flush=True)
            callers = idle.tokens(str(Path(name) / "state" / "admin.sock"), size.sessions)
            grown.append(idle.growth(door, callers, size.sessions, streams=streams))
            print(f"  {grown[-1]}: {grown[-1].mb:.1f} MB", flush=True)
    return Beside(grown, lags, missing)


def campaign(size: Size, seed: int) -> tuple[evidence.Run, Beside]:
    """Measure everything.

    Raises:
        BenchmarkError: the run is void.
    """
    started, order, covered = time.monotonic(), random.Random(seed), evidence.sources_digest()
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-") as name:
        folder = Path(name)
        with doors(folder, size) as (found, versions, missing):
            rounds = []
            for number in range(size.rounds):
                print(f"round {number + 1} of {size.rounds}", flush=True)
                rounds.append(one_door.one_round(found, LOADS, folder, size.seconds, order))
            held = memory(found["ostiary"].pid) if "ostiary" in found else []
        conditions = evidence.conditions(folder, versions)
    print("streams and idle sessions", flush=True)
    aside = beside(size, seed, missing)
    taken = time.monotonic() - started
    return evidence.Run(seed, taken, covered, rounds, held, conditions), aside


def main() -> int:
    """Measure, print, and write the evidence; 0 when every target is met, 1 when one is missed, 2 for a void run."""
    options = _options()
    size = Size(options.rounds, options.seconds, options.doors)
    if options.quick:
        size = Size(1, 1.0, _OURS, sessions=200, events=50)
    try:
        run, aside = campaign(size, options.seed)
    except BenchmarkError as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    if not size.is_whole:
        print(f"no evidence is written: it takes every door, {LEAST_ROUNDS} rounds and {idle.SESSIONS} sessions")
        return 0
    if run.digest != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    document = mcp_evidence.document(run, aside)
    text = mcp_evidence.table(document)
    EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
    EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    evidence.write_table(PAGE, text, mcp_evidence.MARKS)
    print(f"\n{text}\n\nwritten: {EVIDENCE}, {PAGE}")
    return 0 if document["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the gateway costs as an MCP gateway.")
    parser.add_argument("--quick", action="store_true", help="one short round of ourselves, 200 sessions, 50 events")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time of one load")
    parser.add_argument("--seed", type=int, default=1, help="of the loads' order and the texts sent")
    every = [*_OURS, *_PEERS, *RIVALS]
    parser.add_argument("--doors", type=lambda text: text.split(","), default=every, help=",".join(every))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
