"""Runs: who may use which, until when, and how much; all of it survives a restart."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.adapters.ledger.storage.site import Site
from gateway.core.call import Intent, Principal, Proof, Reported, Run
from gateway.core.decision import Decision, Effect
from gateway.core.desk import RunRequest
from gateway.core.errors import BudgetExhausted, Denied, Forbidden, NotFound, Throttled, ToolFailed
from gateway.core.tool import Measure
from gateway.core.usage import Usage
from tests.clock import StepClock
from tests.evidence import make_call, make_decision, make_principal, make_tool
from tests.ledgers import Books, Walk, open_books

PERSON = make_principal(agent=None, scopes=frozenset({"runs"}))
PAY = make_tool("pay", measures=(Measure("amount", "/amount", "/currency"),))
GOAL = "pay the three invoices"


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(site) as opened:
        yield opened


async def opened(books: Books, **fields: Any) -> tuple[Run, Principal]:
    """A run the person opened, and the principal of its run token."""
    run = await books.runs.start(PERSON, RunRequest(GOAL, "test-agent", **fields))
    return run, make_principal(run=run.id)


async def enter(books: Books, principal: Principal, **call: Any) -> Run:
    """The run a call gets into."""
    return (await books.runs.enter(make_call(id=books.clock.uuid(), **call), principal)).run


def tick(books: Books, seconds: float) -> None:
    """Let time pass."""
    assert isinstance(books.clock, StepClock)
    books.clock.advance(seconds)


async def test_a_run_token_is_good_for_its_run_only(books: Books) -> None:
    """It enters that run with or without naming it, and no other."""
    run, token = await opened(books)
    other, _ = await opened(books)
    assert await enter(books, token) == run
    assert await enter(books, token, run=run.id) == run
    with pytest.raises(NotFound):
        await enter(books, token, run=other.id)


async def test_a_named_run_must_be_the_principals_own(books: Books) -> None:
    """The same agent and user may name a run; another user's or agent's, or a stranger's id, does not exist."""
    run, _ = await opened(books)
    assert await enter(books, make_principal(), run=run.id) == run
    for principal in (make_principal(user="mallory"), make_principal(agent="other"), PERSON):
        with pytest.raises(NotFound):
            await enter(books, principal, run=run.id)
    for name in ("no-such-run", "", "\ud800"):
        with pytest.raises(NotFound):
            await enter(books, make_principal(), run=name)


@pytest.mark.requirement("INTAKE-1")
async def test_only_a_person_opens_a_run(books: Books) -> None:
    """An agent cannot give itself a goal that is trusted."""
    with pytest.raises(Forbidden):
        await books.runs.start(make_principal(), RunRequest(GOAL, "test-agent"))


async def test_a_goal_is_payload(books: Books) -> None:
    """The goal, the scope and the plan come back with the run and stand in no leaf."""
    run, _ = await opened(books, scope=("erp.*",), plan=("erp.read",), budget={"calls": 3})
    assert await books.runs.show(run.id) == run
    assert await books.runs.show("no-such-run") is None
    (record,) = books.records("run.started")
    assert (record["body"]["scoped"], record["body"]["max_calls"]) == (1, 3)
    assert GOAL not in str(record)
    assert "erp" not in str(record)


async def test_evidence_is_what_the_run_itself_did(books: Books) -> None:
    """A call counts that was carried out in this run and did not fail; all else that is named is as if it were not."""

    async def fail(_intent: Intent) -> None:
        raise ToolFailed("the tool failed")

    done = await Walk(books).go()
    others = [(await Walk(books, more={"session": "another"}).go()).call_id]
    others.append((await Walk(books, value={"content": [], "isError": True}).go()).call_id)
    with pytest.raises(ToolFailed):
        await Walk(books, act=fail).go()
    others += [record["call_id"] for record in books.records("tool.failed")]
    assert len(others) == 3
    named = Reported(evidence=(*others, done.call_id, "no-such-call"))
    caller = await books.runs.enter(make_call(id=books.clock.uuid(), reported=named), make_principal())
    assert caller.run.id == done.run_id
    assert caller.proofs == (Proof(done.call_id, "up.echo"),)


