"""How much a peer may make us do by itself."""

from connectors.mcp.allowance import Allowance


def test_a_flood_is_stopped_and_a_steady_peer_is_not() -> None:
    """So many within a minute, however long the stream lives."""
    flood, steady = Allowance(3), Allowance(3)
    assert [flood.takes(0.1 * at) for at in range(5)] == [True, True, True, False, False]
    assert all(steady.takes(30.0 * at) for at in range(10_000))


def test_who_was_stopped_is_heard_again_after_a_minute() -> None:
    """Counted from the first that came."""
    allowance = Allowance(1)
    assert [allowance.takes(now) for now in (5.0, 64.9, 65.0, 65.1)] == [True, False, True, False]


def test_a_long_message_counts_as_several() -> None:
    """A few of them are as much work as many short ones."""
    allowance = Allowance(5)
    assert [allowance.takes(0.0, weight) for weight in (1, 3, 2, 1)] == [True, True, False, False]
