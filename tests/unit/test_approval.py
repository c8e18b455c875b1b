"""Approvals as plain rules: how they move, when signatures are enough, what a signature is of."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.approval import (
    EVENTS,
    OPEN,
    Action,
    Reviewer,
    Signature,
    State,
    Verdict,
    action_hash,
    approval_message,
    enrolment_message,
    is_signed,
    missing,
    moved,
    satisfied,
)
from gateway.core.ballot import counted
from gateway.core.call import Channel
from gateway.core.decision import Requirement
from gateway.core.errors import Forbidden
from gateway.core.records import EventType, RecordError
from tests.approval_world import Person
from tests.evidence import make_arguments, make_principal

ACTION = Action(
    id="a-1",
    nonce="00",
    call_id="c-1",
    principal=make_principal(),
    run="r-1",
    channel=Channel.MCP,
    tool="pay.transfer",
    definition="d",
    arguments=make_arguments({"amount": 1}),
    requirements=(Requirement("r", 1, (), "somebody"),),
    reasons=(),
    revision="0",
    requested_us=1,
    expires_us=2,
)
WALKS = st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from(["pending", "approved", "rejected", None])))


def signature(person: str, *roles: str, verdict: Verdict = Verdict.APPROVE) -> Signature:
    """A word of ``person``."""
    return Signature(f"key of {person}", person, frozenset(roles), verdict, 1)


@given(WALKS)
def test_whatever_is_written_an_approval_is_used_up_once(walk: list[tuple[EventType, str | None]]) -> None:
    """No sequence of records ends two executions of one approval, and what has ended stays so."""
    state: State | None = None
    executed = 0
    for kind, said in walk:
        try:
            after = moved(state, kind, said)
        except RecordError:
            continue
        assert state is None or state in OPEN, "a closed approval moved"
        if kind is EventType.TOOL_REQUESTED:
            assert state is State.APPROVED
        executed += after is State.ENDED
        state = after
    assert executed <= 1


def test_a_call_that_was_not_sent_gives_the_approval_back() -> None:
    """Nothing left: it may be tried again. Any other end uses it up."""
    assert moved(State.EXECUTING, EventType.TOOL_NOT_SENT) is State.APPROVED
    for ending in (EventType.TOOL_COMPLETED, EventType.TOOL_FAILED, EventType.TOOL_OUTCOME_UNKNOWN):
        assert moved(State.EXECUTING, ending) is State.ENDED


@pytest.mark.parametrize("state", [None, State.EXECUTING, State.ENDED, State.REJECTED, State.EXPIRED, State.VOID])
def test_only_what_waits_is_decided(state: State | None) -> None:
    """A word on anything else is no record."""
    with pytest.raises(RecordError):
        moved(state, EventType.APPROVAL_DECIDED, "approved")
    with pytest.raises(RecordError):
        moved(State.PENDING, EventType.APPROVAL_DECIDED, "ended")


def test_a_quorum_counts_persons_in_its_roles() -> None:
    """Keys of one person count once, other roles not at all, and who rejected does not count as for it."""
    need = Requirement("r", 2, ("treasurer",), "two treasurers")
    tess, tom = signature("tess", "treasurer"), signature("tom", "treasurer", "clerk")
    assert missing(need, [tess, replace(tess, key_id="another")]) == 1
    assert missing(need, [tess, signature("cleo", "clerk")]) == 1
    assert missing(need, [tess, tom]) == 0
    assert missing(need, [tess, tom, signature("tom", "treasurer", verdict=Verdict.REJECT)]) == 1
    anyone = Requirement("a", 1, (), "somebody")
    assert satisfied([need, anyone], [tess, tom])
    assert not satisfied([need, anyone], [tess])


def test_a_signature_is_of_one_thing_only() -> None:
    """One key, one message, one purpose: an enrolment's signature is no approval's."""
    vera, hashed = Person("vera"), action_hash({"tool": "pay"}, Verdict.APPROVE)
    good = vera.private.sign(approval_message(hashed))
    assert is_signed(vera.public, good, approval_message(hashed))
    assert not is_signed(vera.public, good, enrolment_message(hashed))
    assert not is_signed(Person("eve").public, good, approval_message(hashed))
    assert not is_signed(b"no key", good, approval_message(hashed))
    hashes = {hashed, action_hash({"tool": "pay"}, Verdict.REJECT), action_hash({"tool": "pay"}, Verdict.APPROVE, "x")}
    assert len(hashes) == 3


@pytest.mark.parametrize("flaw", [{"revoked": True}, {"key_id": "another"}])
def test_a_ballot_counts_for_the_key_it_names_while_that_is_enrolled(flaw: dict[str, Any]) -> None:
    """Neither a revoked key's nor one under another key's name, however good the signature is."""
    vera = Person("vera")
    reviewer = Reviewer(vera.key_id, vera.public, "vera", frozenset(), frozenset())
    assert counted(ACTION, vera.ballot(ACTION), reviewer, 5) == Signature(
        vera.key_id, "vera", frozenset(), Verdict.APPROVE, 5
    )
    with pytest.raises(Forbidden) as caught:
        counted(ACTION, vera.ballot(ACTION), replace(reviewer, **flaw), 5)
    assert caught.value.cause_code == "reviewer_key"
