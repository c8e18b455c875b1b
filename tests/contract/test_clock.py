"""The Clock port, on every implementation."""

import threading
import time
import uuid
from itertools import pairwise

import pytest

from gateway.adapters.clock import SystemClock
from gateway.core.ports import Clock
from tests.clock import StepClock

CLOCKS: list[Clock] = [SystemClock(), StepClock()]


@pytest.mark.parametrize("clock", CLOCKS, ids=lambda clock: type(clock).__name__)
class TestClock:
    """What every clock keeps."""

    def test_ids_are_uuid_v7_in_canonical_form(self, clock: Clock) -> None:
        """Every id parses as a version 7 UUID of the RFC variant and is written canonically."""
        for text in (clock.uuid() for _ in range(1000)):
            parsed = uuid.UUID(text)
            assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)

    def test_ids_rise_and_never_repeat(self, clock: Clock) -> None:
        """Sorting ids as text keeps the order they were made in."""
        made = [clock.uuid() for _ in range(20_000)]
        assert all(a < b for a, b in pairwise(made))

    def test_interval_clock_never_goes_back(self, clock: Clock) -> None:
        """Two readings are in order."""
        assert clock.monotonic() <= clock.monotonic()

    def test_random_has_the_size_asked_for(self, clock: Clock) -> None:
        """Sizes are exact and two draws differ."""
        assert len(clock.random(0)) == 0
        assert len(clock.random(16)) == 16
        assert clock.random(16) != clock.random(16)


def test_system_time_is_the_wall_clock_in_microseconds() -> None:
    """``now_us`` lies between two readings of the wall clock."""
    before = time.time_ns() // 1000
    now = SystemClock().now_us()
    assert before <= now <= time.time_ns() // 1000


def test_a_wall_clock_that_is_set_back_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What expires does so when it was said; forward it is followed, and further back than before it is not."""
    clock, real, moved_s = SystemClock(), time.time_ns, 0
    monkeypatch.setattr("gateway.adapters.clock.time.time_ns", lambda: real() + moved_s * 1_000_000_000)
    before = clock.now_us()
    moved_s = -3600
    assert 0 <= clock.now_us() - before < 60_000_000
    moved_s = 7200
    ahead = clock.now_us()
    assert 7_200_000_000 <= ahead - before < 7_260_000_000
    moved_s = 0
    assert 0 <= clock.now_us() - ahead < 60_000_000


def test_id_carries_the_wall_clock_millisecond() -> None:
    """The first 48 bits are Unix milliseconds."""
    before = time.time_ns() // 1_000_000
    stamp = uuid.UUID(SystemClock().uuid()).int >> 80
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_ids_rise_though_the_wall_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock set back by an hour does not put new ids before old ones."""
    clock, real = SystemClock(), time.time_ns
    before = clock.uuid()
    monkeypatch.setattr("gateway.adapters.clock.time.time_ns", lambda: real() - 3_600_000_000_000)
    assert before < clock.uuid() < clock.uuid()


def test_ids_are_unique_over_threads() -> None:
    """Four threads never make the same id."""
    clock = SystemClock()
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([clock.uuid() for _ in range(5000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20_000
