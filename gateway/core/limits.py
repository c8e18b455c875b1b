"""Rate and concurrency as pure state machines; the time is handed in.

A token bucket is kept as one number, the moment at which it will be full again (GCRA): a bucket that is full again can
be forgotten without anyone gaining anything, so the table stays bounded by who was active in the last minute. Taking is
all or nothing over several buckets and gauges: a refused call takes nothing anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakValueDictionary

MINUTE_S = 60.0


@dataclass(frozen=True)  # without slots, so that its intervals are worked out once
class Rate:
    """One bucket to take a token from.

    Attributes:
        key: whose bucket.
        per_minute: tokens that flow in per minute, and most that fit in.
        cause: what to call it in a refusal, e.g. ``rate_tool``.
    """

    key: str
    per_minute: int
    cause: str

    @cached_property
    def interval_s(self) -> float:
        """In how many seconds a token flows in, where any does."""
        return MINUTE_S / self.per_minute

    @cached_property
    def spent_s(self) -> float:
        """Further from full than so many seconds it lacks a token, as it holds a minute's worth."""
        return MINUTE_S - self.interval_s


class Gauge:
    """How many places are held under one key. Made by ``Turnstile.place``, which has one for each key in use."""

    __slots__ = ("__weakref__", "held")

    def __init__(self) -> None:
        self.held = 0


@dataclass(frozen=True, slots=True)
class Place:
    """One gauge to hold a place in.

    Attributes:
        gauge: whose.
        most: places at a time.
        cause: what to call it in a refusal, e.g. ``concurrency_tool``.
    """

    gauge: Gauge
    most: int
    cause: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no room.

    Attributes:
        cause: of the ``Rate`` or ``Place`` that is longest without room.
        wait_s: seconds until the same request would pass, other callers aside; None = it never will.
    """

    cause: str
    wait_s: float | None


class Turnstile:
    """Buckets and gauges together: everything is taken, or nothing is.

    A bucket that is full again may be forgotten; a gauge is kept by the places in it, and by whoever may want one.
    """

    __slots__ = ("_capacity", "_full_at", "_gauges")

    def __init__(self, capacity: int = 65_536) -> None:
        """Keep at most ``capacity`` buckets that are not full; when there are more, new keys are refused."""
        self._capacity = capacity
        self._full_at: dict[str, float] = {}
        self._gauges: WeakValueDictionary[str, Gauge] = WeakValueDictionary()

    @property
    def held(self) -> int:
        """How many gauges are in use, for tests and metrics."""
        return sum(gauge.held > 0 for gauge in self._gauges.values())

    def place(self, key: str, most: int, cause: str) -> Place:
        """A place to hold in the gauge of ``key``; see ``Place``."""
        gauge = self._gauges.get(key)
        if gauge is None:
            gauge = self._gauges[key] = Gauge()
        return Place(gauge, most, cause)

    def enter(self, rates: Sequence[Rate], places: Sequence[Place], now: float) -> Refusal | None:
        """Take a token of every rate and hold every place, or say why not and take nothing.

        ``now`` is in monotonic seconds.
        """
        refusal = self._refusal(rates, places, now)
        if refusal is None:
            full_at = self._full_at
            for rate in rates:
                key, full = rate.key, now
                if key in full_at and full_at[key] > now:
                    full = full_at[key]
                full_at[key] = full + rate.interval_s
            for place in places:
                place.gauge.held += 1
        return refusal

    def leave(self, places: Sequence[Place]) -> None:
        """Give the places back; tokens stay spent."""
        for place in places:
            place.gauge.held -= 1

    def _refusal(self, rates: Sequence[Rate], places: Sequence[Place], now: float) -> Refusal | None:
        full_at = self._full_at
        for rate in rates:
            key = rate.key
            if rate.per_minute <= 0 or (key in full_at and full_at[key] - now > rate.spent_s):
                return _longest([(self._wait(rate, now), rate.cause) for rate in rates])
        for place in places:
            if place.gauge.held >= place.most:
                return Refusal(place.cause, _CROWDED_S)
        has_room = len(full_at) + len(rates) <= self._capacity or self._makes_room(len(rates), now)
        return None if has_room else Refusal("limits_table_full", MINUTE_S)

    def _wait(self, rate: Rate, now: float) -> float | None:
        # Seconds until the bucket has a token: 0 = now, None = never.
        if rate.per_minute <= 0:
            return None
        return max(0.0, self._full_at.get(rate.key, now) - now - rate.spent_s)

    def _makes_room(self, keys: int, now: float) -> bool:
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
        return len(self._full_at) + keys <= self._capacity


def _longest(waits: Sequence[tuple[float | None, str]]) -> Refusal:
    for wait, cause in waits:
        if wait is None:
            return Refusal(cause, None)
    wait, cause = max(waits, key=lambda pair: pair[0] or 0.0)
    return Refusal(cause, wait)


# When a running call ends is not known.
_CROWDED_S = 1.0
