"""The campaign: blocks of Hypothesis examples, each package in turn, until both engines were asked about enough."""

import asyncio
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from deploy.campaigns.policy_diff import facts
from deploy.campaigns.policy_diff.differences import Comparison, Difference, Package, packages
from deploy.campaigns.policy_diff.documents import questions
from deploy.campaigns.policy_diff.oracle import Oracle

EXAMPLES: Final = 150
_LIMITS: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    Attributes:
        seed: of the first block.
        inputs: how many, at least.
        jobs: processes.
        package: only this one; None = all.
    """

    seed: int
    inputs: int
    jobs: int
    package: str | None = None


@dataclass(slots=True)
class Tally:
    """What came of it.

    Attributes:
        counts: see ``Comparison``, and blocks.
        by_package: inputs of each package.
        ids: of the reasons that the packages can give.
        differences: what the engines do not agree on, for people.
    """

    counts: Counter[str] = field(default_factory=Counter)
    by_package: Counter[str] = field(default_factory=Counter)
    ids: frozenset[str] = frozenset()
    differences: list[str] = field(default_factory=list)

    def hollow(self) -> list[str]:
        """Why this shows nothing though nothing differed; empty where it does."""
        missing = [effect for effect in ("allow", "deny", "needs_approval") if not self.counts[f"effect {effect}"]]
        unheard = sorted(known for known in self.ids if not self.counts[f"reason {known}"])
        return [
            *(f"no decision was {effect}" for effect in missing),
            *(f"no decision said {known}" for known in unheard),
        ]


def conduct(options: Options, say: Callable[[str], None]) -> Tally:
    """Run the campaign; ``say`` gets a line for each block."""
    every = [each for each in asyncio.run(packages()) if options.package in {None, each.name}]
    tally = Tally(ids=frozenset(known for each in every for known in each.ids))
    blocks = _blocks(every, options.seed)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        running: set[Future[tuple[str, int, Counter[str], str | None]]] = set()
        while running or not _is_done(tally, options):
            while len(running) < options.jobs and not _is_done(tally, options):
                running.add(pool.submit(block, *next(blocks)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                say(_taken(tally, *each.result()))
    return tally


def block(found: Package, number: int) -> tuple[str, int, Counter[str], str | None]:
    """One block: (package, seed, counts, the first difference or None)."""
    with Oracle() as oracle:
        comparison = Comparison(found, oracle)

        @seed(number)
        @_LIMITS
        @given(facts.varied(json.loads(found.bundle.data)), questions(found.words))
        def compare(data: dict[str, Any], documents: list[bytes]) -> None:
            comparison.compare(data, documents)

        try:
            compare()
        except Difference as difference:
            return found.name, number, comparison.counts, str(difference)
    return found.name, number, comparison.counts, None


def _blocks(every: Sequence[Package], first: int) -> Iterator[tuple[Package, int]]:
    for number in count(first):
        yield every[(number - first) % len(every)], number


def _is_done(tally: Tally, options: Options) -> bool:
    return bool(tally.differences) or tally.counts["inputs"] >= options.inputs


def _taken(tally: Tally, name: str, number: int, counts: Counter[str], difference: str | None) -> str:
    tally.counts.update(counts)
    tally.counts["blocks"] += 1
    tally.by_package[name] += counts["inputs"]
    if difference is not None:
        tally.differences.append(difference)
    return f"{tally.counts['inputs']:7} inputs; block {number} of {name}: {counts['inputs']}" + (
        "" if difference is None else f"\n{difference}"
    )
