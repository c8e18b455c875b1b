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
    missing,
    moved,
    satisfied,
)
from gateway.core.ballot import counted
from gateway.core.call import Channel
from gateway.core.decision import Requirement
from gateway.core.errors import Forbidden, InvalidArguments
from gateway.core.records import EventType, RecordError
from gateway.core.signing import approval_message, enrolment_message, is_signed, is_sound_key, statement_hash
from tests.approval_world import Person
from tests.evidence import make_arguments, make_principal

ACTION = Action(
    id="a-1",
    origin="log",
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
    """One key, one verdict on one action at one log, and an enrolment's signature is no verdict's."""
    vera, statement = Person("vera"), ACTION.statement()
    message = approval_message(statement, Verdict.APPROVE)
    good = vera.private.sign(message)
    assert is_signed(vera.public, good, message)
    others = [
        approval_message(statement, Verdict.REJECT),
        approval_message(statement, Verdict.APPROVE, "x"),
        enrolment_message("log", vera.public.hex(), [], statement_hash(statement).hex()),
        *(approval_message(statement | {name: "other"}, Verdict.APPROVE) for name in statement),
    ]
    assert not any(is_signed(vera.public, good, other) for other in others)
    assert not is_signed(Person("eve").public, good, message)
    assert not is_signed(b"no key", good, message)
    assert len({message, *others}) == len(others) + 1


# Points of small order, some in encodings that are not the shortest: signatures under them need no secret.
SMALL = (
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "00" * 31 + "80",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)


@pytest.mark.parametrize("public", [*SMALL, "02" + "00" * 31, "00" * 31])
def test_a_key_that_nobody_holds_is_no_key(public: str) -> None:
    """Small order, not on the curve, another size."""
    assert not is_sound_key(bytes.fromhex(public))


def test_keys_that_were_made_are_keys() -> None:
    """None that a library makes is refused."""
    assert all(is_sound_key(Person(str(number)).public) for number in range(50))


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
    with pytest.raises(InvalidArguments):
        counted(ACTION, vera.ballot(ACTION, Verdict.APPROVE, "a reason"), reviewer, 5)
