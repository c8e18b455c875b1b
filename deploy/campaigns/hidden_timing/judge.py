"""The statistics: is the gap between two series of pairs larger than chance makes it between two that are alike?"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

# Chance of a false alarm in the whole campaign, shared by its situations.
ALARM: Final = 0.01
FLIPS: Final = 4000


@dataclass(frozen=True, slots=True)
class Finding:
    """One situation; times in microseconds.

    Attributes:
        pairs: how many.
        median_us: median time of a refusal of a name of no tool.
        gap_us: median of (hidden - no tool) within a pair.
        alike_us: median of (no tool - another name of no tool): the same measurement where nothing can differ.
        noise_us: how large ``alike_us`` would be by chance: exceeded in ``ALARM`` of whole campaigns.
        p: of the hypothesis that hidden and unknown take the same time (Wilcoxon's signed ranks, two-sided).
    """

    pairs: int
    median_us: float
    gap_us: float
    alike_us: float
    noise_us: float
    p: float

    @property
    def is_quiet(self) -> bool:
        """Whether two names of no tool look alike: otherwise the measurement itself is biased, and shows nothing."""
        return abs(self.alike_us) <= self.noise_us

    @property
    def is_hidden(self) -> bool:
        """Whether the gap is no larger than chance makes it."""
        return abs(self.gap_us) <= self.noise_us

    def document(self) -> dict[str, Any]:
        """For the evidence."""
        rounded = {name: round(value, 4) for name, value in asdict(self).items()}
        return rounded | {"quiet": self.is_quiet, "hidden": self.is_hidden}


def judge(hidden: Sequence[float], unknown: Sequence[float], other: Sequence[float], *, of: int, seed: int) -> Finding:
    """The finding of one situation out of ``of``; the three times of a pair stand at the same place, microseconds."""
    gaps = [one - two for one, two in zip(hidden, unknown, strict=True)]
    alike = [one - two for one, two in zip(other, unknown, strict=True)]
    return Finding(
        pairs=len(gaps),
        median_us=statistics.median(unknown),
        gap_us=statistics.median(gaps),
        alike_us=statistics.median(alike),
        noise_us=noise(alike, ALARM / of, random.Random(seed)),  # noqa: S311  no secret
        p=wilcoxon(gaps),
    )


def noise(differences: Sequence[float], alarm: float, chance: random.Random) -> float:
    """The absolute median that is exceeded with probability ``alarm`` where each difference could as well be negative.

    Two calls that are alike can be swapped: so the signs of their differences are thrown anew, ``FLIPS`` times.
    """
    sizes = [abs(one) for one in differences]
    found = []
    for _ in range(FLIPS):
        signs = chance.getrandbits(len(sizes))
        found.append(abs(statistics.median([one if signs >> at & 1 else -one for at, one in enumerate(sizes)])))
    found.sort()
    return found[min(FLIPS - 1, round(FLIPS * (1 - alarm)))]


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, by its normal approximation; ties share their rank."""
    ordered = sorted((one for one in differences if one), key=abs)
    count, rank, positive = len(ordered), 0, 0.0
    while rank < count:
        last = rank
        while last + 1 < count and abs(ordered[last + 1]) == abs(ordered[rank]):
            last += 1
        shared = (rank + last) / 2 + 1
        positive += shared * sum(one > 0 for one in ordered[rank : last + 1])
        rank = last + 1
    if not count:
        return 1.0
    deviation = (count * (count + 1) * (2 * count + 1) / 24) ** 0.5
    z = abs(positive - count * (count + 1) / 4) / deviation
    return 2 * (1 - statistics.NormalDist().cdf(z))
