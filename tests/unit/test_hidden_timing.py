"""The statistics of the campaign hidden-timing: a gap is found where there is one, and chance is not taken for one."""

import random

import pytest

from deploy.campaigns.hidden_timing.campaign import NAMES, SITUATIONS, _plain
from deploy.campaigns.hidden_timing.judge import judge, noise, wilcoxon

PAIRS = 300


def times(chance: random.Random, gap_us: float = 0.0) -> list[float]:
    """Times of refusals as a busy machine gives them: most near 3 ms, some far above."""
    return [
        3000 + gap_us + chance.gauss(0, 100) + (chance.expovariate(1 / 2000) if chance.random() < 0.1 else 0)
        for _ in range(PAIRS)
    ]


@pytest.mark.parametrize(("gap_us", "hidden"), [(0.0, True), (100.0, False), (-100.0, False), (1.0, True)])
def test_a_gap_beyond_the_noise_is_found(gap_us: float, *, hidden: bool) -> None:
    """A thirtieth of the time shows in 300 pairs; a gap smaller than the noise cannot be told from none."""
    chance = random.Random(5)
    found = judge(times(chance, gap_us), times(chance), times(chance), of=len(SITUATIONS), seed=1)
    assert found.is_hidden is hidden
    assert found.is_quiet
    assert (found.p > 0.001) is hidden
    assert found.document()["pairs"] == PAIRS


def test_a_biased_measurement_shows_nothing() -> None:
    """Where two names of no tool differ, the finding says so."""
    chance = random.Random(6)
    assert not judge(times(chance), times(chance), times(chance, 120.0), of=8, seed=1).is_quiet


def test_the_noise_is_what_chance_exceeds_as_often_as_said() -> None:
    """Of series without any gap, about one in ten exceeds the noise of an alarm of one in ten."""
    chance = random.Random(7)
    series = [[chance.gauss(0, 1) for _ in range(99)] for _ in range(40)]
    bound = noise(series[0], 0.1, random.Random(1))
    beyond = sum(abs(sorted(one)[49]) > bound for one in series)
    assert 0 <= beyond <= 12
    assert noise(series[0], 0.001, random.Random(1)) > bound


def test_signed_ranks() -> None:
    """Small known cases: no difference at all, all of one sign, and a balance."""
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert wilcoxon([float(n) for n in range(1, 30)]) < 1e-5
    assert wilcoxon([1.0, -1.0, 2.0, -2.0]) == pytest.approx(1.0)


def test_every_situation_is_there_once_and_names_are_alike() -> None:
    """Two surfaces, good and bad arguments, warm and cold; names of one length."""
    assert len({situation.label for situation in SITUATIONS}) == 8
    assert len({len(name) for name in NAMES}) == 1


def test_a_refusal_is_compared_without_name_and_id() -> None:
    """What is left must be the same, word for word."""
    one = b'{"detail":"no erp__ledger_close","call_id":"01a223b0-fe25-7c9d-b8c4-c7560c131aaf"}'
    assert _plain(one, "erp.ledger_close") == b'{"detail":"no NAME","call_id":"ID"}'
