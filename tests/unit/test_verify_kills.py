"""What the verifier says of kills that were lifted in a way no gateway of ours would have written."""

from typing import Any

import msgspec
import pytest

from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify_kills import KillTrail
from gateway.core.records import EventType

KILL = "id-0"
Step = tuple[EventType, dict[str, Any]]
ENGAGED: Step = (EventType.KILL_ENGAGED, {"kind": "all", "mark": "m", "name": None})


def asked(voter: str, votes: int, needed: int = 2) -> Step:
    """One person's voice."""
    return EventType.KILL_LIFT_ASKED, {"kill": KILL, "needed": needed, "voter": voter, "votes": votes}


def lifted(votes: int, needed: int = 2) -> Step:
    """The end of the kill."""
    return EventType.KILL_LIFTED, {"kill": KILL, "needed": needed, "votes": votes}


def followed(*steps: Step) -> Report:
    """What is said of these records, in this order."""
    report = Report()
    trail = KillTrail(report)
    for index, (kind, body) in enumerate(steps):
        trail.record(kind, index, msgspec.json.encode({"id": f"id-{index}", "body": body}))
    return report


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ((ENGAGED, asked("a", 1), lifted(1)), "lifted by 1 persons where 2 are needed"),
        ((ENGAGED, lifted(0, 0)), "lifted by 0 persons where 1 are needed"),
        ((ENGAGED, asked("a", 1), asked("a", 1)), "asks twice"),
        ((ENGAGED, asked("a", 2)), "2 persons are said to have asked for a kill to be lifted, 1 did"),
        ((ENGAGED, asked("a", 1), asked("b", 2), lifted(3)), "3 persons are said"),
        ((asked("a", 1),), "not in force"),
        ((ENGAGED, asked("a", 1), asked("b", 2), lifted(2), lifted(2)), "kill.lifted of a kill that is not in force"),
    ],
)
def test_a_lift_that_cannot_have_been_written_is_found(steps: tuple[Step, ...], problem: str) -> None:
    """Too few persons, one counted twice, a count that is not that of the voices, a kill that is not in force."""
    (finding,) = followed(*steps).findings
    assert problem in finding.problem
    assert finding.index == len(steps) - 1


def test_what_may_be_written_is_none() -> None:
    """Two of two, one of one, and what gateways did about a kill that was lifted meanwhile."""
    carried = (EventType.KILL_CARRIED_OUT, {"kill": KILL})
    for steps in (
        (ENGAGED, carried, asked("a", 1), asked("b", 2), lifted(2), carried),
        (ENGAGED, asked("a", 1, 1), lifted(1, 1)),
        (carried,),
    ):
        report = followed(*steps)
        assert (report.findings, report.notices) == ([], [])


def test_a_quorum_that_was_lowered_meanwhile_is_told() -> None:
    """It is the operators' to configure, and everybody's to see."""
    report = followed(ENGAGED, asked("a", 1), asked("b", 2, 1), lifted(2, 1))
    assert report.ok
    assert report.notices == ["record 3: a kill was lifted with 1 needed, where 2 were before"]
