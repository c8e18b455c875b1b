"""Small rules of the core, each by itself: ballots, whose credentials, what was searched, errors told again."""

from dataclasses import replace
from functools import partial

import pytest
from msgspec import structs

from gateway.core.api_keys import KeyWish
from gateway.core.approval import Reviewer, State, Verdict
from gateway.core.ballot import added, counted, is_own
from gateway.core.call import Handout, Live, Login
from gateway.core.decision import MAX_RESULT_BYTES
from gateway.core.desk import LiveLease, RunRequest, Whose
from gateway.core.errors import Conflict, Forbidden, NotSent, OutcomeUnknown, recalled
from gateway.core.filters import Field, Term
from gateway.core.inquiry import Query, Searched
from gateway.core.known import KnownValues
from gateway.core.leasing import Provider, Template, VaultCause, crowded, holder_of
from gateway.core.signing import approval_message, document_hash, enrolment, enrolment_message, is_signed
from gateway.core.tiles import Proof, ProofError, check_proof
from gateway.core.tlog import Checkpoint, Frontier, leaf_hash
from gateway.core.witnessing import OtherSize, WitnessFault
from tests.approval_world import Person
from tests.evidence import lease, make_call, make_caller, make_intent, make_tool
from tests.unit.test_approval import ACTION
from tests.unit.test_decision import decide
from tests.unit.test_tlog import SIGNER

LEASE = LiveLease(template="erp", run="r", call="c", agent="a", user="u", tool="t.x", since_us=1)


def enrolled(person: Person, *roles: str, accounts: tuple[tuple[str, str], ...] = ()) -> Reviewer:
    """Their key, as it is known here."""
    return Reviewer(person.key_id, person.public, person.name, frozenset(roles), frozenset(accounts))


def test_a_ballot_counts() -> None:
    """The right key over exactly this action, of a person who is asked."""
    vera = Person("vera")
    word = counted(ACTION, vera.ballot(ACTION), enrolled(vera), 7)
    assert (word.person, word.verdict, word.at_us) == ("vera", Verdict.APPROVE, 7)
    assert added(ACTION, (), word) == ((word,), State.APPROVED)


def test_ballots_that_do_not_count() -> None:
    """Another key, another action, their own call, a role nobody asked for: each says which."""
    vera, tom = Person("vera"), Person("tom")
    ours = next(iter(ACTION.requirements))
    roles = replace(ACTION, requirements=(replace(ours, roles=("treasurer",)),))
    own = enrolled(vera, accounts=((ACTION.principal.issuer, str(ACTION.principal.user)),))
    cases = (
        (ACTION, vera.ballot(ACTION), enrolled(tom), "reviewer_key"),
        (ACTION, vera.ballot(ACTION), replace(enrolled(vera), revoked=True), "reviewer_key"),
        (ACTION, vera.ballot(replace(ACTION, tool="pay.other")), enrolled(vera), "signature"),
        (ACTION, vera.ballot(ACTION), own, "own_call"),
        (roles, vera.ballot(roles), enrolled(vera, "clerk"), "reviewer_role"),
    )
    for action, ballot, reviewer, cause in cases:
        with pytest.raises(Forbidden) as refused:
            counted(action, ballot, reviewer, 1)
        assert refused.value.cause_code == cause


def test_an_equal_name_is_the_same_person() -> None:
    """Whoever has no account here but the caller's name decides on none of their calls."""
    assert is_own(ACTION, enrolled(Person(str(ACTION.principal.user))))


def test_a_person_signs_once_and_may_take_it_back() -> None:
    """A second approval is refused; a rejection takes the place of the approval."""
    vera = Person("vera")
    word = counted(ACTION, vera.ballot(ACTION), enrolled(vera), 1)
    with pytest.raises(Conflict) as refused:
        added(ACTION, (word,), word)
    assert refused.value.cause_code == "signed_already"
    no = counted(ACTION, vera.ballot(ACTION, Verdict.REJECT, "no"), enrolled(vera), 2)
    assert added(ACTION, (word,), no) == ((no,), State.REJECTED)


def test_a_signature_of_no_key() -> None:
    """What is no key signs nothing."""
    vera = Person("vera")
    message = approval_message(ACTION.statement(), Verdict.APPROVE)
    assert is_signed(vera.public, vera.private.sign(message), message)
    assert not is_signed(vera.public, b"0" * 64, message)
    assert not is_signed(b"short", vera.private.sign(message), message)


def test_an_enrolment_is_signed_as_a_whole() -> None:
    """By whoever enrols: the key, the roles, the log, and the sealed document by its hash."""
    vera, tom = Person("vera"), Person("tom")
    wish = tom.enrolment(vera, origin="log", roles=("clerk",))
    document = enrolment(tom.public, "tom", ("clerk",), (), wish.nonce)
    message = enrolment_message("log", tom.public.hex(), ("clerk",), document_hash(document))
    assert wish.signature is not None
    assert is_signed(vera.public, wish.signature, message)
    assert document_hash(document | {"person": "eve"}) != document_hash(document)


def test_an_answer_of_the_engine_that_is_too_large() -> None:
    """It is not read at all: a denial that says so."""
    decision = decide(b" " * (MAX_RESULT_BYTES + 1))
    assert (decision.passes, decision.reasons[0].id) == (False, "engine.too_large")


