"""The circuit breaker, by the clock it is given."""

from gateway.core.breaker import Breaker, Patience

PATIENCE = Patience(failures=2, first_pause_s=1.0, most_pause_s=3.0)


def test_it_opens_after_failures_in_a_row_only() -> None:
    """A success in between starts the count anew."""
    breaker = Breaker(PATIENCE)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(0.0)
    assert breaker.wait(0.0) == 0.0
    breaker.failed(0.0)
    assert breaker.wait(0.25) == 0.75


def test_one_attempt_is_let_through_after_the_pause_and_decides() -> None:
    """While it is under way the others wait; failing doubles the pause up to its bound, succeeding closes."""
    breaker, now = Breaker(PATIENCE), 0.0
    breaker.failed(now)
    breaker.failed(now)
    for pause in (1.0, 2.0, 3.0, 3.0):
        assert breaker.wait(now) == pause
        now += pause
        assert breaker.wait(now) == 0.0
        assert breaker.wait(now) > 0.0
        breaker.failed(now)
    now += 3.0
    assert breaker.wait(now) == 0.0
    breaker.succeeded()
    assert [breaker.wait(now), breaker.wait(now)] == [0.0, 0.0]


def test_an_attempt_that_was_given_up_lets_the_next_one_try() -> None:
    """A caller who left must not keep the breaker half open for ever."""
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(0.0)
    assert breaker.wait(10.0) == 0.0
    breaker.gave_up()
    assert breaker.wait(10.0) == 0.0
