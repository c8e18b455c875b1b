"""Random bytes drawn in bulk: salts and nonces are made of them, so that none may come twice, or short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.ledger.keyring.pool import Pool
from tests.clock import StepClock


class _Fails(StepClock):
    """A clock whose machine has no random bytes now and then."""

    def random(self, size: int) -> bytes:
        """None, each second time."""
        drawn = StepClock.random(self, size)
        if self.drawn % 2:
            raise OSError("no random bytes")
        return drawn


@given(st.lists(st.sampled_from([16, 24, 32, 1000, 4096]), max_size=600))
def test_each_byte_is_handed_out_once(sizes: list[int]) -> None:
    """In the clock's order; what is left of a draw and does not suffice is left out."""
    clock, drawn, at = StepClock(), b"", 0
    pool, same = Pool(clock), StepClock()
    for size in sizes:
        if at + size > len(drawn):
            drawn, at = same.random(4096), 0
        assert pool.take(size) == drawn[at : at + size]
        at += size


def test_where_a_draw_fails_nothing_is_handed_out_twice() -> None:
    """Nor is anything short of what was asked for: whoever asks fails, and the next draw is a new one."""
    pool, taken = Pool(_Fails()), []
    for _ in range(9):
        with pytest.raises(OSError, match="no random bytes"):
            pool.take(1000)
        taken += [pool.take(1000) for _ in range(4)]
    assert {len(one) for one in taken} == {1000}
    assert len(set(taken)) == len(taken)
