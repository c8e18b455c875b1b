"""The steps at which a gateway dies, in the order of a lease, and when each death strikes: the seed's."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Step(StrEnum):
    """Where the gateway is killed."""

    INTENT = "the intent is durable"
    MAKING_TOKEN = "while the vault makes the token"  # noqa: S105 - a moment
    TOKEN_MADE = "the token is made, its accessor in no journal"  # noqa: S105 - a moment
    ACCESSOR = "the accessor is durable"
    MINTING = "while the vault mints the login"
    COMMITTING = "while the database commits the login"
    MINTED = "the login is minted, its lease in no journal"
    LEASED = "the lease is handed to the journal"
    KNOWN = "the redactor knows the password"
    CALLING = "while the statement runs"
    COMMITTED = "the statement is committed, its session open"
    CLOSED = "the session is closed"
    REVOKING = "while the vault ends the login"
    REVOKED = "the login is ended, not looked for yet"
    CONFIRMED = "the login is looked for and gone, in no journal"
    JOURNALLED = "its end is handed to the journal"
    COMPLETED = "the completion is durable"
    ENDING_TOKEN = "while the vault ends a token"  # noqa: S105 - a moment
    TOKEN_ENDED = "a token is ended, in no journal"  # noqa: S105 - a moment
    TOKEN_CLOSED = "a token's end is handed to the journal"  # noqa: S105 - a moment
    SWEEPING = "what an earlier death left is read"
    SWEPT_AT_VAULT = "what an earlier death left is ended, in no journal"
    REAPING = "while the vault drops what a minting left"
    REAPED = "what mintings left is dropped, in no journal"
    SWEPT = "that is handed to the journal"


# A death in the middle of a recovery: what is left is judged after the next one.
RECOVERING: Final = frozenset({Step.SWEEPING, Step.SWEPT_AT_VAULT, Step.REAPING, Step.REAPED, Step.SWEPT})
# Tokens are ended when the gateway ends; otherwise only once a run was idle for long.
ENDING: Final = frozenset({Step.ENDING_TOKEN, Step.TOKEN_ENDED, Step.TOKEN_CLOSED})
# Something is left for the next start to end.
_LEAVING: Final = (Step.CALLING, Step.MINTED, Step.KNOWN, Step.COMMITTED)
_MOST_TURNS: Final = 6


@dataclass(frozen=True, slots=True)
class Death:
    """One death.

    Attributes:
        turn: it strikes when the step is reached for the so-manieth time in this life.
        share: how far into a moment that lasts, 0 to 1.
    """

    step: Step
    turn: int
    share: float


def plan(seed: int, kills: int) -> Sequence[Death]:
    """The deaths of a campaign, in order: every step once before any is twice."""
    chance = random.Random(seed)  # noqa: S311 - when a test strikes is no secret
    deaths: list[Death] = []
    while len(deaths) < kills:
        for step in chance.sample(list(Step), len(Step)):
            if step in RECOVERING:
                deaths.append(Death(chance.choice(_LEAVING), 1, chance.random()))
            turn = 1 if step in RECOVERING else chance.randint(1, _MOST_TURNS)
            deaths.append(Death(step, turn, chance.random()))
    found = deaths[:kills]
    # The last one is judged by an ordinary start.
    return found if not found or found[-1].step not in RECOVERING else [*found[:-1], Death(Step.CALLING, 1, 0.5)]
