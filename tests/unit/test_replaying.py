"""Comparing the past with what might be: effects, requirements, obligations, and the matrix of all of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import policy_input, replaying
from gateway.core.approval import Signature, Verdict
from gateway.core.call import Resolved, RunKind
from gateway.core.decision import Decision, Effect, Obligations, Requirement
from gateway.core.errors import Reason
from gateway.core.ports import PipelineSettings
from gateway.core.replaying import Seen, Shift, Word, differences, matrix, shift
from gateway.core.usage import Usage
from tests.evidence import AT_US, make_call, make_caller, make_decision, make_principal, make_run, make_tool
from tests.past import called

FAULT = (Reason("engine.timeout", "gateway", "policy could not be evaluated"),)
NEED = Requirement("pay.two", 2, ("cfo",), "two must agree", exclude=("requester",), ttl_s=60)
REASONS = st.lists(st.sampled_from([Reason(f"r.{name}", "p", name) for name in "abc"]), max_size=3).map(tuple)
WORDS = st.builds(
    Word,
    st.sampled_from(Seen),
    REASONS,
    st.sampled_from([(), (NEED,)]),
    st.sampled_from([Obligations(), Obligations(timeout_s=2.0)]),
    st.booleans(),
)


def said(effect: Effect, **other: Any) -> Decision:
    """A decision."""
    return make_decision(effect, **other)


@pytest.mark.parametrize(
    ("listed", "call", "seen"),
    [
        (Effect.ALLOW, Effect.ALLOW, Seen.ALLOW),
        (Effect.ALLOW, Effect.DENY, Seen.DENY),
        (Effect.ALLOW, Effect.NEEDS_APPROVAL, Seen.NEEDS_APPROVAL),
        (Effect.DENY, Effect.ALLOW, Seen.HIDDEN),
        (Effect.NEEDS_APPROVAL, Effect.ALLOW, Seen.HIDDEN),
        (Effect.ALLOW, None, Seen.LISTED),
        (Effect.DENY, None, Seen.HIDDEN),
    ],
)
def test_what_a_caller_sees_is_of_both_phases(listed: Effect, call: Effect | None, seen: Seen) -> None:
    """A tool that may not be known of is hidden whatever the call would be."""
    assert replaying.word(said(listed), None if call is None else said(call)).seen is seen


def test_an_engine_fault_is_no_word_of_policy() -> None:
    """In either phase, and whatever the other one says."""
    broken = said(Effect.DENY, reasons=FAULT)
    assert replaying.word(broken, said(Effect.ALLOW)).faulty
    assert replaying.word(said(Effect.ALLOW), broken).faulty
    assert shift(Word(Seen.ALLOW), replaying.word(broken, None)) is Shift.FAULT


@given(WORDS, WORDS)
def test_no_shift_is_the_same_in_both_directions_unless_nothing_opens(before: Word, after: Word) -> None:
    """What is newly allowed one way is not newly allowed the other way; faults and equal words are symmetric."""
    there, back = shift(before, after), shift(after, before)
    if before.faulty or after.faulty:
        assert there is back is Shift.FAULT
    elif there is Shift.NEWLY_ALLOWED and after.seen is not Seen.LISTED:
        assert back is not Shift.NEWLY_ALLOWED or before.seen is Seen.LISTED
    elif before.seen is after.seen:
        assert there is back


@given(WORDS)
def test_a_word_is_the_same_as_itself(one: Word) -> None:
    """Nothing changes where nothing changed."""
    assert differences(one, one) == ()
    assert shift(one, one) is (Shift.FAULT if one.faulty else Shift.SAME)


@given(WORDS, WORDS)
def test_newly_allowed_is_exactly_what_opens(before: Word, after: Word) -> None:
    """Nothing that may now pass, or be known of, and could not before, is called anything else."""
    opens = after.seen in {Seen.ALLOW, Seen.LISTED} and after.seen is not before.seen
    assert (shift(before, after) is Shift.NEWLY_ALLOWED) is (opens and not before.faulty and not after.faulty)


@given(st.lists(st.tuples(WORDS, WORDS)))
def test_the_matrix_counts_every_call_once(pairs: list[tuple[Word, Word]]) -> None:
    """Its sum is the number of calls, its diagonal what looks the same."""
    counts = matrix(pairs)
    assert sum(counts.values()) == len(pairs)
    same = sum(before.seen is after.seen for before, after in pairs)
    assert sum(count for (before, after), count in counts.items() if before is after) == same


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        (Seen.HIDDEN, Seen.DENY, Shift.CHANGED),
        (Seen.HIDDEN, Seen.LISTED, Shift.NEWLY_ALLOWED),
        (Seen.DENY, Seen.NEEDS_APPROVAL, Shift.CHANGED),
        (Seen.NEEDS_APPROVAL, Seen.ALLOW, Shift.NEWLY_ALLOWED),
        (Seen.NEEDS_APPROVAL, Seen.DENY, Shift.NEWLY_DENIED),
        (Seen.ALLOW, Seen.NEEDS_APPROVAL, Shift.CHANGED),
        (Seen.LISTED, Seen.HIDDEN, Shift.NEWLY_DENIED),
    ],
)
def test_shifts_of_effects(before: Seen, after: Seen, how: Shift) -> None:
    """What opens, what shuts, and what is in between."""
    assert shift(Word(before), Word(after)) is how


def test_what_people_and_gateway_are_bound_to_is_compared() -> None:
    """Quorum, roles, exclusions, life time, distinctness, and each obligation; sentences are not."""
    plain = Word(Seen.ALLOW, requirements=(NEED,))
    worded = Word(
        Seen.ALLOW, requirements=(Requirement("pay.two", 2, ("cfo",), "x", exclude=("requester",), ttl_s=60),)
    )
    assert shift(plain, worded) is Shift.SAME
    loose = Word(
        Seen.ALLOW,
        requirements=(Requirement("pay.two", 1, (), "x", distinct=False),),
        obligations=Obligations(timeout_s=2.0, per_minute=7, accept_missing=("pids", "cpu")),
    )
    assert shift(plain, loose) is Shift.CHANGED
    assert differences(plain, loose) == (
        "approval pay.two: 2 of cfo, not requester, good for 60 s -> 1 of anybody, need not differ",
        "rate: nothing -> 7 a minute",
        "sandbox may lack: nothing -> cpu, pids",
        "timeout: nothing -> 2 s",
    )


def test_other_reasons_are_told_apart_from_other_words() -> None:
    """The same effect for another reason is no change of what happens."""
    was, now = Word(Seen.DENY, (Reason("a", "p", "m"),)), Word(Seen.DENY, (Reason("b", "p", "m"),))
    assert shift(was, now) is Shift.REASONS
    assert was.ids == ("a",)


def test_the_listing_of_a_call_is_the_one_that_was_asked() -> None:
    """Byte for byte what the gateway built for phase list, from the document of phase call."""
    target = called("erp.find", {"n": 1.50, "deep": {"a": [1, 2]}})
    settings = PipelineSettings(environment="production", region="eu")
    usage = Usage()
    usage.reserve("erp.find", {"amount.EUR": 5})
    call = policy_input.calling(target, usage, settings, AT_US)
    listed = policy_input.listing(target, settings, AT_US)
    assert replaying.listing_of(call) == listed
    assert replaying.listing_of(listed) == listed


NAMES = st.text("abcxyz.-é", min_size=1, max_size=8)
VALUES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | NAMES


@given(
    who=st.fixed_dictionaries({"user": NAMES, "agent": st.none() | NAMES, "groups": st.frozensets(NAMES, max_size=3)}),
    run=st.fixed_dictionaries(
        {
            "goal": st.none() | NAMES,
            "scope": st.lists(NAMES, max_size=2).map(tuple),
            "plan": st.lists(NAMES, max_size=2).map(tuple),
            "budget": st.dictionaries(NAMES, st.integers(1, 2**60), max_size=2),
            "kind": st.sampled_from(RunKind),
        }
    ),
    arguments=st.dictionaries(NAMES, VALUES, max_size=4),
)
def test_the_listing_of_any_call_is_the_one_that_was_asked(
    who: dict[str, Any], run: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Whoever called, in whatever run, with whatever arguments and signatures."""
    principal = make_principal(**who)
    caller = make_caller(make_call("erp.find", arguments), principal, make_run(principal, **run))
    target, settings = Resolved(caller, make_tool("find", server="erp"), None, {"amount": 7}), PipelineSettings()
    signed = [Signature("k", "ann", frozenset({"cfo"}), Verdict.APPROVE, AT_US)]
    call = policy_input.calling(target, Usage(), settings, AT_US, signed)
    assert replaying.listing_of(call) == policy_input.listing(target, settings, AT_US)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"phase":"later"}', b'{"phase":7}', b'{"phase":"call"}', b"\xff"]
)
def test_what_is_no_input_is_refused(text: bytes) -> None:
    """As ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match="no policy input"):
        replaying.listing_of(text)


@pytest.mark.parametrize(("persons", "effect"), [(["ann", "bob"], Effect.ALLOW), (["ann"], Effect.NEEDS_APPROVAL)])
def test_signatures_of_the_input_count_as_they_did(persons: list[str], effect: Effect) -> None:
    """As many persons as asked for make an allow of an approval; fewer do not."""
    document = {
        "approvals": [
            {"by": by, "roles": ["cfo"], "verdict": "approve", "at_us": 1, "args_digest": ""} for by in persons
        ]
    }
    asked = said(Effect.NEEDS_APPROVAL, requirements=(NEED,))
    assert replaying.approved(asked, json.dumps(document).encode()).effect is effect


@pytest.mark.parametrize("text", [b'{"approvals":[{}]}', b'{"approvals":7}', b"\xff"])
def test_signatures_that_cannot_be_read_are_refused(text: bytes) -> None:
    """They come from a file, perhaps; an approval is never guessed."""
    with pytest.raises(ValueError, match="no policy input"):
        replaying.approved(said(Effect.NEEDS_APPROVAL, requirements=(NEED,)), text)


def test_signatures_change_nothing_else() -> None:
    """A deny stays one; without any signature an approval is still asked for."""
    denied = said(Effect.DENY)
    assert replaying.approved(denied, b"{}") is denied
    asked = said(Effect.NEEDS_APPROVAL, requirements=(NEED,))
    assert replaying.approved(asked, b"{}") is asked


def test_what_differs_from_the_record_is_named() -> None:
    """Effect, reason ids and requirements, each by what it was and is; nothing where all are the same."""
    need = {"id": "pay.two", "quorum": 2, "roles": ["cfo"], "msg": "other words"}
    recorded = {"effect": "needs_approval", "reasons": [{"id": "pay.two"}], "requirements": [need]}
    reasons = (Reason("pay.two", "p", "m"),)
    same = said(Effect.NEEDS_APPROVAL, reasons=reasons, requirements=(NEED,))
    assert replaying.unlike(recorded, same) == ()
    other = said(Effect.ALLOW, reasons=(Reason("b", "p", "m"),))
    assert replaying.unlike(recorded, other) == (
        "effect: recorded 'needs_approval', now 'allow'",
        "reasons: recorded ['pay.two'], now ['b']",
        "requirements: recorded [('pay.two', 2, ['cfo'])], now []",
    )
