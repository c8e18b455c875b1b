"""Waiting for what another task, thread or process does, with a deadline."""

from collections.abc import Awaitable, Callable

import anyio

_LOOK_S = 0.005


async def until(look: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return as soon as ``look`` is true.

    Raises:
        TimeoutError: it did not come true in time.
    """

    async def asked() -> bool:
        return look()

    await until_asked(asked, seconds)


async def until_asked(look: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """The same where looking takes an await."""
    with anyio.fail_after(seconds):
        while not await look():  # noqa: ASYNC110 - what is waited for cannot set an event of ours
            await anyio.sleep(_LOOK_S)
