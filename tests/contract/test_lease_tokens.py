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


async def test_a_token_that_may_have_ended_is_not_used_again() -> None:
    """Not renewed for most of its period, as when the machine slept: another one is made before anything is minted."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            pass
        mint.clock.advance(mint.vault.period_s * 0.9)
        async with leases.login("erp-read", RUN, 10):
            assert mint.journal.steps.count("vault.open_token") == 2
            assert list(mint.vault.tokens) == [mint.lines.lines[-2][2]]
        assert mint.journal.steps.count("vault.mint") == 2


async def test_no_token_is_used_for_longer_than_a_quarter_of_an_hour() -> None:
    """However well it is renewed: its longest life, which nobody here knows, must not end in the middle of a call."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        for seconds in range(10, 900, 10):
            mint.clock.advance(10)
            await leases._tokens.look()
            if seconds % 100 == 0:
                async with leases.login("erp-read", RUN, 10):
                    pass
        assert mint.journal.steps.count("vault.open_token") == 1
        mint.clock.advance(10)
        await leases._tokens.look()
        async with leases.login("erp-read", RUN, 10):
            assert mint.journal.steps.count("vault.open_token") == 2


async def test_a_token_is_renewed_once_in_a_third_of_its_period() -> None:
    """Not in each round: the vault is asked no more than it must be."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        for _ in range(30):
            mint.clock.advance(1)
            await leases._tokens.look()
        assert mint.journal.steps.count("vault.renew_token") == 3


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
        Leftover(None, "mark-b", "accessor-gone", "erp-write"),
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
    assert mint.lines.since_us == mint.clock.now_us() - 24 * 3600 * 1_000_000  # no token lives longer
    assert mint.vault.tokens == {}


async def test_a_leftover_that_cannot_be_ended_keeps_no_other_alive() -> None:
    """The others are ended and journalled as such; readiness goes on to say that something is left."""
    mint = Mint()
    mint.lines.left = [Leftover("run-0", f"mark-{name}", name, "erp-read") for name in ("a", "b", "c")]
    mint.vault.tokens = dict.fromkeys(("a", "b", "c"), "erp-read")
    mint.vault.stuck = {"a"}
    async with mint.leases() as leases:
        await until(lambda: list(mint.vault.tokens) == ["a"])
        await until(lambda: [line[2] for line in mint.lines.lines] == ["mark-b", "mark-c"])
        with pytest.raises(Unavailable):
            await leases.ping("erp-read")
        mint.vault.stuck.clear()
        await until(lambda: mint.lines.left == [])
        await leases.ping("erp-read")


async def test_a_leftover_nobody_can_read_is_never_said_to_have_ended(caplog: pytest.LogCaptureFixture) -> None:
    """The vault was not asked, so the signed log does not say that it answered; the operator is told, and can go on."""
    mint = Mint()
    mint.lines.left = [Leftover(None, "mark-a", None, "erp-read"), Leftover(None, "mark-b", "old", "erp-read")]
    async with mint.leases() as leases:
        await until(lambda: mint.lines.words() == ["swept"])
        await leases.ping("erp-read")
    assert [leftover.mark for leftover in mint.lines.left] == ["mark-a"]
    assert "the log cannot tell 1 minting tokens any more" in caplog.text


@pytest.mark.parametrize("step", ["journal.leftovers", "vault.revoke_token"])
@pytest.mark.parametrize("trouble", [fault(VaultCause.FAILED), RuntimeError("a bug")])
async def test_the_sweep_is_tried_again_whatever_it_met(step: str, trouble: Exception) -> None:
    """A bug must not leave the gateway unready, and what was minted alive, until somebody restarts it."""
    mint = Mint()
    mint.lines.left = [Leftover("run-0", "mark-a", "accessor-old", "erp-read")]
    mint.vault.tokens["accessor-old"] = "erp-read"
    mint.journal.fail(step, trouble)
    async with mint.leases() as leases:
        await until(lambda: mint.journal.steps.count(step) >= 2)
        mint.journal.traps.clear()
        await until(lambda: mint.vault.tokens == {})
        await leases.ping("erp-read")


async def test_a_login_that_cannot_be_ended_keeps_no_other_alive() -> None:
    """While a call keeps their token: the others are ended and said to be."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        mint.journal.fail("vault.revoke_login", fault(VaultCause.FAILED))
        ids = list[str]()
        for _ in range(3):
            async with leases.login("erp-read", RUN, 10):
                ids.append(list(mint.vault.logins)[-1])
                mint.vault.stuck.add(ids[0])
        await until(lambda: mint.lines.words().count("revoked") == 2)
        assert ids[0] in mint.vault.logins
        assert not {ids[1], ids[2]} & mint.vault.logins.keys()
        del mint.journal.traps["vault.revoke_login"]


async def test_stopping_notes_each_login_that_went_with_its_token() -> None:
    """One that stays, or that the vault does not answer for, keeps the others from no record."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.revoke_login", fault(VaultCause.FAILED))
        mint.journal.fail("vault.revoke_later", fault(VaultCause.FAILED))
        async with leases.login("erp-read", RUN, 10):
            mint.vault.stuck.add(next(iter(mint.vault.tokens)))
        async with leases.login("erp-write", RUN, 10):
            pass
        assert mint.lines.words().count("pending") == 2
    assert mint.lines.words().count("revoked") == 1
    assert len(mint.vault.logins) == 1


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
