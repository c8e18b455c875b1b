"""What is done again and again while the log is open."""

import asyncio
import logging

import pytest
from anyio import fail_after

from gateway.adapters.ledger.rounds import Rounds
from gateway.core.errors import Unavailable


async def test_why_rounds_fail_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Until one succeeds or another thing is wrong: a database that is away for an hour says so in a line."""
    fates = iter(["away", "away", "away", "full", "full", None, "full", None])
    over = asyncio.Event()

    async def once() -> None:
        fate = next(fates, "over")
        if fate == "over":
            over.set()
        elif fate is not None:
            raise Unavailable(fate)

    rounds = Rounds(once, 0.0, "it could not be done")
    with caplog.at_level(logging.WARNING), fail_after(30):
        rounds.begin()
        await over.wait()
        await rounds.end()
    assert caplog.messages == [f"it could not be done: {said}" for said in ("away", "full", "full")]
