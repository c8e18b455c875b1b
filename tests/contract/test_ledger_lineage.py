"""Limits on a run bind who has a standing token: sessions and tokens of one principal share what was used."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.ledger.storage.site import Site
from gateway.core.call import Principal
from gateway.core.decision import Decision, Effect
from gateway.core.desk import RunRequest
from gateway.core.errors import Denied, Throttled
from gateway.core.tool import Measure
from gateway.core.usage import Usage
from tests.clock import StepClock
from tests.evidence import make_decision, make_principal, make_tool
from tests.ledgers import Books, Walk, open_books

PAY = make_tool("pay", measures=(Measure("amount", "/amount", "/currency"),))
MOST = 500
DAY = 24 * 3600


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(site, StepClock()) as opened:
        yield opened


def paying(
    books: Books, session: str | None, principal: Principal | None = None, refusal: Throttled | None = None
) -> Walk:
    """A payment of 100.00 under a rule that allows 500.00 a run."""

    async def rule(usage: Usage) -> Decision:
        spent = usage.sums.get("up.pay", Counter())["amount.EUR"]
        await asyncio.sleep(0)
        return make_decision(Effect.ALLOW if spent + 100 <= MOST else Effect.DENY)

    arguments = {"amount": 100, "currency": "EUR"}
    who = principal or make_principal()
    return Walk(
        books, tool=PAY, arguments=arguments, rule=rule, principal=who, more={"session": session}, refusal=refusal
    )


async def paid(*walks: Walk) -> int:
    """How many of these payments, made one after the other, were let through."""
    passed = 0
    for walk in walks:
        try:
            await walk.go()
        except Denied:
            continue
        passed += 1
    return passed


def tick(books: Books, seconds: float) -> None:
    """Let time pass."""
    assert isinstance(books.clock, StepClock)
    books.clock.advance(seconds)


async def test_sessions_share_what_was_used(books: Books) -> None:
    """Three sessions of three payments each make three runs, and together pay no more than one may."""
    assert await paid(*(paying(books, session) for session in "abc" for _ in range(3))) == 5
    assert len(books.records("run.started")) == 3


async def test_tokens_share_what_was_used(books: Books) -> None:
    """A new token is no new allowance."""
    assert await paid(*(paying(books, None, make_principal(jti=jti)) for jti in "ab" for _ in range(4))) == 5


async def test_fifty_sessions_at_once_share_what_was_used(books: Books) -> None:
    """Deciding and reserving is one step of the principal, whatever session a call came by."""
    walks = [paying(books, f"s{number}") for number in range(50)]
    results = await asyncio.gather(*(walk.go() for walk in walks), return_exceptions=True)
    assert sum(isinstance(result, Denied) for result in results) == 45
    assert len(books.records("tool.completed")) == 5
    assert books.verify().ok


async def test_other_principals_have_their_own(books: Books) -> None:
    """Another agent, another user, and a run a person opened."""
    assert await paid(*(paying(books, "a") for _ in range(6))) == 5
    assert (
        await paid(paying(books, "a", make_principal(agent="other")), paying(books, "a", make_principal(user="u"))) == 2
    )
    run = await books.runs.start(make_principal(agent=None), RunRequest("pay", "test-agent"))
    assert await paid(*(paying(books, "a", make_principal(run=run.id)) for _ in range(6))) == 5
    assert await paid(paying(books, "b")) == 0


async def test_what_was_used_survives_a_restart(site: Site) -> None:
    """It is read from the log again: implicit runs of this agent and user, of the last 24 hours."""
    clock = StepClock()
    async with open_books(site, clock) as books:
        run = await books.runs.start(make_principal(agent=None), RunRequest("pay", "test-agent"))
        assert (
            await paid(paying(books, "x", make_principal(run=run.id)), paying(books, "x", make_principal(user="u")))
            == 2
        )
        assert await paid(paying(books, "x", make_principal(agent=None))) == 1
        assert await paid(paying(books, "a"), paying(books, "b"), paying(books, "c")) == 3
    clock.advance(3600)
    async with open_books(site, clock) as books:
        assert await paid(*(paying(books, session) for session in "abcd")) == 2
        assert await paid(*(paying(books, "p", make_principal(agent=None)) for _ in range(5))) == 4
    clock.advance(DAY - 3600 + 60)
    async with open_books(site, clock) as books:
        assert await paid(*(paying(books, session) for session in "abcd")) == 3


async def test_after_a_day_it_is_free_again(books: Books) -> None:
    """Each payment counts for 24 hours, by the minute, and the ledger then leaves memory."""
    assert await paid(paying(books, "a"), paying(books, "b")) == 2
    tick(books, 3600)
    assert await paid(*(paying(books, "c") for _ in range(4))) == 3
    tick(books, DAY - 3600 - 1)
    assert await paid(paying(books, "d")) == 0
    tick(books, 61)
    assert await paid(*(paying(books, "e") for _ in range(3))) == 2
    await books.runs.tend()
    assert len(books.runs._lineages._known) == 1
    tick(books, DAY + 60)
    await books.runs.tend()
    assert not books.runs._lineages._known


async def test_a_place_is_given_back(books: Books) -> None:
    """A payment that was throttled does not count."""
    for _ in range(6):
        with pytest.raises(Throttled):
            await paying(books, "a", refusal=Throttled("later")).go()
    assert await paid(*(paying(books, "b") for _ in range(6))) == 5


async def test_a_ledger_in_use_stays(books: Books) -> None:
    """While a payment is being decided or is about to be made, the ledger is not dropped."""

    async def rule(usage: Usage) -> Decision:
        await books.runs.tend()
        return make_decision()

    await Walk(books, tool=PAY, arguments={"amount": 450, "currency": "EUR"}, rule=rule).go()
    assert await paid(paying(books, "b")) == 0


async def test_open_runs_in_use_stay_out_of_memory(site: Site) -> None:
    """Tending reads no run that is not over; one that is over ends without being read."""
    clock = StepClock()
    async with open_books(site, clock) as books:
        person = make_principal(agent=None)
        for ttl in (60, 7200):
            await books.runs.start(person, RunRequest("pay", "test-agent", ttl_s=ttl))
        await paying(books, "a").go()
    async with open_books(site, clock) as books:
        clock.advance(60)
        await books.runs.tend()
        assert [record["body"]["reason"] for record in books.records("run.ended")] == ["expired"]
        clock.advance(1800)
        await books.runs.tend()
        assert [record["body"]["reason"] for record in books.records("run.ended")] == ["expired", "idle"]
        assert not books.runs._live
        assert books.verify().ok
