"""Killed between two steps of a lease: after the next start no role, session or lease is left, and no known token.

Six deaths on the real parts, one of them while the database commits; ``make campaign NAME=leases`` is two hundred, at
every step. And the campaign is put to the test itself: a gateway that sweeps nothing is found out.
"""

from itertools import pairwise

import pytest

from deploy.campaigns.leases.campaign import Campaign
from deploy.campaigns.leases.campaign import opened as prepared
from deploy.campaigns.leases.steps import RECOVERING, Step, plan
from tests.attack.test_faults import conducted


@pytest.mark.requirement("CRED-1")
def test_nothing_is_left_wherever_the_gateway_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """By the vault's listing of leases and accessors, pg_roles and pg_stat_activity, after each recovery."""
    with capfd.disabled():
        code, said = conducted("deploy.campaigns.leases", "--kills", "6", "--seed", "100")
    assert code == 0, "".join(said)
    assert said[-1].startswith("passed: 6 kills"), said[-1]
    # One of the six was in the middle of a commit: the vault never knew that role, and it is gone.
    assert ", 1 unknown roles," in said[-1], said[-1]


def test_every_step_is_struck_before_any_is_struck_twice() -> None:
    """The plan is the seed's; a death in the middle of a recovery comes after one that left something to recover."""
    deaths = plan(7, 60)
    assert deaths == plan(7, 60)
    assert {death.step for death in deaths[:30]} == set(Step)
    before = {first.step for first, second in pairwise(deaths) if second.step in RECOVERING}
    assert before <= {Step.CALLING, Step.MINTED, Step.KNOWN, Step.COMMITTED}


def test_a_gateway_that_ends_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One death in the middle of a statement, and no start after it: the campaign says what is left."""
    monkeypatch.setattr("deploy.campaigns.leases.campaign._RECOVERY_S", 0.5)
    with prepared(0, 1, settles=False) as campaign:
        (death,) = [one for one in plan(0, 40) if one.step is Step.MINTED][:1]
        assert campaign.house.begin(death)
        assert campaign.house.load()
        monkeypatch.setattr("deploy.campaigns.leases.life.House.lives", True)
        Campaign._judge(campaign, death)
        assert any(said.startswith("role ") for said in campaign.violations), campaign.violations
        assert any(said.startswith("lease ") for said in campaign.violations)
        assert any(said.startswith("token ") for said in campaign.violations)
