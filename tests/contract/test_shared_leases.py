"""Logins of scope ``run``: who gets one again, and everything that ends one. Never two persons, never two at a time."""

from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from msgspec import structs

from gateway.adapters.credentials import Leases
from gateway.adapters.credentials.pool import Key, Pool, key_of
from gateway.core.desk import Whose
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, Template, VaultCause
from tests.fakes.leases import READ, SHARED, Mint, fault
from tests.waiting import until

RUN = Holder("run-1", "call-1", "agent-1", "user-1", "erp.find", "issuer-1", ("actor-1",))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something in a pool."""

    name: str
    template: Template = SHARED
    ends_at: float = 60.0
    is_retired: bool = False


async def use(leases: Leases, holder: Holder = RUN, *, reads: bool = True, lasting_s: float = 10) -> str:
    """Which user a call has."""
    async with leases.login(SHARED.name, holder, lasting_s, reads=reads) as login:
        return login.user


async def test_reads_of_one_run_have_the_same_login_one_after_the_other() -> None:
    """Minted once, journalled for each call, in use in between, and ended when the gateway stops."""
    mint = Mint()
    async with mint.leases() as leases:
        first = await use(leases)
        assert await use(leases, structs.replace(RUN, call_id="call-2")) == first
        assert (len(mint.vault.logins), mint.meter.live) == (1, 1)
        assert [one.call for one in leases.live()] == ["call-2"]
        assert mint.lines.words() == ["opened", "leased", "reused"]
    assert (mint.vault.logins, mint.vault.tokens) == ({}, {})
    assert mint.lines.words() == ["opened", "leased", "reused", "revoked", "closed"]


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "issuer-2"},
        {"user": "user-2"},
        {"agent": "agent-2"},
        {"run_id": "run-2"},
        {"tool": "erp.other"},
        {"delegation": ()},
        {"issuer": None},
        {"user": None},
        {"agent": None},
        {"run_id": None},
        {"tool": None},
    ],
)
async def test_whoever_differs_in_anything_gets_another(change: dict[str, Any]) -> None:
    """Also where something is not known: then there is nothing to share."""
    mint, other = Mint(), structs.replace(RUN, **change)
    async with mint.leases() as leases:
        first = await use(leases)
        second = await use(leases, other)
        assert second != first
        if None in change.values():
            assert await use(leases, other) not in (first, second)
        assert await use(leases) == first


async def test_a_call_that_does_more_than_read_has_its_own() -> None:
    """It neither gets one that was kept, nor leaves one; nor does a template for single calls."""
    mint = Mint()
    async with mint.leases() as leases:
        kept = await use(leases)
        assert await use(leases, reads=False) != kept
        assert len(mint.vault.logins) == 1
        assert await use(leases) == kept
        async with leases.login(READ.name, RUN, 10, reads=True) as login:
            alone = login.user
        assert alone not in {held.user for _, held in mint.vault.logins.values()}


async def test_two_calls_at_a_time_never_have_the_same() -> None:
    """Each has its own while it lasts; the next finds one of the two."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login(SHARED.name, RUN, 10, reads=True) as first:
            second = await use(leases)
            assert second != first.user
        assert await use(leases) in {first.user, second}


async def test_one_that_would_end_before_the_call_is_not_given() -> None:
    """What is left of its life must do for this call, with a margin; it is minted anew otherwise."""
    mint = Mint()
    async with mint.leases() as leases:
        first = await use(leases)
        assert await use(leases, lasting_s=55) == first
        mint.clock.advance(9)
        assert await use(leases, lasting_s=50) == first
        assert await use(leases, lasting_s=51) != first


async def test_a_call_that_failed_leaves_none() -> None:
    """Its login may be what is wrong: it is ended, and the next call has another."""
    mint = Mint()
    async with mint.leases() as leases:
        with pytest.raises(ZeroDivisionError):
            async with leases.login(SHARED.name, RUN, 10, reads=True):
                raise ZeroDivisionError
        assert mint.vault.logins == {}


