"""What is said to an agent that asks before it acts on its own: an opinion, and no link of the evidence chain.

A coding agent's own shell and editor do not pass this door. Its hook asks, policy answers as for a call, and that it
was asked is recorded. Nothing is permitted, reserved, sent or proven by it: whether the agent acts, nobody here sees.
"""

from dataclasses import dataclass
from enum import StrEnum


class Word(StrEnum):
    """What the agent is told. That it may not is an error, as for a call."""

    ALLOW = "allow"
    # The person in front of the agent is to be asked. What they say is no approval: the gateway never hears of it.
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Advice:
    """What is answered, once it is recorded.

    Attributes:
        call_id: of the question, for ``ostiary explain``.
        run_id: the run it was asked in.
        word: what the agent is told.
        reasons: ids of the rules, the deciding ones first.
    """

    call_id: str
    run_id: str
    word: Word
    reasons: tuple[str, ...]
