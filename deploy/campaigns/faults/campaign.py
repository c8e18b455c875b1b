"""Many runs: forked from a process that has imported everything and never had a thread, several at a time."""

import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.campaigns.faults.life import Spoil
from deploy.campaigns.faults.plan import GRID, Fault
from deploy.campaigns.faults.run import Outcome, as_document, run
from gateway.core.ports import Ports
from gateway.core.records import ENDINGS

REPEAT: Final = 'make campaign NAME=faults ARGS="--seed {seed} --runs 1"'
_MOST_SHOWN: Final = 20
_PROGRESS_RUNS: Final = 5
_TELLING_RUNS: Final = 20


def unspoilt(ports: Ports) -> Ports:
    """The gateway as it is."""
    return ports


@dataclass(frozen=True, slots=True)
class Options:
    """How a campaign is run.

    Attributes:
        seeds: of the runs.
        jobs: how many at a time; most of a run is waiting, so more than there are processors.
        spoil: see ``life``.
        until_violated: end at the first run that breaks the invariant.
    """

    seeds: Sequence[int] = range(len(GRID))
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
    struck: set[tuple[str, str]] = field(default_factory=set)
    broken: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add one run."""
        self.runs += 1
        self.counts.update(outcome.counts)
        words = Counter(runs=1, struck=int(outcome.struck), violated=int(bool(outcome.violations)))
        self.by_fault.setdefault(outcome.fault, Counter()).update(words)
        if outcome.point:
            self.by_point.setdefault(outcome.point, Counter()).update(words)
        if outcome.struck:
            self.struck.add((outcome.fault, outcome.point))
        if outcome.violations:
            self.broken.append(outcome)

    def hollow(self) -> list[str]:
        """Why these runs may have shown nothing; empty where they did, or were too few to tell.

        Most faults must have struck and most calls must have come as far as an intent. A series as long as the grid
        must have struck with every fault, at every point and at most entries, and calls must have ended in every way.
        """
        if self.runs < _TELLING_RUNS:
            return []
        counts = self.counts
        struck = sum(each["struck"] for each in self.by_fault.values())
        found = [] if struck * 5 >= self.runs * 4 else [f"the fault struck in {struck} of {self.runs} runs only"]
        if counts["intents"] * 3 < counts["calls"]:
            found.append(f"{counts['calls']} calls had {counts['intents']} intents only")
        if counts["tool.completed"] * 4 < counts["intents"]:
            found.append(f"{counts['tool.completed']} of {counts['intents']} intents were completed only")
        return found + (self._gaps() if self.runs >= len(GRID) else [])

    def _gaps(self) -> list[str]:
        idle = [name for name, found in (self.by_fault | self.by_point).items() if not found["struck"]]
        found = [f"{name} never struck" for name in sorted(idle)]
        found += [f"{fault} was never tried" for fault in Fault if fault not in self.by_fault]
        if len(self.struck) * 10 < len(set(GRID)) * 9:
            found.append(f"{len(self.struck)} of {len(set(GRID))} entries of the grid struck only")
        return found + [f"no intent ended as {ending}" for ending in sorted(ENDINGS) if not self.counts[ending]]

    def document(self, options: Options, seconds: float) -> dict[str, Any]:
        """The evidence."""
        hollow = self.hollow()
        return {
            "seed": options.seeds[0],
            "seconds": round(seconds, 1),
            "counts": {"runs": self.runs, **dict(sorted(self.counts.items()))},
            "grid": {"entries": len(set(GRID)), "struck": len(self.struck)},
            "by_fault": {name: dict(found) for name, found in sorted(self.by_fault.items())},
            "by_point": {name: dict(found) for name, found in sorted(self.by_point.items())},
            "violations": [{"seed": each.seed, "violations": each.violations} for each in self.broken[:_MOST_SHOWN]],
            "hollow": hollow,
            "verdict": "failed" if self.broken or hollow else "passed",
        }


def conduct(options: Options) -> Tally:
    """Run all seeds and say how it goes; this process must have no threads."""
    tally, began = Tally(), time.monotonic()
    step = max(_PROGRESS_RUNS, len(options.seeds) // 20)
    for outcome in _outcomes(options):
        tally.add(outcome)
        if outcome.violations:
            _show(outcome)
            if options.until_violated:
                break
        if tally.runs % step == 0 or tally.runs == len(options.seeds):
            took = time.monotonic() - began
            _say(f"{tally.runs} of {len(options.seeds)} runs, {len(tally.broken)} broke the invariant, {took:.0f} s")
    return tally


def _outcomes(options: Options) -> Iterator[Outcome]:
    seeds = iter(options.seeds)
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
        for process, (seed, reads) in running.items():  # whoever ends early still waits for what was begun
            _outcome(seed, reads)
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
