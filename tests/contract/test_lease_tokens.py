"""Minting tokens: renewed while they are used, ended when they are not, and swept by the next process."""

import anyio
import pytest

from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, Leftover, VaultCause
from tests.fakes.leases import READ, Mint, fault
from tests.waiting import until

RUN = Holder("run-1", "call-1")


async def test_tokens_in_use_are_renewed_and_idle_ones_are_ended() -> None:
    """A run that goes on keeps its token; one that stopped calling loses it long before the token's end."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            for _ in range(5):
                mint.clock.advance(READ.longest_s / 10)
                await leases._tokens.look()
            assert mint.journal.steps.count("vault.renew_token") >= 4
            assert len(mint.vault.tokens) == 1
        await leases._tokens.look()
        assert len(mint.vault.tokens) == 1
        mint.clock.advance(mint.vault.period_s)
        await leases._tokens.look()
        assert mint.vault.tokens == {}
        assert mint.lines.lines[-1][:2] == ("closed", "idle")


async def test_a_token_near_its_end_is_replaced() -> None:
    """Its renewal gives less than a period: calls in progress keep it, the next one gets another."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.vault.left_s = 3
            mint.clock.advance(mint.vault.period_s / 2)
            await leases._tokens.look()
            async with leases.login("erp-read", RUN, 10):
                assert len(mint.vault.tokens) == 2
        await until(lambda: len(mint.vault.tokens) == 1)


async def test_a_token_that_has_ended_is_replaced() -> None:
    """The gateway could not renew it in time: the call gets another one, once; a refusal that stays is one."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            pass
        mint.vault.tokens.clear()
        async with leases.login("erp-read", RUN, 10):
            assert len(mint.vault.logins) == 1
        mint.journal.fail("vault.mint", fault(VaultCause.DENIED))
        with pytest.raises(Unavailable):
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        assert mint.journal.steps.count("vault.mint") == 5


async def test_a_vault_that_is_down_at_renewal_is_asked_again() -> None:
    """The token stays until it ends by itself."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.journal.fail("vault.renew_token", fault(VaultCause.UNREACHABLE))
            mint.clock.advance(mint.vault.period_s / 2)
            await leases._tokens.look()
            mint.journal.fail("vault.renew_token", fault(VaultCause.NO_ROLE))
            await leases._tokens.look()
            del mint.journal.traps["vault.renew_token"]
        await until(lambda: mint.vault.tokens == {})


async def test_what_an_earlier_process_left_is_ended_at_the_start() -> None:
    """As soon as the vault can be asked; until then readiness says so, and the log once it is done."""
    mint = Mint()
    mint.lines.left = [
        Leftover("run-0", "mark-a", "accessor-old", "erp-read"),
        Leftover(None, "mark-b", None, "erp-write"),
    ]
    mint.vault.tokens["accessor-old"] = "erp-read"
    mint.journal.fail("vault.revoke_token", fault(VaultCause.SEALED))
    async with mint.leases() as leases:
        await until(lambda: "vault.revoke_token" in mint.journal.steps)
        with pytest.raises(Unavailable) as caught:
            await leases.ping("erp-read")
        assert caught.value.cause_code == VaultCause.LEFTOVERS
        del mint.journal.traps["vault.revoke_token"]
        await until(lambda: mint.lines.words() == ["swept", "swept"])
        await leases.ping("erp-read")
    assert mint.vault.tokens == {}


async def test_stopping_while_the_vault_is_away_leaves_it_to_the_next_start() -> None:
    """The gateway stops in time; the journal keeps what is open."""
    mint = Mint()
    with anyio.fail_after(5):
        async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
            for step in ("vault.revoke_login", "vault.revoke_later", "vault.revoke_token"):
                mint.journal.fail(step, fault(VaultCause.UNREACHABLE))
    assert mint.lines.words() == ["opened", "leased", "pending"]


async def test_stopping_ends_what_waited_with_its_token() -> None:
    """A login that could not be ended alone is ended with its token, and the journal says so."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        mint.journal.fail("vault.revoke_login", fault(VaultCause.SLOW))
        mint.journal.fail("vault.revoke_later", fault(VaultCause.SLOW))
    assert mint.lines.words()[-2:] in (["closed", "revoked"], ["revoked", "closed"])
    assert mint.vault.logins == {}


@pytest.mark.parametrize("step", ["vault.renew_token", "vault.revoke_token"])
async def test_the_rounds_go_on_whatever_one_of_them_meets(step: str) -> None:
    """A bug in one round must not keep tokens from being renewed or ended in the next."""
    mint = Mint()
    mint.vault.period_s = mint.vault.left_s = 1
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.journal.fail(step, RuntimeError("a bug"))
            mint.clock.advance(0.5)
            if step == "vault.renew_token":
                await until(lambda: mint.journal.steps.count(step) >= 2)
        mint.clock.advance(5)
        if step == "vault.revoke_token":
            await until(lambda: mint.journal.steps.count(step) >= 2)
        mint.journal.traps.clear()
        await until(lambda: mint.vault.tokens == {})
    assert mint.vault.logins == {}
