"""Killed again and again on one log: nothing acknowledged is lost, nothing happens without an intent or stays open.

Five deaths on the real thing, at every moment there is; ``make campaign NAME=kill`` is two hundred of them. And the
campaign is put to the test itself: gateways whose log breaks a promise are found out.
"""

import sys

import pytest

from deploy.campaigns.kill.__main__ import conducted
from deploy.campaigns.kill.campaign import Options
from tests.attack.test_faults import conducted as told
from tests.fixtures.broken_logs import BROKEN
from tests.tiers import tiered


@pytest.mark.requirement("TEST-5")
def test_nothing_is_lost_whenever_the_gateway_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """Under load, in a start, in an end, while pages move: the log is whole, and each intent has one ending."""
    with capfd.disabled():
        code, said = told("deploy.campaigns.kill", "--kills", "5")
    assert code == 0, "".join(said)
    assert said[-1].startswith("passed: 5 kills"), said[-1]


@pytest.mark.parametrize("name", tiered(["acts_before_the_intent"], deep=sorted(BROKEN)))
async def test_a_log_that_breaks_a_promise_is_found_out(name: str) -> None:
    """A real gateway with a broken log is reported, for what is broken."""
    command = (sys.executable, "-m", "tests.fixtures.broken_logs", name)
    campaign = await conducted(Options(kills=5, command=command, until_violated=True))
    assert any(BROKEN[name][1] in violation for violation in campaign.judge.violations), campaign.judge.violations
