"""Records in, rows out: what the watch makes of the log."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.watch.calls import Calls, State
from tests.log_lines import completed, denied, entry


def rows_of(*records: tuple[int, dict[str, Any]], keep: int = 100) -> Calls:
    """The calls after these records."""
    calls = Calls(keep)
    for index, record in records:
        calls.take(index, record)
    return calls


def test_a_call_is_one_row_from_its_decision_to_its_end() -> None:
    """The row follows the call: decided, sent, completed, with what was taken out and how long it took."""
    calls = Calls(10)
    states = []
    for index, record in completed(0, "c", redactions=2):
        row = calls.take(index, record)
        assert row is not None
        states.append((row.state, row.decision, row.took_us))
    assert states == [
        (State.RUNNING, "allow", 900),
        (State.RUNNING, "allow", 900),
        (State.COMPLETED, "allow", 5000),
    ]
    (row,) = calls.newest_first()
    assert (row.agent, row.tool, row.effect_class, row.redactions, row.reason) == (
        "ap-agent",
        "erp.find_order",
        "read",
        2,
        "scope.allowed",
    )


def test_a_refusal_by_policy_is_one_record_and_names_the_rule_that_matters() -> None:
    """That nothing allows a call is said only where no rule says more."""
    (row,) = rows_of(denied(0, "c")).newest_first()
    assert (row.state, row.code, row.reason, row.decision) == (State.REFUSED, "denied", "scope.not_granted", "deny")
    bare = entry(0, "decision", "c", effect="deny", reasons=["default.no_allow"], code="denied")
    assert rows_of(bare).newest_first()[0].reason == "default.no_allow"


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("tool.failed", State.FAILED),
        ("tool.not_sent", State.NOT_SENT),
        ("tool.outcome_unknown", State.UNKNOWN),
        ("request.refused", State.REFUSED),
    ],
)
def test_every_bad_end_is_told_apart(kind: str, state: State) -> None:
    """With the error's code and its cause."""
    end = entry(2, kind, "c", tool="erp.find_order", code="tool_failed", cause="timeout", total_us=7)
    (row,) = rows_of(*completed(0, "c")[:2], end).newest_first()
    assert (row.state, row.code, row.reason, row.took_us) == (state, "tool_failed", "timeout", 7)
    assert row.has_ended


def test_a_call_that_waits_for_a_person_is_pending_and_goes_on_when_signed() -> None:
    """The same call, decided again, is the same row."""
    parked = entry(0, "decision", "c", tool="pay.transfer", effect="needs_approval", reasons=["money"], code="pending")
    calls = rows_of(parked)
    assert calls.newest_first()[0].state is State.PENDING
    for index, record in completed(1, "c", "pay.transfer"):
        calls.take(index, record)
    (row,) = calls.newest_first()
    assert (row.state, row.decision, row.code) == (State.COMPLETED, "allow", None)


@pytest.mark.parametrize(
    ("kind", "said", "state", "code"),
    [
        ("approval.decided", {"state": "pending"}, State.PENDING, "pending"),
        ("approval.decided", {"state": "approved"}, State.PENDING, "approved"),
        ("approval.decided", {"state": "rejected"}, State.REFUSED, "rejected"),
        ("approval.expired", {}, State.REFUSED, "expired"),
        ("approval.void", {}, State.REFUSED, "void"),
    ],
)
def test_what_people_say_is_seen_at_the_call_that_waits(
    kind: str, said: dict[str, str], state: State, code: str
) -> None:
    """And where the call itself is not known any more, it makes no row of its own."""
    parked = entry(0, "decision", "c", tool="pay.transfer", effect="needs_approval", code="pending")
    (row,) = rows_of(parked, entry(1, kind, "c", **said)).newest_first()
    assert (row.state, row.code, row.agent) == (state, code, "ap-agent")
    assert rows_of(entry(1, kind, "c", **said)).newest_first() == ()


def test_what_is_no_call_makes_no_row() -> None:
    """Runs, keys, and record types of a later version are passed over, also those that name a call."""
    calls = rows_of(
        entry(0, "run.started", None),
        entry(1, "key", None),
        entry(2, "credential.leased", "c"),
        entry(3, "decision", None),
    )
    assert calls.newest_first() == ()


def test_odd_members_break_nothing() -> None:
    """Whatever a record holds where something else was expected, there is a row and no exception."""
    for body in ({"reasons": "x", "effect": 7, "took_us": True}, {"reasons": [None]}, {"rules": {"a": "b"}}):
        for kind in ("decision", "tool.requested", "redaction", "tool.completed", "tool.failed"):
            (row,) = rows_of(entry(0, kind, "c", **body)).newest_first()
            assert row.took_us is None
    strange: dict[str, Any] = {"type": "decision", "call_id": "c", "body": None, "actor": 3, "ts": "now"}
    (row,) = rows_of((0, strange)).newest_first()
    assert (row.agent, row.at_us, row.decision) == (None, 0, None)


def test_memory_is_bounded_and_the_newest_stay() -> None:
    """The oldest rows go first."""
    calls = rows_of(*(denied(at, f"c-{at}") for at in range(50)), keep=10)
    assert [row.call_id for row in calls.newest_first()] == [f"c-{at}" for at in range(49, 39, -1)]


def test_a_policy_that_only_observes_does_not_seem_to_bind() -> None:
    """The row keeps whether the decision was enforced."""
    observed = entry(0, "decision", "c", effect="deny", enforced=False, reasons=["x"])
    (row,) = rows_of(observed).newest_first()
    assert not row.enforced
    assert row.state is State.RUNNING
    assert replace(row, enforced=True) != row
