"""Usage of the last 24 hours: what is older falls out, never too early, and nothing else does."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import DAY_US, RecentUsage, Usage

MINUTE_US = 60_000_000


class Hand:
    """Time, set by hand."""

    def __init__(self) -> None:
        self.us = 1_750_000_000_000_000

    def now(self) -> int:
        """Microseconds since the epoch."""
        return self.us


@given(st.lists(st.tuples(st.integers(0, 8 * 3600), st.sampled_from(["a.b", "c.d"]), st.integers(0, 9)), max_size=60))
def test_it_is_the_sum_of_what_is_young_enough(calls: list[tuple[int, str, int]]) -> None:
    """After any calls at any times, it counts each call of the last 24 hours and none older by a minute."""
    hand = Hand()
    usage = RecentUsage(now_us=hand.now)
    made: deque[tuple[int, str, int]] = deque()
    for wait_s, tool, amount in calls:
        hand.us += wait_s * 1_000_000
        usage.expire()
        usage.reserve(tool, {"n": amount}).keep()
        made.append((hand.us, tool, amount))
        usage.expire()
        least, most = Usage(), Usage()
        for at_us, name, counted in made:
            if at_us > hand.us - DAY_US:
                least.add(name, {"n": counted})
            if at_us > hand.us - DAY_US - MINUTE_US:
                most.add(name, {"n": counted})
        for name, total in usage.calls.items():
            assert least.calls[name] <= total <= most.calls[name]
            assert least.sums.get(name, Counter())["n"] <= usage.sums[name]["n"] <= most.sums[name]["n"]
        assert usage.calls.keys() >= least.calls.keys()
    hand.us += DAY_US + MINUTE_US
    usage.expire()
    assert usage.idle
    assert not usage.calls
    assert not usage.sums


def test_a_reservation_counts_at_once_and_until_it_is_given_back() -> None:
    """In flight it counts, and keeps the ledger from being idle; settled twice is settled once."""
    usage = RecentUsage(now_us=Hand().now)
    reservation = usage.reserve("a.b", {"n": 3})
    assert (usage.calls["a.b"], usage.sums["a.b"]["n"], usage.idle) == (1, 3, False)
    reservation.release()
    reservation.keep()
    assert (usage.calls["a.b"], usage.sums["a.b"]["n"], usage.idle) == (0, 0, True)


def test_one_in_flight_outlives_what_falls_out() -> None:
    """A tool's old calls fall out while one of its calls is in flight."""
    hand = Hand()
    usage = RecentUsage(now_us=hand.now)
    usage.recall(hand.us - DAY_US + MINUTE_US, "a.b", {"n": 3})
    usage.reserve("a.b", {"n": 4})
    hand.us += 3 * MINUTE_US
    usage.expire()
    assert (usage.calls["a.b"], usage.sums["a.b"]["n"], usage.idle) == (1, 4, False)


def test_a_clock_that_goes_back_frees_nothing_early() -> None:
    """A call dated before the one before it stays as long as that one."""
    hand = Hand()
    usage = RecentUsage(now_us=hand.now)
    usage.recall(hand.us, "a.b", {})
    usage.recall(hand.us - 10 * MINUTE_US, "a.b", {})
    hand.us += DAY_US - MINUTE_US
    usage.expire()
    assert usage.calls["a.b"] == 2


def test_calls_without_measures_leave_no_sums() -> None:
    """They count, and fall out, all the same."""
    hand = Hand()
    usage = RecentUsage(now_us=hand.now)
    usage.reserve("a.b", {}).keep()
    assert (usage.calls["a.b"], usage.sums) == (1, {})
    hand.us += DAY_US + MINUTE_US
    usage.expire()
    assert (dict(usage.calls), usage.sums, usage.idle) == ({}, {}, True)
