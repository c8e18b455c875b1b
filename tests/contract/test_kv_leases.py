"""Values of kv, read for one call each: the order of steps, whose token it was, and what outlives the call."""

import asyncio
from contextlib import suppress

import anyio
import pytest

from gateway.adapters.credentials import CredentialBroker, StaticCredentials
from gateway.adapters.credentials.lending import Lending
from gateway.core.call import Intent, Resolved
from gateway.core.desk import Whose
from gateway.core.errors import Unavailable
from gateway.core.fleeting import MAX_LATE
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, VaultCause
from tests.evidence import make_call, make_caller, make_intent, make_permit, make_tool
from tests.fakes.leases import Mint, fault
from tests.waiting import until

RUN = Holder("run-1", "call-1")


def intent() -> Intent:
    """The intent of a tool that gets the value."""
    tool = make_tool(credential="api-key")
    return make_intent(make_permit(Resolved(make_caller(make_call(tool.fqn)), tool, None)))


async def test_a_value_is_read_for_its_call_and_its_token_ends_with_it() -> None:
    """Token, journal, reading, journal, call, end of the token: in this order, and anew for each call of a run."""
    mint = Mint()
    async with mint.leases() as leases:
        await until(lambda: "journal.leftovers" in mint.journal.steps)
        del mint.journal.steps[:]
        for number in (1, 2):
            async with leases.login("api-key", RUN, 10) as login:
                mint.journal.note("call")
                assert login.password == mint.vault.value
                assert len(mint.vault.tokens) == 1
            assert mint.vault.tokens == {}
            assert mint.journal.steps.count("vault.open_token") == number
        assert mint.meter.live == 0
    assert mint.journal.steps[:7] == [
        "vault.open_token",
        "journal.opened",
        "vault.mint",
        "vault.minted",
        "journal.leased",
        "call",
        "vault.revoke_token",
    ]
    assert sorted(mint.lines.words()) == ["closed"] * 2 + ["leased"] * 2 + ["opened"] * 2 + ["revoked"] * 2
    assert "vault.revoke_login" not in mint.journal.steps


async def test_the_call_gets_a_header_field_and_the_redactor_knows_first() -> None:
    """Prefix and value in the field the template names; no user; the value in no representation."""
    mint = Mint()
    async with mint.leases() as leases:
        broker = CredentialBroker(StaticCredentials({}, KnownValues()), leases)
        async with broker.lease(intent()) as lease:
            assert (dict(lease.headers), lease.login) == ({"Authorization": f"Bearer {mint.vault.value}"}, None)
            assert mint.knows(mint.vault.value)
            assert mint.vault.value not in repr(lease)
            assert mint.vault.value not in repr(leases.live())


async def test_calls_at_the_same_time_share_the_value_and_no_token() -> None:
    """Each ends its own; the value stays known to the redactor until the last has ended."""
    mint, inside, leave = Mint(), list[str](), anyio.Event()
    async with mint.leases() as leases:

        async def call() -> None:
            async with leases.login("api-key", RUN, 10) as login:
                inside.append(login.password)
                await leave.wait()

        room = mint.known.room
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
            await until(lambda: len(inside) == 5)
            assert len(mint.vault.tokens) == 5
            async with leases.login("api-key", RUN, 10):
                pass
            assert mint.known.room == room - 6  # one value and five tokens
            leave.set()
        await until(lambda: mint.known.room == room)
        assert mint.vault.tokens == {}


def test_a_value_in_use_is_never_forgotten() -> None:
    """Whoever else has given it back, or never got it, and however many secrets have come and gone since."""
    lending = Lending(KnownValues())
    value = "ak-0123456789abcdef"
    for user in ("a", "b"):
        lending.lend(value, user)
    for user in ("a", "a", "c"):
        lending.retire(value, user)
    for number in range(MAX_LATE + 10):
        lending.lend(f"filler-{number:012}", "d")
        lending.retire(f"filler-{number:012}", "d")
    assert any(part.spans(value.encode()) for part in lending.known.segments)
    room = lending.room
    lending.retire(value, "b")
    assert lending.room == room + 1
    assert value not in repr(lending)


