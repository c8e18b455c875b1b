"""Conversations by their numbers, some at a time, on one gateway after the other; each gateway is judged at its end."""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from anyio import create_task_group

from deploy.campaigns import evidence
from deploy.campaigns.rpc_fuzz import records, world
from deploy.campaigns.rpc_fuzz.answers import Judge
from deploy.campaigns.rpc_fuzz.author import Author
from deploy.campaigns.rpc_fuzz.case import Expect
from deploy.campaigns.rpc_fuzz.faults import FAULTS, SESSION_FAULTS
from deploy.campaigns.rpc_fuzz.invariant import violations
from deploy.campaigns.rpc_fuzz.world import Breakage, World

STEPS: Final = 20
_MOST_SHOWN: Final = 50
_TELLING_CASES: Final = 4000


@dataclass(frozen=True, slots=True)
class Options:
    """What to do.

    Attributes:
        seed: of everything.
        cases: how many requests.
        first: number of the first conversation.
        at_once: conversations at a time.
        each: requests for one gateway, before it is judged and the next one takes over.
        breakage: how the gateway is broken on purpose.
        until_violated: whether to stop at the first violation.
    """

    seed: int = 0
    cases: int = 5000
    first: int = 0
    at_once: int = 24
    each: int = 25_000
    breakage: Breakage = field(default_factory=Breakage)
    until_violated: bool = False


@dataclass(slots=True)
class Tally:
    """What was found.

    Attributes:
        counts: of cases, statuses, faults, calls.
        violations: a sentence each, with the request.
    """

    options: Options
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, found: Sequence[str]) -> None:
        """More violations; only the first ones are kept."""
        self.counts["violations"] += len(found)
        shown = found[: max(0, _MOST_SHOWN - len(self.violations))]
        self.violations += shown
        for one in shown:  # at once: a campaign is long
            sys.stdout.write(f"  - {one}\n")

    def hollow(self) -> list[str]:
        """Why a campaign may have shown nothing; empty where it did, or was too short to tell."""
        counts, cases = self.counts, self.counts["cases"]
        if cases < _TELLING_CASES:
            return []
        found = [
            f"no case with the fault: {name}" for name in (*FAULTS, *SESSION_FAULTS) if not counts[f"fault: {name}"]
        ]
        found += [f"no case expected to be {expect}" for expect in Expect if not counts[f"expected {expect}"]]
        if counts["received"] * 10 < cases:
            found.append(f"{counts['received']} calls reached a server in {cases} cases only")
        if counts["status 503"] * 100 > cases:
            found.append(f"{counts['status 503']} of {cases} answers say that the gateway was not available")
        return found

    def document(self, seconds: float) -> dict[str, Any]:
        """The evidence."""
        reasons = self.hollow()
        counted = {name: self.counts[name] for name in ("cases", "conversations", "received", "violations")}
        parts = {kind: self._of(kind) for kind in ("status ", "expected ", "fault: ")}
        return {
            "seed": self.options.seed,
            "seconds": round(seconds, 1),
            "counts": counted,
            **{kind.strip(": "): found for kind, found in parts.items()},
            "violations": self.violations,
            "hollow": reasons,
            "verdict": evidence.FAILED if self.violations or reasons else evidence.PASSED,
        }

    def _of(self, kind: str) -> dict[str, int]:
        return {name.removeprefix(kind): n for name, n in sorted(self.counts.items()) if name.startswith(kind)}


async def conducted(options: Options) -> Tally:
    """A campaign, run to its end, or to its first violation where that is asked for."""
    tally, began = Tally(options), time.monotonic()
    numbers = count(options.first)
    while tally.counts["cases"] < options.cases and not (options.until_violated and tally.violations):
        await _house(tally, numbers)
        done, seconds = tally.counts["cases"], time.monotonic() - began
        sys.stdout.write(
            f"  {done:,} of {options.cases:,} cases, {done / seconds:,.0f} a second, {tally.counts['received']:,} calls"
            f" received, {tally.counts['violations']} violations\n"
        )
        sys.stdout.flush()
    return tally


async def _house(tally: Tally, numbers: Iterator[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="ostiary-fuzz-") as name:
        folder, judge = Path(name), Judge()
        async with world.opened(folder, tally.options.breakage) as house:
            await _talked(tally, house, judge, numbers)
        tally.add(judge.violations)
        tally.add(house.ears.heard)
        tally.add(list(records.audited(folder)))
        tally.add(violations(records.records(folder), house.upstream.journal, judge))
        tally.counts += judge.counts
        tally.counts["received"] += len(house.upstream.journal)


async def _talked(tally: Tally, house: World, judge: Judge, numbers: Iterator[int]) -> None:
    options = tally.options
    most = min(options.each, options.cases - tally.counts["cases"])

    async def converse() -> None:
        while judge.counts["cases"] < most and not (options.until_violated and judge.violations):
            await _conversation(Author(options.seed, next(numbers)), house, judge)
            tally.counts["conversations"] += 1

    async with create_task_group() as tasks:
        for _ in range(options.at_once):
            tasks.start_soon(converse)


async def _conversation(author: Author, house: World, judge: Judge) -> None:
    done = 0
    while done < STEPS:
        cases = author.turn()
        answers = await asyncio.gather(*(house.client.send(case) for case in cases))
        for case, answer in zip(cases, answers, strict=True):
            author.heard(case, judge.heard(case, answer))
        done += len(cases)