@pytest.mark.parametrize("member", ["agent", "user", "tool", "run"])
def test_whose_credentials_are_meant(member: str) -> None:
    """All that is named must match; nothing named is every one."""
    assert Whose().covers(LEASE)
    assert Whose(**{member: getattr(LEASE, member)}).covers(LEASE)
    assert not Whose(**{member: "another"}).covers(LEASE)
    assert not Whose(**({"agent": "a", "user": "u"} | {member: "another"})).covers(LEASE)


def test_an_error_told_again() -> None:
    """As it was recorded; what is not known any more is an unknown outcome."""
    again = recalled("not_sent", "it was not sent", "connector_lost")
    assert isinstance(again, NotSent)
    assert (again.detail, again.cause_code) == ("it was not sent", "connector_lost")
    assert isinstance(recalled("of another version", "it was", "c"), OutcomeUnknown)


def test_what_a_search_was_by() -> None:
    """Every condition once, in order; the cursor alone is no search, but a proof names its record by it."""
    query = Query(tool="t.x", since_us=1, terms=(Term(Field.TOOL, "t.*"), Term(Field.USER, "u")))
    assert query.conditions == (Term(Field.TOOL, "t.x"), Term(Field.TOOL, "t.*"), Term(Field.USER, "u"))
    assert query.fields == (Field.SINCE, Field.TOOL, Field.USER)
    assert not Searched("records", query, None, 1).follows
    assert Searched("records", Query(after=7), None, 1).follows
    assert not Searched("proof", Query(after=7), None, 1).follows
    assert not Searched("records", Query(after=7), "x", 0, is_malformed=True).follows


def test_minted_secrets_have_room() -> None:
    """It shrinks by what is lent; a vault that is asked for more than fits mints nothing."""
    known = KnownValues()
    room = known.room
    known.lend("a minted password")
    assert known.room == room - 1
    assert (crowded().undone, crowded().cause_code) == (True, VaultCause.BUSY)


def test_templates_and_holders() -> None:
    """What has no lease of its own has a token of its own; the holder is the call's caller."""
    template = Template("erp", "database", "reader", "minter", 60)
    assert (template.is_single, template.token_policy) == (False, "minter")
    assert replace(template, policy="p").token_policy == "p"
    assert replace(template, provider=Provider.KV).is_single
    assert replace(template, must_revoke=False).is_single
    intent = make_intent()
    holder, caller = holder_of(intent), intent.quota.permit.target.caller
    assert (holder.issuer, holder.user) == (caller.principal.issuer, caller.principal.user)
    assert (holder.run_id, holder.call_id, holder.tool) == (caller.run.id, intent.call.id, intent.tool.fqn)


def test_a_proof_against_the_logs_key() -> None:
    """The entry itself is in it, and in the tree that the key has signed."""
    frontier = Frontier()
    frontier.append(leaf_hash(b"entry"))
    note = SIGNER.sign(Checkpoint(SIGNER.name, 1, frontier.root()).text)
    assert check_proof(Proof(0, (), note, b"entry"), SIGNER.key).size == 1
    for entry in (b"", b"another"):
        with pytest.raises(ProofError):
            check_proof(Proof(0, (), note, entry), SIGNER.key)


def test_tops_of_full_tiles() -> None:
    """The 256th leaf fills a tile of the lowest level."""
    frontier = Frontier()
    tops = [frontier.append(leaf_hash(bytes([number]))) for number in range(256)]
    assert not any(tops[:-1])
    assert tops[-1] == [(8, 0, frontier.root())]


def test_what_witnesses_say() -> None:
    """Faults carry their state, and a witness that is elsewhere says where."""
    assert WitnessFault("refused", "no").state == "refused"
    assert (OtherSize(7).size, "7" in str(OtherSize(7))) == (7, True)


@pytest.mark.parametrize(("until_us", "run_us", "key_us"), [(None, 61_500_000, 61_000_000), (5, 5, 5), (10**12,) * 3])
def test_what_is_made_of_a_credential_ends_with_it(until_us: int | None, run_us: int, key_us: int) -> None:
    """Where time passes between the asking and the making, too; else after the time that was asked for."""
    asked_s = 60 if until_us is None or until_us < 10**12 else 10**9
    wish = KeyWish("n", "dora", None, frozenset(), frozenset(), asked_s, until_us)
    assert RunRequest("g", "a", ttl_s=asked_s, until_us=until_us).end_us(1_500_000) == run_us
    assert wish.end_us(1_500_000) == key_us


def test_a_lease_is_shown_without_what_is_secret_of_it() -> None:
    """Header fields, password and credential of a process stay out of tracebacks and logs."""
    given = structs.replace(
        lease(make_tool(), {}, {"authorization": "Bearer secret-1"}),
        login=Login("u-1", "secret-2"),
        handout=Handout("KEY", "secret-3"),
    )
    assert "secret" not in repr(given)
    assert "u-1" in repr(given)


def test_a_call_is_shown_without_the_request_it_came_with() -> None:
    """What its surface says of it holds the header fields, the token among them."""
    headers = {"headers": [(b"authorization", b"Bearer secret-1")]}
    call = make_call(origin=Live("secret-2"), objection=partial(dict, headers), session="secret-3")
    caller = make_caller(call)
    assert "secret" not in repr(call) + repr(caller)
    assert call.tool in repr(caller)
