"""Many runs: forked from a process that has imported everything and never had a thread, several at a time."""

import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.campaigns.faults.life import Spoil
from deploy.campaigns.faults.plan import GRID, Fault
from deploy.campaigns.faults.run import Outcome, as_document, run
from gateway.core.ports import Ports

REPEAT: Final = 'make campaign NAME=faults ARGS="--seed {seed} --runs 1"'
_MOST_SHOWN: Final = 20


def unspoilt(ports: Ports) -> Ports:
    """The gateway as it is."""
    return ports


@dataclass(frozen=True, slots=True)
class Options:
    """How a campaign is run.

    Attributes:
        seed: of the first run; the others follow.
        runs: how many.
        jobs: how many at a time; most of a run is waiting, so more than there are processors.
        spoil: see ``life``.
        until_violated: end at the first run that breaks the invariant.
    """

    seed: int = 0
    runs: int = len(GRID)
    jobs: int = 4
    spoil: Spoil = unspoilt
    until_violated: bool = False


@dataclass(slots=True)
class Tally:
    """What the runs so far add up to."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    by_fault: dict[str, Counter[str]] = field(default_factory=dict)
    by_point: dict[str, Counter[str]] = field(default_factory=dict)
    broken: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add one run."""
        self.runs += 1
        self.counts.update(outcome.counts)
        words = Counter(runs=1, struck=int(outcome.struck), violated=int(bool(outcome.violations)))
        self.by_fault.setdefault(outcome.fault, Counter()).update(words)
        if outcome.point:
            self.by_point.setdefault(outcome.point, Counter()).update(words)
        if outcome.violations:
            self.broken.append(outcome)

    def hollow(self) -> list[str]:
        """Why this many runs may have shown nothing; empty where they did.

        A series as long as the grid must have struck with every fault and at every point, and calls must have gone
        well besides.
        """
        if self.runs < len(GRID):
            return []
        idle = [name for name, found in (self.by_fault | self.by_point).items() if not found["struck"]]
        found = [f"{name} never struck" for name in sorted(idle)]
        found += [f"{fault} was never tried" for fault in Fault if fault not in self.by_fault]
        ends = ("tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown")
        found += [f"no call ended as {end}" for end in ends if not self.counts[end]]
        if self.counts["tool.completed"] * 4 < self.counts["intents"]:
            found.append("fewer than a quarter of the intents were completed")
        return found

    def document(self, options: Options, seconds: float) -> dict[str, Any]:
        """The evidence."""
        hollow = self.hollow()
        return {
            "seed": options.seed,
            "seconds": round(seconds, 1),
            "counts": {"runs": self.runs, **dict(sorted(self.counts.items()))},
            "by_fault": {name: dict(found) for name, found in sorted(self.by_fault.items())},
            "by_point": {name: dict(found) for name, found in sorted(self.by_point.items())},
            "violations": [{"seed": each.seed, "violations": each.violations} for each in self.broken[:_MOST_SHOWN]],
            "hollow": hollow,
            "verdict": "failed" if self.broken or hollow else "passed",
        }


def conduct(options: Options) -> Tally:
    """Run all seeds and say how it goes; this process must have no threads."""
    tally, began = Tally(), time.monotonic()
    step = max(1, options.runs // 20)
    for outcome in _outcomes(options):
        tally.add(outcome)
        if outcome.violations:
            _show(outcome)
            if options.until_violated:
                break
        if tally.runs % step == 0 or tally.runs == options.runs:
            took = time.monotonic() - began
            _say(f"{tally.runs} of {options.runs} runs, {len(tally.broken)} broke the invariant, {took:.0f} s")
    return tally


def _outcomes(options: Options) -> Iterator[Outcome]:
    seeds = iter(range(options.seed, options.seed + options.runs))
    running: dict[int, tuple[int, int]] = {}
    try:
        while True:
            while len(running) < options.jobs and (seed := next(seeds, None)) is not None:
                process, reads = _start(seed, options)
                running[process] = (seed, reads)
            if not running:
                return
            process, _ = os.wait()
            if process in running:
                yield _outcome(*running.pop(process))
    finally:
        for process, (_, reads) in running.items():
            os.close(reads)
            with suppress(ChildProcessError):
                os.waitpid(process, 0)


def _start(seed: int, options: Options) -> tuple[int, int]:
    sys.stdout.flush()
    sys.stderr.flush()
    reads, writes = os.pipe()
    process = os.fork()
    if process:
        os.close(writes)
        return process, reads
    status = 1
    try:
        os.close(reads)
        document = json.dumps(as_document(run(seed, options.spoil))).encode()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(document)
        status = 0
    except BaseException:  # noqa: BLE001 - the end of a process: whatever it is, it is told
        traceback.print_exc()
    finally:
        os._exit(status)


def _outcome(seed: int, reads: int) -> Outcome:
    with os.fdopen(reads, "rb") as pipe:
        document = pipe.read()
    if not document:
        return Outcome(seed, "none", "", violations=["the run did not come to its end"])
    return Outcome(**json.loads(document))


def _show(outcome: Outcome) -> None:
    _say(f"seed {outcome.seed} ({outcome.fault} {outcome.point}) breaks the invariant:")
    for violation in outcome.violations:
        _say(f"  - {violation}")
    if outcome.words:
        _say("  its log ends with:\n" + outcome.words)
    _say("  again: " + REPEAT.format(seed=outcome.seed))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
