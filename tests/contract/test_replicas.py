"""Two gateways' books on one PostgreSQL: one log, budgets counted together, and nobody speaks for a living other."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.books.leases import SignedLeaseJournal
from gateway.core.call import Intent, Principal
from gateway.core.custody import Target
from gateway.core.errors import MalformedRequest, NotFound, OutcomeUnknown, Unavailable
from gateway.core.leasing import Holder, MintingToken
from tests.evidence import make_call, make_principal
from tests.fakes.leases import READ
from tests.ledgers import Books, Walk, open_books
from tests.replicas import PERSON, Sites, made, opened, paying
from tests.waiting import until


@pytest.mark.requirement("AUDIT-1")
async def test_two_gateways_write_one_log(both: tuple[Books, Books]) -> None:
    """Records of both, in one order, each run a chain; the log is sound, and either serves all of it."""
    walks = [Walk(both[at % 2], principal=make_principal(user=f"u{at % 5}")) for at in range(60)]
    await asyncio.gather(*(walk.go() for walk in walks))
    for books in both:
        assert Counter(books.types())["tool.completed"] == 60
        assert (await books.tree.checkpoint()).splitlines()[1] == str(len(books.records()))
        report = books.verify()
        assert report.findings == []
        assert not report.open_calls


async def test_a_run_is_counted_by_both_together(both: tuple[Books, Books]) -> None:
    """Three calls a run: exactly three pass, though both are asked at once; the sum is never over."""
    token = await opened(both[0])
    assert await made(*(paying(both[at % 2], token) for at in range(30))) == 3
    token = await opened(both[1])
    assert await made(*(paying(both[at % 2], token, amount=200) for at in range(30))) == 2
    assert both[0].verify().findings == []


async def test_what_plain_clients_use_is_counted_by_both_together(both: tuple[Books, Books]) -> None:
    """Whatever session they come by."""
    sessions = [paying(both[at % 2], make_principal(), session=f"s{at % 4}") for at in range(24)]
    assert await made(*sessions) == 3


async def test_a_place_that_is_given_back_can_be_had_by_the_other(both: tuple[Books, Books]) -> None:
    """A refusal after the reservation costs the run nothing."""
    token = await opened(both[0])
    for _ in range(4):
        with pytest.raises(Unavailable):
            await replace(paying(both[0], token), refusal=Unavailable("no room")).go()
    assert await made(paying(both[1], token), paying(both[0], token), paying(both[1], token)) == 3


async def test_one_session_has_one_run(both: tuple[Books, Books]) -> None:
    """Also where both gateways meet it for the first time at once, and after it was ended by one of them."""
    who = make_principal()

    async def runs() -> set[str]:
        entered = await asyncio.gather(
            *(books.runs.enter(make_call(id=books.clock.uuid(), session="s"), who) for books in both * 4)
        )
        return {caller.run.id for caller in entered}

    (first,) = await runs()
    await both[0].runs.end(first, "done")
    (second,) = await runs()
    assert second != first
    assert both[0].verify().findings == []


async def test_a_run_that_one_ended_is_over_for_the_other(both: tuple[Books, Books]) -> None:
    """It takes no further call there, though it was in that one's memory as open."""
    token = await opened(both[0])
    await Walk(both[1], principal=token).go()
    await both[0].runs.end(str(token.run), "done")
    with pytest.raises(NotFound):
        await Walk(both[1], principal=token).go()


async def test_a_living_gateway_ends_nothing_of_another(both: tuple[Books, Books], sites: Sites) -> None:
    """Neither a third that starts nor the patrol: a call under way is its own gateway's."""
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def act(intent: Intent) -> None:
        under_way.set()
        await go_on.wait()

    walk = asyncio.create_task(Walk(both[0], act=act).go())
    await under_way.wait()
    async with open_books(sites.site("c"), SystemClock()) as third:
        third.ledger.patrol()
        await third.ledger.ping()
        await third.ledger.append(())
        assert "tool.outcome_unknown" not in third.types()
    go_on.set()
    await walk
    assert "tool.outcome_unknown" not in both[1].types()


async def test_who_lost_its_life_line_speaks_for_nothing_it_had(both: tuple[Books, Books], sites: Sites) -> None:
    """The other ends its open call; its own completion is refused, and it writes again once it has its line back."""
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def act(intent: Intent) -> None:
        sites.cut(both[0])
        under_way.set()
        await go_on.wait()

    walk = Walk(both[0], act=act)
    call = walk.call()
    task = asyncio.create_task(walk.go(call))
    await under_way.wait()
    await until(lambda: "tool.outcome_unknown" in both[1].types(call.id))
    go_on.set()
    with pytest.raises(OutcomeUnknown):
        await task
    await Walk(both[0]).go()
    assert both[1].types(call.id)[-1] == "tool.outcome_unknown"
    report = both[1].verify()
    assert report.findings == []
    assert not report.open_calls


