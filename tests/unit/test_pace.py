"""Refusals of hidden tools and of names of no tool leave at a beat; nothing else waits for one."""

import asyncio
import time

import pytest
from anyio import fail_after
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.pace import EvenPace, beat_after
from gateway.core.errors import UnknownTool

NEVER_S = 3600.0


async def _refuse(pace: EvenPace, busy_until: float = 0.0) -> None:
    began = pace.begin()
    while time.monotonic() < busy_until:
        pass
    await pace.beat(began)
    raise UnknownTool("no such tool")


@given(st.floats(0, 1e6), st.floats(0, 10), st.floats(0.001, 1))
def test_a_beat_is_a_whole_number_of_beats_from_the_begin_and_not_over(
    began: float, took: float, beat_s: float
) -> None:
    """And no later than the first such."""
    beat = beat_after(began, began + took, beat_s)
    slack = 1e-6
    assert beat >= began + took - slack
    assert beat <= began + max(took, 0) + beat_s + slack
    assert abs((beat - began) / beat_s - round((beat - began) / beat_s)) < 1e-3


@pytest.mark.parametrize("work_s", [0.0, 0.03])
async def test_an_unknown_tool_is_refused_no_earlier_than_its_beat(work_s: float) -> None:
    """Work that goes beyond the first beat ends at the next one."""
    async with EvenPace(beat_s=0.02) as pace:
        began = time.monotonic()
        with pytest.raises(UnknownTool):
            await _refuse(pace, began + work_s)
        assert time.monotonic() - began >= (0.02 if work_s == 0.0 else 0.04) - 1e-4


async def test_many_wait_side_by_side_and_each_for_its_own_beat() -> None:
    """Whoever came earlier is not held by whoever came later."""
    ended: list[int] = []

    async def refused(pace: EvenPace, number: int) -> None:
        with pytest.raises(UnknownTool):
            await _refuse(pace)
        ended.append(number)

    async with EvenPace() as pace:
        with fail_after(20):
            await asyncio.gather(*(refused(pace, number) for number in range(200)))
    assert ended == list(range(200))


async def test_a_caller_who_leaves_waits_no_longer() -> None:
    """A cancellation is delivered at once, and the thread goes on for others."""
    async with EvenPace(NEVER_S) as pace:
        task = asyncio.create_task(_refuse(pace))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()


async def test_who_waits_when_it_stops_is_refused_then() -> None:
    """Stopping hangs nobody."""
    pace = EvenPace(NEVER_S)
    await pace.__aenter__()
    task = asyncio.create_task(_refuse(pace))
    await asyncio.sleep(0)
    await pace.__aexit__(None, None, None)
    with fail_after(20), pytest.raises(UnknownTool):
        await task
    assert task.done()