async def test_a_session_implies_a_run(books: Books) -> None:
    """One run for each principal and session; the token's id stands in where there is no session."""
    first = await enter(books, make_principal(), session="s1")
    assert await enter(books, make_principal(jti="other"), session="s1") == first
    ids = {first.id, (await enter(books, make_principal(), session="s2")).id}
    ids |= {
        (await enter(books, make_principal(user="bob"), session="s1")).id,
        (await enter(books, make_principal())).id,
    }
    assert len(ids) == 4
    assert (first.kind, first.goal) == ("implicit", None)


async def test_callers_at_once_share_one_implied_run(books: Books) -> None:
    """Fifty first calls of a session start one run."""
    runs = await asyncio.gather(*(enter(books, make_principal(), session="s") for _ in range(50)))
    assert len({run.id for run in runs}) == 1
    assert books.types() == ["key", "run.started"]


async def test_an_idle_run_ends_and_a_new_one_begins(books: Books) -> None:
    """After thirty minutes without a call the session gets a new run; the old one's end counts its records."""
    first = await enter(books, make_principal(), session="s")
    for _ in range(2):
        tick(books, 29 * 60)
        assert await enter(books, make_principal(), session="s") == first
    tick(books, 30 * 60)
    assert await enter(books, make_principal(), session="s") != first
    (ended,) = books.records("run.ended")
    assert ended["run_id"] == first.id
    assert (ended["body"], ended["seq_run"]) == ({"reason": "idle", "count": 2}, 1)
    assert books.verify().ok


async def test_idle_and_expired_runs_are_ended_without_a_call(books: Books, site: Site) -> None:
    """Tending ends them, after a restart too, and leaves a run in use alone."""
    run, _ = await opened(books, ttl_s=60)
    await enter(books, make_principal(), session="s")

    async def act(intent: Intent) -> None:
        tick(books, 31 * 60)
        await books.runs.tend()

    await Walk(books, act=act, more={"session": "used"}).go()
    reasons = {record["run_id"]: record["body"]["reason"] for record in books.records("run.ended")}
    assert sorted(reasons.values()) == ["expired", "idle"]
    assert reasons[run.id] == "expired"
    tick(books, 31 * 60)
    await books.runs.tend()
    assert len(books.records("run.ended")) == 3
    assert books.verify().ok


async def test_an_expired_run_lets_nobody_in(books: Books) -> None:
    """At its end it is ended, and is then no run any more."""
    _, token = await opened(books, ttl_s=60)
    tick(books, 60)
    for _ in range(2):
        with pytest.raises(NotFound):
            await enter(books, token)
    assert [record["body"]["reason"] for record in books.records("run.ended")] == ["expired"]


async def test_an_ended_run_stays_ended(books: Books) -> None:
    """Ending twice is one record; a call in progress still records how it ends; no new intent goes in."""
    run, token = await opened(books)

    async def act(intent: Intent) -> None:
        await books.runs.end(run.id, "operator")
        await books.runs.end(run.id, "a sentence nobody should read in a leaf")

    await Walk(books, principal=token, act=act).go()
    assert [record["body"]["reason"] for record in books.records("run.ended")] == ["operator"]
    assert books.types()[-1] == "tool.completed"
    with pytest.raises(NotFound):
        await enter(books, token)
    with pytest.raises(NotFound):
        await books.runs.end("no-such-run", "operator")
    assert books.verify().ok


