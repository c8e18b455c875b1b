"""Parked calls on the real log: who may approve, what is executed then, and that it is executed once."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from msgspec import structs

from gateway.adapters.ledger.actiondoc import action_payload, read_action
from gateway.adapters.ledger.storage.site import Site
from gateway.core import pipeline
from gateway.core.approval import State, Verdict
from gateway.core.call import Answer, Reported, Resumed
from gateway.core.errors import (
    Conflict,
    Denied,
    Forbidden,
    GatewayError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Pending,
    Throttled,
    Unavailable,
)
from tests.approval_world import OPERATOR, Door, Person, open_door
from tests.clock import StepClock
from tests.fakes import World
from tests.fakes.callers import AGENT
from tests.fakes.rules import ALLOW, APPROVAL, DENY

VERA, PAUL = Person("vera"), Person("paul")
FORGERIES = ("stranger", "revoked", "other action", "other verdict", "changed", "replayed", "another gateway's")


def asking(**need: Any) -> dict[str, Any]:
    """A policy that asks for people as ``need`` says."""
    return ALLOW | {"require": {"test": [{"id": "test.approval", "msg": "people must agree", **need}]}}


@pytest.fixture
async def door(site: Site) -> AsyncIterator[Door]:
    """A door where payments need a person; Vera and Paul may approve."""
    async with open_door(site) as opened:
        await opened.enrol(VERA, PAUL)
        yield opened


@pytest.mark.requirement("GATE-1")
async def test_a_payment_waits_and_is_made_once_a_person_signed(door: Door) -> None:
    """Nothing leaves before; then the call is made once, and whoever repeats it is told what came of it."""
    action = await door.parked()
    assert door.paid() == 0
    await door.approve(action, VERA)
    dossier = await door.reaches(action, State.ENDED)
    answers = [await door.knock() for _ in range(3)]
    assert door.paid() == 1
    assert {(answer.call_id, answer.replayed, answer.body) for answer in answers} == {
        (dossier.call_id, True, answers[0].body)
    }
    assert b"42 in stock" in answers[0].body
    assert door.books.verify().findings == []


async def test_an_approved_call_is_decided_with_what_its_agent_said(door: Door) -> None:
    """Also after the log is read again: the doubt that had it parked is not forgotten when it is carried out."""
    said = Reported(confidence_pct=20, evidence=("018f0000-0000-7000-8000-0000000000ca",))
    action = await door.parked(structs.replace(door.call(), reported=said))
    assert action.reported == said
    assert read_action(action_payload(action).content) == action
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    asked = [document for document in door.world.policy.asked if document["phase"] == "call"]
    assert [document["risk"] for document in asked] == [{"confidence_pct": 20}] * len(asked)
    assert len(asked) == 2


@pytest.mark.requirement("GATE-1")
async def test_twenty_identical_calls_are_one_action(door: Door) -> None:
    """They wait for one approval, one of them is carried out, and all are told its outcome."""
    waits: list[str] = []
    told: list[Answer] = []

    async def ask() -> None:
        waits.append((await door.parked()).id)

    async def ask_again() -> None:
        told.append(await door.knock())

    async with create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    action = (await door.books.approvals.dossier(waits[0])).action
    async with create_task_group() as tasks:
        tasks.start_soon(door.approve, action, VERA)
        await door.reaches(action, State.ENDED)
        for _ in range(20):
            tasks.start_soon(ask_again)
    assert len(set(waits)) == 1
    assert (door.paid(), len({answer.call_id for answer in told}), len(told)) == (1, 1, 20)
    assert [record["type"] for record in door.books.records()].count("approval.requested") == 1


async def test_other_arguments_are_another_action(door: Door) -> None:
    """What was approved for one amount is no approval of another one."""
    action = await door.parked()
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    other = await door.parked(door.call(b'{"amount": 2}'))
    assert (other.id != action.id, door.paid()) == (True, 1)


async def test_a_rejection_carries_its_reason_to_the_agent(door: Door) -> None:
    """The agent hears why, and nothing was executed."""
    action = await door.parked()
    await door.books.approvals.decide(action.id, VERA.ballot(action, Verdict.REJECT, "wrong supplier"))
    with pytest.raises(Denied) as caught:
        await door.knock()
    assert caught.value.cause_code == "approval_rejected"
    assert "wrong supplier" in caught.value.detail
    assert door.paid() == 0
    with pytest.raises(Conflict):
        await door.books.approvals.decide(action.id, PAUL.ballot(action))


@pytest.mark.requirement("GATE-1")
@pytest.mark.parametrize(
    ("accounts", "name"), [((), "ada"), (((AGENT.issuer, "ada"),), "somebody")], ids=["same name", "own account"]
)
async def test_the_requester_cannot_approve(door: Door, accounts: tuple[tuple[str, str], ...], name: str) -> None:
    """Nobody signs for a call made in their own name, whatever their key is called."""
    requester = Person(name)
    await door.books.reviewers.enrol(
        OPERATOR, requester.enrolment(VERA, origin=door.books.reviewers.origin, accounts=accounts)
    )
    action = await door.parked()
    with pytest.raises(Forbidden) as caught:
        await door.approve(action, requester)
    assert (caught.value.cause_code, door.paid()) == ("own_call", 0)


@pytest.mark.requirement("GATE-1")
@pytest.mark.parametrize(
    "forgery", ["stranger", "revoked", "other action", "other verdict", "changed", "replayed", "another gateway's"]
)
async def test_a_word_that_is_not_a_reviewers_on_this_action_counts_for_nothing(door: Door, forgery: str) -> None:
    """Keys that are not enrolled, signatures of something else: refused, and the call waits on."""
    action, other = await door.parked(), await door.parked(door.call(b'{"amount": 9}'))
    good = VERA.ballot(action)
    ballots = {
        "stranger": Person("vera").ballot(action),
        "revoked": PAUL.ballot(action),
        "other action": VERA.ballot(other),
        "other verdict": replace(VERA.ballot(action, Verdict.REJECT, None), verdict=Verdict.APPROVE),
        "changed": replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1])),
        "replayed": replace(good, signature=VERA.ballot(replace(action, nonce="11" * 16)).signature),
        "another gateway's": replace(good, signature=VERA.ballot(replace(action, origin="x")).signature),
    }
    if forgery == "revoked":
        await door.books.reviewers.revoke(OPERATOR, PAUL.key_id)
    with pytest.raises(Forbidden):
        await door.books.approvals.decide(action.id, ballots[forgery])
    assert (await door.books.approvals.dossier(action.id)).state is State.PENDING
    assert door.paid() == 0


@pytest.mark.requirement("GATE-1")
async def test_a_quorum_counts_persons(door: Door) -> None:
    """Two keys of one person are one person; the same person twice is told so."""
    door.world.policy.words[("call", "bank.pay")] = asking(quorum=2)
    second_key = Person("vera")
    await door.books.reviewers.enrol(OPERATOR, second_key.enrolment(VERA, origin=door.books.reviewers.origin))
    action = await door.parked()
    assert (await door.approve(action, VERA)).missing == (1,)
    for again in (VERA, second_key):
        with pytest.raises(Conflict):
            await door.approve(action, again)
    assert door.paid() == 0
    await door.approve(action, PAUL)
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1
    assert door.books.verify().findings == []


async def test_who_looks_is_not_shown_a_revoked_keys_word_as_one_that_counts(door: Door) -> None:
    """Neither reviewers, one by one and in the list, nor the agent that is told how many it waits for."""
    door.world.policy.words[("call", "bank.pay")] = asking(quorum=2)
    action = await door.parked()
    assert (await door.approve(action, PAUL)).missing == (1,)
    await door.books.reviewers.revoke(OPERATOR, PAUL.key_id)
    (listed,), _ = await door.books.approvals.waiting(10)
    dossier = await door.books.approvals.dossier(action.id)
    assert (listed.missing, dossier.missing, dossier.signatures) == ((2,), (2,), ())
    with pytest.raises(Pending) as caught:
        await door.knock()
    assert "2 persons" in caught.value.detail


async def test_a_role_that_is_asked_for_must_be_held(door: Door) -> None:
    """Who has none of the roles cannot sign; who has one can."""
    door.world.policy.words[("call", "bank.pay")] = asking(roles=["treasurer"])
    treasurer = Person("tess")
    await door.books.reviewers.enrol(
        OPERATOR, treasurer.enrolment(VERA, origin=door.books.reviewers.origin, roles=["treasurer"])
    )
    action = await door.parked()
    with pytest.raises(Forbidden) as caught:
        await door.approve(action, VERA)
    assert caught.value.cause_code == "reviewer_role"
    await door.approve(action, treasurer)
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1


async def test_nobody_in_time_is_a_no(site: Site) -> None:
    """After its time an approval lapses: the agent is told, and no signature helps any more."""
    clock = StepClock()
    async with open_door(site, clock=clock) as door:
        await door.enrol(VERA)
        action = await door.parked()
        clock.advance(3601)
        with pytest.raises(Conflict):
            await door.approve(action, VERA)
        with pytest.raises(Denied) as caught:
            await door.knock()
        assert (caught.value.cause_code, door.paid()) == ("approval_expired", 0)
        clock.advance(601)
        await door.books.approvals.tend()
        assert (await door.parked()).id != action.id


async def test_what_stands_in_the_way_and_passes_does_not_burn_an_approval(door: Door) -> None:
    """A limit, a part that is down, an upstream that was not reached: tried again until it is done, once."""
    action = await door.parked()
    failures: list[GatewayError] = [
        Throttled("busy", retry_after=1),
        Unavailable("no credential"),
        NotSent("refused"),
    ]
    steps = ["limits.spend", "broker.lease", "connector.invoke"]
    for step, error in zip(steps, failures, strict=True):
        door.world.journal.traps[step] = _once(door, step, error)
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1
    types = [record["type"] for record in door.books.records()]
    assert (types.count("tool.requested"), types.count("tool.not_sent"), types.count("tool.completed")) == (3, 2, 1)
    assert door.books.verify().findings == []


def _once(door: Door, step: str, error: GatewayError) -> Any:
    def trap() -> None:
        del door.world.journal.traps[step]
        raise error

    return trap


@pytest.mark.parametrize("change", ["denied", "stricter", "run ended"])
async def test_a_world_that_changed_voids_an_approval(door: Door, change: str) -> None:
    """Policy, or the run, says no at the time of the call: nothing goes out, and the agent is told."""
    action = await door.parked()
    words = {"denied": DENY, "stricter": asking(quorum=2)}
    door.world.policy.words[("call", "bank.pay")] = words.get(change, APPROVAL)
    if change == "run ended":
        await door.books.runs.end(action.run, "closed")
    await door.approve(action, VERA)
    dossier = await door.reaches(action, State.VOID)
    assert (door.paid(), bool(dossier.why)) == (0, True)
    assert door.books.verify().findings == []


async def test_an_effect_whose_end_is_not_known_is_not_tried_again(door: Door) -> None:
    """The outcome is kept and told: it may have happened."""
    door.world.journal.fail("connector.sent", OutcomeUnknown("the line went dead"))
    action = await door.parked()
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown) as caught:
            await door.knock()
        assert "the line went dead" in caught.value.detail
    assert door.paid() == 1


async def test_only_the_caller_may_ask_after_a_parked_call(door: Door) -> None:
    """Another principal's approval is no approval; neither is one that does not exist."""
    action = await door.parked()
    await door.books.approvals.check_own(action.principal, action.id)
    for principal, name in ((replace(AGENT, user="eve"), action.id), (AGENT, "no-such"), (AGENT, "")):
        with pytest.raises(NotFound) as caught:
            await door.books.approvals.check_own(principal, name)
        assert caught.value.detail == "no such approval"


