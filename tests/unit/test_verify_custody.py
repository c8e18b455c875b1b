"""What the verifier says of erasures and holds that no gateway of ours would have written."""

from typing import Any

import msgspec
import pytest

from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify_custody import CustodyTrail
from gateway.core.records import EventType

RUN, USER = "r-1", "0" * 32
Step = tuple[EventType, dict[str, Any]]
START: Step = (EventType.RUN_STARTED, {})
ERASED: Step = (EventType.ERASURE, {"cause": "run", "keys": [RUN]})
RETURNED: Step = (EventType.ERASURE, {"cause": "returned", "keys": [RUN]})


def hold(target: str, action: str = "set") -> Step:
    """A record of a hold."""
    return EventType.LEGAL_HOLD, {"action": action, "target": target}


def followed(*steps: Step) -> tuple[CustodyTrail, Report]:
    """A trail that took these records of one run, in this order."""
    report = Report()
    trail = CustodyTrail(report, present=())
    for index, (kind, body) in enumerate(steps):
        leaf = {"id": f"id-{index}", "run_id": RUN, "actor": {"user": USER}, "body": body}
        trail.record(kind, index, msgspec.json.encode(leaf))
    return trail, report


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ((START, hold(f"run:{RUN}"), ERASED), "although it is held"),
        ((START, hold(f"subject:{USER}"), ERASED), "although it is held"),
        ((START, ERASED, ERASED), "destroyed twice"),
        ((START, RETURNED), "anew but not before"),
        ((hold("run:x"), hold("run:x")), "set twice"),
        ((hold("run:x", "released"),), "released where there is none"),
    ],
)
def test_what_cannot_have_been_written_is_found(steps: tuple[Step, ...], problem: str) -> None:
    """Erased while held, erased twice, held twice, released unheld: each is a finding at its record."""
    _, report = followed(*steps)
    (finding,) = report.findings
    assert problem in finding.problem
    assert finding.index == len(steps) - 1


@pytest.mark.parametrize(
    "steps",
    [
        (START, ERASED, RETURNED, RETURNED),
        (START, hold(f"run:{RUN}"), hold(f"run:{RUN}", "released"), ERASED),
        (START, hold("run:r-2"), hold("subject:" + "1" * 32), ERASED),
    ],
)
def test_what_may_be_written_is_none(steps: tuple[Step, ...]) -> None:
    """Destroyed again where it was put back, erased after a release, and beside holds of others."""
    _, report = followed(*steps)
    assert report.ok


def test_nothing_is_sealed_under_a_destroyed_key() -> None:
    """A later payload under it is a finding, an earlier one is erased."""
    trail, report = followed(START, ERASED)
    trail.used(RUN, 2, "id-2")
    (finding,) = report.findings
    assert "was destroyed before" in finding.problem