async def test_no_intent_enters_a_run_that_ended_meanwhile(books: Books) -> None:
    """A run that is ended between decision and intent takes no intent."""
    run, token = await opened(books)
    walk = Walk(books, principal=token)
    call = walk.call()
    async with books.runs.section(await books.runs.enter(call, token)):
        task = asyncio.create_task(walk.go(call))
        await asyncio.sleep(0)
        await books.runs.end(run.id, "a free sentence")
    with pytest.raises(NotFound):
        await task
    types = books.types(call.id)
    assert types[-1] == "request.refused"
    assert "tool.requested" not in types
    assert books.records("run.ended")[0]["body"]["reason"] == "irregular"
    assert books.verify().ok


async def test_a_budget_of_calls_is_kept(books: Books) -> None:
    """The third call of two is refused; a refused call gives nothing away."""
    _, token = await opened(books, budget={"calls": 2})
    for _ in range(2):
        await Walk(books, principal=token).go()
    with pytest.raises(BudgetExhausted):
        await Walk(books, principal=token).go()


async def at_most_three(usage: Usage) -> Decision:
    """A rule that reads, thinks for a while, and allows three calls a run."""
    used = usage.calls.total()
    await asyncio.sleep(0)
    return make_decision(Effect.ALLOW if used < 3 else Effect.DENY)


async def test_fifty_calls_at_once_do_not_pass_a_limit_of_three(books: Books) -> None:
    """Reading the usage, deciding and reserving is one step of the run, so "at most 3" is at most 3."""
    walks = [Walk(books, rule=at_most_three, more={"session": "s"}) for _ in range(50)]
    results = await asyncio.gather(*(walk.go() for walk in walks), return_exceptions=True)
    assert sum(isinstance(result, Denied) for result in results) == 47
    assert len(books.records("tool.completed")) == 3
    assert books.verify().ok


async def test_a_place_is_given_back_unless_the_intent_kept_it(books: Books) -> None:
    """A call that was throttled leaves room; one that failed after its intent does not."""

    async def act(intent: Intent) -> None:
        raise ToolFailed("no")

    more = {"session": "s"}
    for walk in (
        Walk(books, more=more, rule=at_most_three, refusal=Throttled("later")),
        Walk(books, more=more, rule=at_most_three, act=act),
        Walk(books, more=more, rule=at_most_three, act=act),
        Walk(books, more=more, rule=at_most_three, act=act),
    ):
        with pytest.raises((Throttled, ToolFailed)):
            await walk.go()
    with pytest.raises(Denied):
        await Walk(books, more=more, rule=at_most_three).go()


async def test_measures_add_up_and_survive_a_restart(site: Site) -> None:
    """Counts and sums of a run are the same before and after the gateway was restarted; the run is, too."""
    clock = StepClock()
    async with open_books(site, clock) as books:
        run, token = await opened(books, scope=("up.*",), budget={"calls": 9})
        for amount, currency in ((100, "EUR"), (250, "EUR"), (7, "USD")):
            await Walk(books, tool=PAY, principal=token, arguments={"amount": amount, "currency": currency}).go()
        implied = await enter(books, make_principal(), session="s")
    async with open_books(site, clock) as books:
        assert await enter(books, token) == run
        assert await enter(books, make_principal(), session="s") == implied
        async with books.runs.section(await books.runs.enter(make_call(), token)) as section:
            assert section.usage.calls == {"up.pay": 3}
            assert section.usage.sums == {"up.pay": {"amount.EUR": 350, "amount.USD": 7}}
        await books.runs.end(run.id, "operator")
    async with open_books(site, clock) as books:
        with pytest.raises(NotFound):
            await enter(books, token)
        assert books.verify().ok


async def test_unused_runs_leave_memory_and_come_back(books: Books) -> None:
    """After a while only runs in use are in memory; a run that left is read from the log again."""
    run, token = await opened(books)
    await Walk(books, principal=token).go()
    tick(books, 5 * 60)
    await books.runs.tend()
    assert run.id not in books.runs._live
    async with books.runs.section(await books.runs.enter(make_call(), token)) as section:
        assert section.usage.calls == {"up.echo": 1}
