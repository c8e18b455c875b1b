"""When each death strikes: the seed's, so that a campaign can be had again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Moment(StrEnum):
    """What the gateway is doing when it is killed."""

    LOAD = "under load"
    STARTING = "while it starts"
    MOVING = "while the write-ahead log moves into the database"
    STOPPING = "while it shuts down"


# A dozen deaths. The first five hold every moment, so that a short campaign has seen them all.
_SHARES: Final = (
    *(Moment.LOAD, Moment.STARTING, Moment.MOVING, Moment.STOPPING, Moment.STARTING),
    *(Moment.LOAD, Moment.LOAD, Moment.LOAD, Moment.MOVING, Moment.LOAD, Moment.STARTING, Moment.LOAD),
)
_FIRST: Final = 5


@dataclass(frozen=True, slots=True)
class Strike:
    """One death.

    Attributes:
        share: how far into the moment it strikes, 0 to 1.
    """

    moment: Moment
    share: float


def plan(seed: int, kills: int, without: Moment | None = None) -> Sequence[Strike]:
    """The deaths of a campaign, in order; those of the moment ``without`` strike under load."""
    chance = random.Random(seed)  # noqa: S311  when a test strikes is no secret
    moments: list[Moment] = []
    while len(moments) < kills:
        for part in (_SHARES[:_FIRST], _SHARES[_FIRST:]):
            moments += chance.sample(part, len(part))
    there = [Moment.LOAD if moment is without else moment for moment in moments[:kills]]
    return [Strike(moment, chance.random()) for moment in there]
