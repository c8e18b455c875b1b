"""Waiting for what seldom happens, at little cost: thousands of streams are open for hours and have nothing to say."""

import asyncio

from anyio import Event

from gateway.core.bell import Bell

# In the ASGI scope, what tells those whose answer has no end that the server stops.
STOPPING = "ostiary.stopping"


class Ear:
    """Where one stream waits. It is told by bells that there may be news, and looks for itself.

    Who finds no news and then waits, without awaiting anything between, misses none.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: asyncio.Future[bool] | None = None

    def wake(self) -> None:
        """There may be news for who waits; nobody else ever hears of it."""
        self._tell(is_news=True)

    async def hears(self, within_s: float) -> bool:
        """Wait for news; False where there was none for so many seconds."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(within_s, self._give_up)
        try:
            return await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._tell(is_news=False)

    def _tell(self, *, is_news: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(is_news)


class Stopping:
    """Whether the server is to stop.

    Attributes:
        bell: rings when it is.
    """

    __slots__ = ("_event", "bell")

    def __init__(self) -> None:
        """It is not."""
        self.bell = Bell()
        self._event = Event()

    def is_set(self) -> bool:
        """Whether it is."""
        return self._event.is_set()

    def set(self) -> None:
        """It is, from now on."""
        self._event.set()
        self.bell.ring()

    async def wait(self) -> None:
        """Return when it is."""
        await self._event.wait()
