"""Who waits for an answer is listened to after a while, at a cost that does not grow with how many come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.edge.disconnect import PATIENCE_S, Waiting, Watched

pytestmark = pytest.mark.anyio


@dataclass(slots=True)
class Loop:
    """An event loop of timers alone, with a clock of its own."""

    now: float = 0.0
    timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    looks: int = 0
    heard: int = 0

    def time(self) -> float:
        """Its seconds."""
        return self.now

    def call_later(self, delay: float, called: Callable[..., None], *given: Any) -> object:
        """Call it then."""
        return self.call_at(self.now + delay, called, *given)

    def call_at(self, when: float, called: Callable[..., None], *given: Any) -> object:
        """Call it at that time."""
        self.timers.append((when, called, given))
        return called

    def create_task(self, work: Any) -> object:
        """Somebody is listened to."""
        work.close()
        self.heard += 1
        return work

    def turn(self, now: float) -> None:
        """It is as late as that."""
        self.now = now
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, called, given in due:
            self.looks += 1
            called(*given)


async def _never() -> dict[str, Any]:
    return {"type": "http.request"}


def _begun(waiting: Waiting, loop: Any) -> Watched:
    watched = Watched(_never, None, waiting)
    watched.due = loop.time() + PATIENCE_S
    waiting.add(watched, loop)
    return watched


async def test_who_waits_is_listened_to_in_time() -> None:
    """Each once, and not before its patience is over."""
    waiting, loop = Waiting(), Loop()
    _begun(waiting, loop)
    loop.turn(PATIENCE_S / 2)
    _begun(waiting, loop)
    loop.turn(PATIENCE_S)
    assert loop.heard == 1
    for step in range(1, 5):
        loop.turn(PATIENCE_S * (1 + step / 4))
    assert loop.heard == 2
    assert loop.timers == []


async def test_all_are_looked_at_so_often_however_many_come() -> None:
    """Each look passes all by who began lately, so that one for each who comes would take the loop's whole time."""
    waiting, loop = Waiting(), Loop()
    under_way: list[Watched] = []
    for milliseconds in range(1000):
        loop.turn(milliseconds / 1000)
        under_way.append(_begun(waiting, loop))
        if len(under_way) > 80:
            waiting.heard.discard(under_way.pop(0))
    assert loop.heard > 900
    assert len(waiting.fresh) + len(waiting.heard) <= 81
    assert loop.looks <= 2 / PATIENCE_S + 1