async def test_another_chain_of_actors_is_another_caller(door: Door) -> None:
    """What one agent asked for through a second one is neither approved for nor told to whoever comes by a third."""
    tokens, far = door.world.identity.tokens, door.world.identity.tokens["good"]
    tokens["good"] = replace(far, delegation=("planner", "clerk"))
    action = await door.parked()
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    for chain in (("planner", "stranger"), ()):
        tokens["good"] = replace(far, delegation=chain)
        assert (await door.parked()).id != action.id
        with pytest.raises(NotFound):
            await door.books.approvals.check_own(tokens["good"], action.id)
    assert door.paid() == 1


async def test_nobody_fills_the_inbox(door: Door) -> None:
    """So many of one caller's calls may wait; one more is told to come back later."""
    for amount in range(100):
        await door.parked(door.call(b'{"amount": %d}' % amount))
    with pytest.raises(Throttled):
        await door.knock(door.call(b'{"amount": 100}'))
    listed, waiting = await door.books.approvals.waiting(10)
    assert (len(listed), waiting) == (10, 100)


@pytest.mark.requirement("GATE-1")
@pytest.mark.parametrize("moment", ["parked", "half signed", "approved", "executed"])
async def test_a_restart_forgets_nothing(site: Site, moment: str) -> None:
    """Whenever the gateway stops, the next one goes on where the log says; the payment is made once."""
    world = World()
    world.policy.words[("call", "bank.pay")] = asking(quorum=2 if moment == "half signed" else 1)
    async with open_door(site, world=world, resuming=moment == "executed") as door:
        await door.enrol(VERA, PAUL)
        action = await door.parked()
        if moment != "parked":
            await door.approve(action, VERA)
        if moment == "executed":
            await door.reaches(action, State.ENDED)
    async with open_door(site, world=world) as door:
        if moment in {"parked", "half signed"}:
            assert (await door.parked()).id == action.id
            await door.approve(action, PAUL)
        await door.reaches(action, State.ENDED)
        assert (await door.knock()).replayed
        assert door.paid() == 1
        assert door.books.verify().findings == []


async def test_a_claim_cannot_be_made_twice(site: Site) -> None:
    """Two that resume the same approved action at once: one intent is written, the other is refused."""
    async with open_door(site, resuming=False) as door:
        await door.enrol(VERA)
        action = await door.parked()
        await door.approve(action, VERA)
        ended: list[str] = []

        async def attempt() -> None:
            call = structs.replace(door.call(), origin=Resumed(action.id), run=action.run)
            try:
                await pipeline.handle(call, door.ports)
            except GatewayError as error:
                ended.append(error.code)

        async with create_task_group() as tasks:
            tasks.start_soon(attempt)
            tasks.start_soon(attempt)
        assert (door.paid(), ended) == (1, ["unavailable"])
        assert [record["type"] for record in door.books.records()].count("tool.requested") == 1


async def test_the_wait_ends_with_the_word(door: Door) -> None:
    """Who waits for an outcome gets it as soon as there is one, not at the end of its patience."""
    action = await door.parked()
    with pytest.raises(Pending):
        await door.books.approvals.outcome(action.id, 0)
    told: list[Answer] = []

    async def wait() -> None:
        told.append(await door.books.approvals.outcome(action.id, 3600))

    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            await door.approve(action, VERA)
    assert told[0].replayed
