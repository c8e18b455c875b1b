"""What the benchmark of leased calls concludes."""

import pytest

from loadtests.bare_lease import Parts
from loadtests.leases import Crowd, Turn, document, table

MANY = Crowd(callers=48, calls=288, per_second=40.0, p50_us=900_000.0, p99_us=1_500_000.0)
TAKEN = {
    "digest": "d",
    "seed": 1,
    "seconds": 1.0,
    "conditions": {"cores": 2, "processor": "p", "python": "3"},
    "probe_ms": 28.0,
    "load_average": 0.5,
}


def turns(leased: float) -> list[Turn]:
    """A hundred of them: a bare login of 20 ms, a plain call of 3."""
    return [Turn(Parts(12_000.0, 5_000.0, 3_000.0), leased, 3_000.0)] * 100


@pytest.mark.parametrize(("leased", "verdict"), [(33_000.0, "passed"), (33_100.0, "failed")])
def test_what_leasing_adds_is_held_against_a_bare_login(leased: float, verdict: str) -> None:
    """A call without a login is taken off; half as much again as a bare login is allowed, and no more."""
    said = document(turns(leased), MANY, TAKEN)
    assert said["verdict"] == verdict
    assert said["figures"]["ratio"]["median"] == pytest.approx((leased - 3_000.0) / 20_000.0, abs=1e-3)


def test_the_table_says_it() -> None:
    """Each part, the crowd, and whether the target is met."""
    text = table(document(turns(53_000.0), MANY, TAKEN))
    assert "| **a bare login** | 20.00 [20.00, 20.00] |" in text
    assert "48 callers at once: 40 leased calls a second" in text
    assert text.endswith("| a leased call adds, in bare logins | <= 1.5 x | 2.50 | **missed** |")