async def test_a_place_that_was_taken_away_lets_no_call_out(both: tuple[Books, Books], sites: Sites) -> None:
    """Reserved, then taken for dead: the intent is refused before anything is sent, and the budget holds."""
    token = await opened(both[0])
    reached: list[str] = []

    async def act(intent: Intent) -> None:
        reached.append(intent.call.id)

    walk = paying(both[0], token)
    walk.act, walk.meanwhile = act, lambda: sites.run("delete from ostiary.reservations")
    with pytest.raises(Unavailable, match="place"):
        await walk.go()
    assert reached == []
    assert await made(*(paying(both[at % 2], token) for at in range(5))) == 3


async def refused(books: Books, who: Principal) -> None:
    """A request outside any run: sealed under the user's key of the day."""
    with pytest.raises(MalformedRequest):
        async with books.log.open(make_call(id=books.clock.uuid()), who):
            raise MalformedRequest("no")


async def test_what_one_erased_the_other_seals_under_a_new_key(sites: Sites) -> None:
    """A data key in the other's memory is not used again, also where the one that erases has started since."""
    who = make_principal(user="zoe")
    target = Target(subject=(who.issuer, who.user))
    async with open_books(sites.site("a"), SystemClock()) as books:
        await refused(books, who)
    async with open_books(sites.site("b"), SystemClock()) as other:
        await refused(other, who)
        for _ in range(3):
            async with open_books(sites.site("a"), SystemClock()) as books:
                erased = await books.custodian.erase(PERSON, target, "asked to")
                assert (erased.keys, erased.complete) == (1, False)
            await refused(other, who)
        keys = [record["payloads"][0]["dek"] for record in other.records("request.refused")]
        assert keys == [keys[0], keys[0], *(f"{keys[0]}+{generation}" for generation in (1, 2, 3))]
        report = other.verify()
        assert report.findings == []
        assert report.erased > 0


async def test_a_living_gateways_minting_tokens_are_no_leftovers(both: tuple[Books, Books], sites: Sites) -> None:
    """Another one that starts leaves them alone; once it is dead, they are found."""
    token = MintingToken("accessor-1", "s.secret-token", 30, "request-1")
    async with open_books(sites.site("c"), SystemClock()) as mortal:
        await journal(mortal).opened(Holder(), READ, token)
        journal(mortal).doubted(Holder(), READ.name, "accessor-2", "", "vault_failed")
        await mortal.ledger.append(())
        assert await journal(both[0]).leftovers(0) == []
        assert len(await journal(mortal).leftovers(0)) == 2
    assert [left.accessor for left in await journal(both[0]).leftovers(0)] == [token.accessor, "accessor-2"]
    assert both[0].verify().findings == []


def journal(books: Books) -> SignedLeaseJournal:
    """The lease journal of a process that has just started."""
    return SignedLeaseJournal(books.ledger, books.reader, books.keys, books.clock)


async def test_what_one_erased_the_other_forgets(both: tuple[Books, Books]) -> None:
    """Within a round of its patrol, though it had the run in memory as open."""
    token = await opened(both[0])
    await Walk(both[1], principal=token).go()
    run_id = str(token.run)
    assert run_id in both[1].runs._live
    await both[0].runs.end(run_id, "done")
    await both[0].custodian.erase(PERSON, Target(run=run_id), "asked to")
    await until(lambda: run_id not in both[1].runs._live)
    shown = await both[1].runs.show(run_id)
    assert shown is None or shown.goal is None


async def test_places_of_a_killed_gateway_are_given_back_when_it_is_back(sites: Sites) -> None:
    """It was decided on a call and died before the intent: the next process of its folder does not count it."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        token = await opened(books)
    sites.run(
        "insert into ostiary.reservations "
        f"select 'c', 'run:{token.run}', id, 'up.pay', '{{\"amount.EUR\": 100}}' from ostiary.replicas"
    )
    async with open_books(sites.site("b"), SystemClock()) as other:
        assert await made(*(paying(other, token) for _ in range(5))) == 3
        assert "tool.outcome_unknown" not in other.types()
    back = "insert into ostiary.reservations select 'd', 'x', id, 'up.pay', '{}' from ostiary.replicas where num = 1"
    sites.run(back)
    async with open_books(sites.site("a"), SystemClock()):
        assert sites.rows("select count(*) from ostiary.reservations") == [(0,)]
