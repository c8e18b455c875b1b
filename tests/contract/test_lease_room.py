"""No more secrets at a time than can be kept out of outputs: said before anything is minted, and not too early."""

import anyio
import pytest

from gateway.core.fleeting import MAX_LIVE
from gateway.core.leasing import Holder, VaultCause, VaultFault
from tests.fakes.leases import Mint
from tests.waiting import until

RUN = Holder("run-1", "call-1")


async def test_at_the_bound_of_known_values_nothing_is_minted_for_a_call() -> None:
    """More secrets in use than the redactor may hold: refused rather than used unredacted; then there is room again."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        values = [f"filler-{number:012}" for number in range(MAX_LIVE - 2)]
        for value in values:
            mint.known.lend(value)
        del mint.journal.steps[:]
        for name in ("erp-read", "erp-write"):
            with pytest.raises(VaultFault) as caught:
                async with leases.login(name, RUN, 10):
                    raise AssertionError("the call was carried out")
            assert (caught.value.cause_code, caught.value.fix) == (VaultCause.BUSY, "wait until calls have ended")
        assert mint.journal.steps == []
        mint.known.retire(values[0])
        async with leases.login("erp-read", RUN, 10):
            pass


@pytest.mark.parametrize(("step", "cause"), [("vault.open_token", "the token"), ("vault.minted", "the login")])
async def test_a_bound_reached_while_it_is_minted_is_no_fault_of_its_own(step: str, cause: str) -> None:
    """Other secrets took the last places meanwhile: busy, not a wrong password policy; what was made is ended."""
    mint = Mint()

    def fill() -> None:
        for number in range(mint.known.room):
            mint.known.lend(f"{cause}-{number:012}")

    async with mint.leases() as leases:
        for number in range(MAX_LIVE - 2):
            mint.known.lend(f"filler-{number:012}")
        mint.journal.traps[step] = fill
        with pytest.raises(VaultFault) as caught:
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        assert caught.value.cause_code == VaultCause.BUSY
        assert mint.vault.logins == {}
        assert mint.journal.steps.count(step) == 1
    assert mint.vault.tokens == {}


async def test_as_many_are_minted_at_a_time_as_there_is_room_for() -> None:
    """Of ten calls at once with room for four, four are carried out and for the others nothing is minted."""
    mint, done = Mint(), list[str]()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            pass
        for number in range(mint.known.room - 4):
            mint.known.lend(f"filler-{number:012}")
        del mint.journal.steps[:]
        leave = anyio.Event()

        async def call() -> None:
            try:
                async with leases.login("erp-read", RUN, 10):
                    done.append("carried out")
                    await leave.wait()
            except VaultFault as fault:
                done.append(str(fault.cause_code))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)
            await until(lambda: len(done) == 10)
            leave.set()
    assert sorted(done) == ["carried out"] * 4 + ["vault_busy"] * 6
    assert mint.journal.steps.count("vault.mint") == 4
