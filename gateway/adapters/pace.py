"""Refusals that leave at an even beat, so that how long they took cannot be told.

The event loop's own timers will not do: they wait whole milliseconds from whenever the loop went to sleep, and so carry
every microsecond of what it did before into the moment it wakes. A thread of its own waits for the moment itself.
"""

import asyncio
import heapq
import itertools
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

BEAT_S: Final = 0.01


class EvenPace:
    """Implements ``core.ports.Pace``; an async context manager. Belongs to the loop it was entered on."""

    def __init__(self, beat_s: float = BEAT_S) -> None:
        """``beat_s``: longer than a refusal takes on a machine that is not overloaded, seconds."""
        self._beat_s = beat_s
        self._alarms = _Alarms()

    async def __aenter__(self) -> Self:
        self._alarms.start(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarms.stop()

    # See ``core.ports.Pace``. The machine's own function: every call asks it.
    begin = staticmethod(time.monotonic)

    async def beat(self, began: float) -> None:
        """See ``core.ports.Pace``."""
        await self._alarms.at(beat_after(began, time.monotonic(), self._beat_s))


def beat_after(began: float, now: float, beat_s: float) -> float:
    """The first beat, counted from ``began``, that is not over at ``now``; seconds, as all of them."""
    return began + max(1, math.ceil((now - began) / beat_s)) * beat_s


@dataclass(slots=True)
class _Alarms:
    """A thread that ends futures at their moments, to some 50 us."""

    _due: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    _number: "itertools.count[int]" = field(default_factory=itertools.count)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _is_open: bool = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take waiting tasks of ``loop``."""
        self._loop, self._is_open = loop, True
        self._thread = threading.Thread(target=self._work, name="pace", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; whoever still waits goes on at once."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        for _, _, moment in self._due:
            _end(moment)
        self._due.clear()

    async def at(self, when: float) -> None:
        """Return at ``when`` on the monotonic clock; at once where the thread was stopped."""
        if self._loop is None or not self._is_open:
            return
        moment = self._loop.create_future()
        with self._changed:
            heapq.heappush(self._due, (when, next(self._number), moment))
            if self._due[0][2] is moment:
                self._changed.notify()
        await moment

    # the thread

    def _work(self) -> None:
        while (moments := self._next()) is not None:
            if self._loop is not None:
                with suppress(RuntimeError):  # the loop was closed while somebody waited: nobody is left to be woken
                    self._loop.call_soon_threadsafe(_end, *moments)

    def _next(self) -> list[asyncio.Future[None]] | None:
        with self._changed:
            while self._is_open:
                now = time.monotonic()
                moments = []
                while self._due and self._due[0][0] <= now:
                    moments.append(heapq.heappop(self._due)[2])
                if moments:
                    return moments
                self._changed.wait(self._due[0][0] - now if self._due else None)
        return None


def _end(*moments: asyncio.Future[None]) -> None:
    for moment in moments:
        if not moment.done():  # its task was cancelled meanwhile
            moment.set_result(None)
