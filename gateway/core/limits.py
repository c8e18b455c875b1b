"""Rate and concurrency as pure state machines; the time is handed in.

A token bucket is kept as one number, the moment at which it will be full again (GCRA): a bucket that is full again can
be forgotten without anyone gaining anything, so the table stays bounded by who was active in the last minute. Taking is
all or nothing over several buckets and gauges: a refused call takes nothing anywhere.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Place:
    """One gauge to hold a place in.

    Attributes:
        key: whose gauge.
        most: places at a time.
        cause: what to call it in a refusal, e.g. ``concurrency_tool``.
    """

    key: str
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


class Buckets:
    """Token buckets by key, at most ``capacity`` that are not full."""

    __slots__ = ("_capacity", "_full_at")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, rate: Rate, now: float) -> float | None:
        """Seconds until the bucket has a token: 0 = now, None = never."""
        if rate.per_minute <= 0:
            return None
        missing = self._full_at.get(rate.key, now) - now
        # A bucket holds a minute's worth, so it lacks a token while it is further from full than the rest of a minute.
        return max(0.0, missing - (MINUTE_S - MINUTE_S / rate.per_minute))

    def take(self, rate: Rate, now: float) -> None:
        """Take a token; ``wait`` was 0."""
        full_at = max(self._full_at.pop(rate.key, now), now)
        self._full_at[rate.key] = full_at + MINUTE_S / rate.per_minute

    def has_room(self, keys: int, now: float) -> bool:
        """Whether ``keys`` more keys fit, forgetting buckets that are full again."""
        if len(self._full_at) + keys > self._capacity:
            for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
                del self._full_at[key]
        return len(self._full_at) + keys <= self._capacity


class Gauges:
    """Places held at this moment, by key; a key nobody holds is not kept."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def full(self, places: Sequence[Place]) -> Place | None:
        """The first of them that has no place left, or None."""
        held = self._held
        for place in places:
            if held.get(place.key, 0) >= place.most:
                return place
        return None

    def take(self, places: Sequence[Place]) -> None:
        """Hold them."""
        held = self._held
        for place in places:
            held[place.key] = held.get(place.key, 0) + 1

    def give(self, places: Sequence[Place]) -> None:
        """Give them back."""
        held = self._held
        for place in places:
            left = held.get(place.key, 0) - 1
            if left > 0:
                held[place.key] = left
            else:
                held.pop(place.key, None)


class Turnstile:
    """Buckets and gauges together: everything is taken, or nothing is."""

    __slots__ = ("_buckets", "_gauges")

    def __init__(self, capacity: int = 65_536) -> None:
        """Keep at most ``capacity`` buckets that are not full; when there are more, new keys are refused."""
        self._buckets = Buckets(capacity)
        self._gauges = Gauges()

    @property
    def held(self) -> int:
        """How many gauges are in use, for tests and metrics."""
        return len(self._gauges)

    def enter(self, rates: Sequence[Rate], places: Sequence[Place], now: float) -> Refusal | None:
        """Take a token of every rate and hold every place, or say why not and take nothing.

        ``now`` is in monotonic seconds.
        """
        refusal = self._refusal(rates, places, now)
        if refusal is None:
            for rate in rates:
                self._buckets.take(rate, now)
            self._gauges.take(places)
        return refusal

    def leave(self, places: Sequence[Place]) -> None:
        """Give the places back; tokens stay spent."""
        self._gauges.give(places)

    def _refusal(self, rates: Sequence[Rate], places: Sequence[Place], now: float) -> Refusal | None:
        waits = [(wait, rate.cause) for rate in rates if (wait := self._buckets.wait(rate, now)) != 0.0]
        if waits:
            return _longest(waits)
        full = self._gauges.full(places)
        if full is not None:
            return Refusal(full.cause, _CROWDED_S)
        return None if self._buckets.has_room(len(rates), now) else Refusal("limits_table_full", MINUTE_S)


def _longest(waits: Sequence[tuple[float | None, str]]) -> Refusal:
    for wait, cause in waits:
        if wait is None:
            return Refusal(cause, None)
    wait, cause = max(waits, key=lambda pair: pair[0] or 0.0)
    return Refusal(cause, wait)


# When a running call ends is not known.
_CROWDED_S = 1.0
