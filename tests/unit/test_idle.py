"""How long a connection is kept between two requests."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.test_heads import Line, request

pytestmark = pytest.mark.anyio

KEPT_S = 5.0


class Hours:
    """A loop whose time is told it."""

    def __init__(self) -> None:
        """Nothing is due."""
        self.now_s = 100.0
        self._set: list[tuple[float, Callable[[], None], asyncio.TimerHandle]] = []

    def __getattr__(self, name: str) -> Any:
        """All else is the running loop's."""
        return getattr(asyncio.get_running_loop(), name)

    def time(self) -> float:
        """What it was told."""
        return self.now_s

    @property
    def due(self) -> int:
        """How many timers run."""
        return sum(not handle.cancelled() for _, _, handle in self._set)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Keep it until the time has come, or until it is cancelled."""
        handle = asyncio.get_running_loop().call_later(3600, int)
        self._set.append((self.now_s + delay_s, call, handle))
        return handle

    def pass_by(self, seconds: float) -> None:
        """So much time passes."""
        self.now_s += seconds
        due, self._set = self._set, []
        for at_s, call, handle in due:
            if at_s > self.now_s:
                self._set.append((at_s, call, handle))
            elif not handle.cancelled():
                handle.cancel()
                call()


def kept() -> tuple[Line, Hours]:
    """A connection, and its time."""
    line, hours = Line(), Hours()
    line.protocol.loop = hours
    line.protocol.timeout_keep_alive = KEPT_S
    return line, hours


async def test_who_says_nothing_more_is_let_go() -> None:
    """The time counts from the last answer, also where a timer ran since the one before it."""
    line, hours = kept()
    await line.say(request())
    hours.pass_by(KEPT_S - 1)
    await line.say(request())
    hours.pass_by(KEPT_S - 0.5)
    assert not line.wire.is_closed
    hours.pass_by(0.5)
    assert line.wire.is_closed
    assert hours.due == 0


async def test_a_busy_connection_has_one_timer() -> None:
    """However many requests it brings."""
    line, hours = kept()
    for _ in range(9):
        await line.say(request())
    assert hours.due == 1
    line.hang_up()


async def test_who_is_being_answered_is_not_idle() -> None:
    """A request that takes its time, or arrives slowly, outlasts the timer; its answer sets it again."""
    line, hours = kept()
    await line.say(request())
    whole = request(b"x" * 9)
    await line.say(whole[:-5])
    hours.pass_by(KEPT_S + 1)
    assert not line.wire.is_closed
    await line.say(whole[-5:])
    hours.pass_by(KEPT_S - 1)
    assert not line.wire.is_closed
    hours.pass_by(1)
    assert line.wire.is_closed


async def test_what_waits_in_line_is_begun() -> None:
    """A request behind another one is answered after it, and only then the connection is idle."""
    line, hours = kept()
    await line.say(request() + request(b"2") + request(b"3"))
    assert [body for _, body in line.seen] == [b"{}", b"2", b"3"]
    assert hours.due == 1
    line.hang_up()


@pytest.mark.parametrize("earlier", [0, 1])
async def test_who_is_answered_before_the_body_came_is_idle_once_it_did(earlier: int) -> None:
    """No answer is to come that would set the time: it counts from the last byte, whoever reads the body."""
    line, hours = kept()
    await line.say(*[request()] * earlier)
    line.is_hasty = True
    whole = request(b"x" * 9)
    await line.say(whole[:-5])
    hours.pass_by(1)
    await line.say(whole[-5:])
    hours.pass_by(KEPT_S - 0.5)
    assert not line.wire.is_closed
    hours.pass_by(0.5)
    assert line.wire.is_closed


@pytest.mark.parametrize("earlier", [0, 1])
async def test_what_comes_behind_such_a_body_is_answered(earlier: int) -> None:
    """The next request begins in the same bytes and takes longer than an idle connection is kept."""
    line, hours = kept()
    await line.say(*[request()] * earlier)
    line.is_hasty = True
    whole = request(b"x" * 9)
    await line.say(whole[:-5])
    line.is_hasty = False
    await line.say(whole[-5:] + request(b"next")[:-2])
    hours.pass_by(KEPT_S + 1)
    assert not line.wire.is_closed
    await line.say(b"xt")
    assert line.seen[-1][1] == b"next"
    hours.pass_by(KEPT_S)
    assert line.wire.is_closed
