"""What one does at a time: of this gateway's tasks, and of all gateways that write the log."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage.places import Places


async def _nothing() -> None:
    """There is nothing to learn."""


@asynccontextmanager
async def alone(
    name: str, turns: Turns, places: Places | None, learn: Callable[[], Awaitable[object]] = _nothing
) -> AsyncIterator[None]:
    """Hold the turn of ``name``; where there are ``places``, nobody else's is it either, and what they did is learnt.

    Raises:
        Unavailable: the other gateways cannot be kept out, or what they did cannot be read.
    """
    async with turns.hold(name):
        if places is None:
            yield
            return
        async with places.alone(name):
            await learn()
            yield
