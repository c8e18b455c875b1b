"""Rate and concurrency as state machines: all or nothing, bounded, exact waits."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits import MINUTE_S, Place, Rate, Refusal, Turnstile


def test_a_bucket_holds_a_minutes_worth_and_refills_evenly() -> None:
    """Six a minute: six at once, then one every ten seconds; the wait told is the wait needed."""
    gate, rates = Turnstile(), [Rate("a", 6, "rate")]
    assert [gate.enter(rates, [], 100.0) for _ in range(6)] == [None] * 6
    assert gate.enter(rates, [], 100.0) == Refusal("rate", 10.0)
    assert gate.enter(rates, [], 105.0) == Refusal("rate", 5.0)
    assert gate.enter(rates, [], 110.0) is None
    assert gate.enter(rates, [], 110.0) == Refusal("rate", 10.0)
    assert [gate.enter(rates, [], 400.0) for _ in range(6)] == [None] * 6


def test_a_refusal_takes_nothing() -> None:
    """Neither the tokens nor the places of the limits that had room."""
    gate = Turnstile()
    wide, narrow, place = Rate("wide", 2, "wide"), Rate("narrow", 1, "narrow"), gate.place("p", 5, "place")
    assert gate.enter([wide, narrow], [place], 0.0) is None
    for _ in range(10):
        assert gate.enter([wide, narrow], [place], 0.0) == Refusal("narrow", MINUTE_S)
    gate.leave([place])
    assert gate.held == 0
    assert gate.enter([wide], [], 0.0) is None
    assert gate.enter([wide], [gate.place("q", 0, "full")], 30.0) == Refusal("full", 1.0)
    assert gate.enter([wide], [], 30.0) is None


def test_the_longest_wait_is_told() -> None:
    """Two limits without room: waiting for the shorter one would be in vain."""
    gate = Turnstile()
    short, long = Rate("s", 60, "short"), Rate("l", 1, "long")
    for _ in range(60):
        gate.enter([short], [], 0.0)
    gate.enter([long], [], 0.0)
    assert gate.enter([short, long], [], 0.0) == Refusal("long", 60.0)


@pytest.mark.parametrize("per_minute", [0, -1])
def test_a_rate_of_nothing_never_passes(per_minute: int) -> None:
    """No wait helps, so none is told."""
    assert Turnstile().enter([Rate("a", per_minute, "none")], [], 0.0) == Refusal("none", None)


def test_a_changed_rate_applies_at_once() -> None:
    """A stricter rate for the same bucket counts what was taken under the wider one."""
    gate = Turnstile()
    for _ in range(5):
        assert gate.enter([Rate("a", 10, "rate")], [], 0.0) is None
    assert gate.enter([Rate("a", 2, "rate")], [], 0.0) is None
    assert gate.enter([Rate("a", 2, "rate")], [], 0.0) is not None


def test_the_table_is_bounded_and_forgets_full_buckets_only() -> None:
    """When every bucket is in use a new key is refused; once some are full again there is room."""
    gate = Turnstile(capacity=3)
    for key in "abc":
        assert gate.enter([Rate(key, 6, "rate")], [], 0.0) is None
    assert gate.enter([Rate("d", 6, "rate")], [], 0.0) == Refusal("limits_table_full", MINUTE_S)
    assert gate.enter([Rate("d", 6, "rate")], [], 10.0) is None


@given(st.integers(1, 20), st.lists(st.integers(0, 30_000), min_size=1, max_size=60))
def test_no_window_lets_more_through_than_it_should(per_minute: int, steps_ms: list[int]) -> None:
    """In any window at most the bucket plus what flowed in; and never less than a patient caller is due."""
    gate, now, passed = Turnstile(), 0, []
    for step in steps_ms:
        now += step
        refusal = gate.enter([Rate("a", per_minute, "rate")], [], now / 1000)
        if refusal is None:
            passed.append(now)
        else:
            assert refusal.wait_s is not None
            assert 0 < refusal.wait_s <= MINUTE_S
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            window = Fraction(passed[last] - start, 1000)
            assert last - first + 1 <= per_minute + window * per_minute / 60 + Fraction(1, 1000)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 3))
def test_places_are_given_back_exactly(keys: list[str], most: int) -> None:
    """After everyone has left nothing is held, whoever was refused in between."""
    gate = Turnstile()
    inside: list[tuple[str, Place]] = []
    for key in keys:
        place = gate.place(key, most, "full")
        if gate.enter([], [place], 0.0) is None:
            inside.append((key, place))
    assert all(sum(held == key for held, _ in inside) == min(keys.count(key), most) for key in "abc")
    for _, place in inside:
        gate.leave([place])
    assert gate.held == 0


def test_a_gauge_outlives_whoever_asked_for_it_while_a_place_is_held() -> None:
    """Who asks anew finds the places that are held, and none once they were given back; then it is forgotten."""
    gate = Turnstile()
    held = [gate.place("a", 1, "full")]
    assert gate.enter([], held, 0.0) is None
    assert gate.enter([], [gate.place("a", 1, "full")], 0.0) == Refusal("full", 1.0)
    gate.leave(held)
    assert gate.enter([], [gate.place("a", 1, "full")], 0.0) is None
    del held
    assert gate.place("a", 1, "full").gauge.held == 0