async def test_the_end_of_the_run_ends_them() -> None:
    """Those that wait at once, those in use with their call, and nobody of this run gets one kept any more."""
    mint = Mint()
    async with mint.leases() as leases:
        other = await use(leases, structs.replace(RUN, run_id="run-2"))
        await use(leases)
        async with leases.login(SHARED.name, RUN, 10, reads=True):
            await use(leases)
            leases.run_ended("run-1")
            await until(lambda: len(mint.vault.logins) == 2)
        await use(leases)
        assert [held.user for _, held in mint.vault.logins.values()] == [other]


async def test_a_cut_ends_those_that_wait_and_what_comes_back_is_not_kept() -> None:
    """Also one that was still being minted when its agent was cut; another agent's stays."""
    mint = Mint()
    async with mint.leases() as leases:
        other = await use(leases, structs.replace(RUN, agent="agent-2"))
        await use(leases)
        assert await leases.revoke(Whose(agent="agent-1")) == (1, 0)
        async with anyio.create_task_group() as group:
            cut: list[tuple[int, int]] = []

            async def cutting() -> None:
                cut.append(await leases.revoke(Whose(agent="agent-1")))

            def cut_now() -> None:
                group.start_soon(cutting)

            mint.journal.traps["vault.mint"] = cut_now
            await use(leases)
        assert len(cut) == 1
        assert [held.user for _, held in mint.vault.logins.values()] == [other]


async def test_one_that_cannot_be_ended_at_a_cut_is_said_to_be_pending() -> None:
    """It is tried again until it is gone, and nobody gets it meanwhile."""
    mint = Mint()
    async with mint.leases() as leases:
        first = await use(leases)
        mint.journal.fail("vault.revoke_login", fault(VaultCause.SLOW))
        mint.journal.fail("vault.revoke_later", fault(VaultCause.SLOW))
        assert await leases.revoke(Whose(run="run-1")) == (0, 1)
        assert await use(leases) != first
        del mint.journal.traps["vault.revoke_login"]
        del mint.journal.traps["vault.revoke_later"]
        await until(lambda: "revoked" in mint.lines.words())


async def test_a_login_whose_token_is_given_up_is_not_given() -> None:
    """The token's last user ends it, so nobody new may hang off it."""
    mint = Mint()
    async with mint.leases() as leases:
        first = await use(leases)
        mint.clock.advance(25)  # past the time in which its token should have been renewed
        async with leases.login(READ.name, structs.replace(RUN, run_id="run-9"), 10):
            pass
        mint.journal.fail("vault.renew_token", fault(VaultCause.NO_ROLE))
        await leases._tokens.look()
        assert await use(leases) != first


async def test_a_use_that_cannot_be_journalled_is_none() -> None:
    """The call is not carried out, and the login is ended."""
    mint = Mint()
    async with mint.leases() as leases:
        await use(leases)
        mint.journal.fail("journal.reused", fault(VaultCause.FAILED))
        with pytest.raises(Unavailable):
            await use(leases)
        assert (mint.vault.logins, mint.meter.live) == ({}, 0)


async def test_one_that_nobody_comes_for_is_ended() -> None:
    """After its time in the pool, long before it would end by itself."""
    ended: list[Waiting] = []
    pool: Pool[Waiting] = Pool(ended.append, idle_s=0.01)
    key = key_of(SHARED, RUN)
    assert key is not None
    assert pool.put(key, Waiting("a"))
    await until(lambda: ended == [Waiting("a")])
    assert pool.take(key, SHARED, 0) is None


async def test_another_role_of_the_same_name_is_not_given() -> None:
    """What was minted by other settings of the template is of no use to this decision."""
    pool: Pool[Waiting] = Pool(lambda _: None)
    key = key_of(SHARED, RUN)
    assert key is not None
    assert pool.put(key, Waiting("a"))
    assert pool.take(key, replace(SHARED, role="erp-admin"), 0) is None
    assert pool.take(replace(key, user="b"), SHARED, 0) is None
    assert pool.take(key, SHARED, 0) == Waiting("a")
    assert isinstance(key, Key)