@pytest.mark.parametrize("step", ["vault.open_token", "journal.opened", "vault.mint", "journal.leased"])
async def test_what_cannot_be_read_or_journalled_is_not_used(step: str) -> None:
    """No call, no token left, and the next one works."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail(step, fault(VaultCause.SEALED))
        with pytest.raises(Unavailable) as caught:
            async with leases.login("api-key", RUN, 10):
                raise AssertionError("the call was carried out")
        assert caught.value.cause_code == VaultCause.SEALED
        del mint.journal.traps[step]
        await until(lambda: mint.vault.tokens == {})
        async with leases.login("api-key", RUN, 10):
            pass
        assert mint.meter.live == 0


async def test_a_value_that_cannot_be_redacted_is_not_used() -> None:
    """Too short: refused before the call, and the operator is told what to put there."""
    mint = Mint()
    mint.vault.value = "short"
    async with mint.leases() as leases:
        with pytest.raises(Unavailable) as caught:
            async with leases.login("api-key", RUN, 10):
                raise AssertionError("the call was carried out")
        assert "kept out of outputs" in caught.value.detail
        assert "value of 8" in getattr(caught.value, "fix", "")
        assert mint.vault.tokens == {}


@pytest.mark.parametrize("step", ["vault.open_token", "journal.opened", "vault.mint", "vault.minted"])
async def test_a_caller_who_leaves_while_it_is_read_leaves_no_token(step: str) -> None:
    """The reading goes on to its end, and its token is ended."""
    mint = Mint()
    async with mint.leases() as leases:

        async def call() -> None:
            async with leases.login("api-key", RUN, 10):
                raise AssertionError("the call was carried out")

        task = asyncio.create_task(call())
        mint.journal.traps[step] = lambda: (task.cancel(), None)[1]
        with suppress(asyncio.CancelledError):
            await task
        await until(lambda: "revoked" in mint.lines.words() and mint.vault.tokens == {})
        assert mint.meter.live == 0


async def test_a_token_that_cannot_be_ended_never_costs_the_answer() -> None:
    """The journal says pending; the token is ended as soon as the vault lets us, and only then it says revoked."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("api-key", RUN, 10) as login:
            mint.journal.fail("vault.revoke_token", fault(VaultCause.SLOW))
        assert mint.lines.words() == ["opened", "leased", "pending"]
        assert (len(mint.vault.tokens), mint.meter.pending) == (1, 1)
        assert mint.knows(login.password)
        del mint.journal.traps["vault.revoke_token"]
        await until(lambda: "revoked" in mint.lines.words())
        assert (mint.vault.tokens, mint.meter.pending) == ({}, 0)
        assert "vault.login_exists" not in mint.journal.steps


async def test_a_vault_that_never_answers_again_leaves_nothing_said_to_be_revoked() -> None:
    """The gateway stops meanwhile: the token is left to its period and to the journal, which still has it open."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("api-key", RUN, 10):
        mint.journal.fail("vault.revoke_token", fault(VaultCause.UNREACHABLE))
    assert mint.lines.words() == ["opened", "leased", "pending"]
    assert len(mint.vault.tokens) == 1


async def test_a_value_cannot_be_taken_back_from_its_call() -> None:
    """Revoking ends the token at once, and does not claim that the value is gone before the call is."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("api-key", RUN, 10):
            (shown,) = leases.live()
            assert (shown.template, shown.run) == ("api-key", "run-1")
            assert await leases.revoke(Whose(run="run-1")) == (0, 1)
            assert mint.vault.tokens == {}
        assert leases.live() == ()
        assert mint.lines.words().count("revoked") == 1
