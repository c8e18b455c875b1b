"""Logins minted for one call each: the order of steps, and every way a call or the vault can go wrong in between."""

import asyncio
from contextlib import suppress
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gateway.adapters.credentials import CredentialBroker, Leases, StaticCredentials
from gateway.core.call import Intent, Resolved
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, VaultCause
from tests.evidence import make_call, make_caller, make_intent, make_permit, make_tool
from tests.fakes.leases import Mint, fault
from tests.waiting import until

RUN = Holder("run-1", "call-1")
OTHER_RUN = Holder("run-2", "call-2")


def intent(credential: str | None) -> Intent:
    """The intent of a tool that names ``credential``."""
    tool = make_tool(credential=credential)
    return make_intent(make_permit(Resolved(make_caller(make_call(tool.fqn)), tool, None)))


@pytest.mark.requirement("CRED-1")
async def test_a_login_lives_as_long_as_its_call() -> None:
    """Token, journal, minting, journal, call, end, journal: in this order; the run keeps its token."""
    mint = Mint()
    async with mint.leases() as leases:
        await until(lambda: "journal.leftovers" in mint.journal.steps)
        del mint.journal.steps[:]
        async with leases.login("erp-read", RUN, 10) as first:
            mint.journal.note("call")
            assert (len(mint.vault.logins), mint.meter.live) == (1, 1)
        assert (mint.vault.logins, mint.meter.live) == ({}, 0)
        async with leases.login("erp-read", RUN, 10) as second:
            assert second.user != first.user
    assert mint.journal.steps[:8] == [
        "vault.open_token",
        "journal.opened",
        "vault.mint",
        "vault.minted",
        "journal.leased",
        "call",
        "vault.revoke_login",
        "vault.login_exists",
    ]
    assert mint.lines.words() == ["opened", "leased", "revoked", "leased", "revoked", "closed"]
    assert mint.vault.tokens == {}


@pytest.mark.requirement("CRED-3")
async def test_the_password_is_known_before_anybody_has_it() -> None:
    """The redactor knows password and token during the call and after it."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10) as login:
            assert mint.knows(login.password)
            assert login.password not in repr(login)
            assert mint.knows("s.token-secret-1")
        assert mint.knows(login.password)


async def test_runs_and_templates_have_tokens_of_their_own() -> None:
    """Nothing minted for one run hangs off another's token."""
    mint = Mint()
    async with mint.leases() as leases:
        for name, holder in (("erp-read", RUN), ("erp-write", RUN), ("erp-read", OTHER_RUN), ("erp-read", RUN)):
            async with leases.login(name, holder, 10):
                pass
        assert sorted(mint.vault.tokens.values()) == ["erp-read", "erp-read", "erp-write"]


async def test_calls_at_the_same_time_share_a_token_and_nothing_else() -> None:
    """Twenty at a time: one token, twenty logins, all gone."""
    mint, users = Mint(), set[str]()
    async with mint.leases() as leases:

        async def call() -> None:
            async with leases.login("erp-read", RUN, 10) as login:
                users.add(login.user)
                await checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(call)
        assert len(users) == 20
        assert (len(mint.vault.tokens), mint.vault.logins) == (1, {})


@pytest.mark.parametrize("step", ["vault.open_token", "journal.opened", "vault.mint", "vault.minted"])
@pytest.mark.parametrize("native", [False, True])
async def test_a_caller_who_leaves_while_it_is_minted_leaves_nothing(step: str, native: bool) -> None:
    """Whether a scope or the task is cancelled, the minting goes on to its end and what it made is ended."""
    mint = Mint()
    async with mint.leases() as leases:

        async def call() -> None:
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")

        async def leave_by_scope() -> None:
            with anyio.CancelScope() as scope:
                mint.journal.traps[step] = scope.cancel
                await call()

        if native:
            task = asyncio.create_task(call())
            mint.journal.traps[step] = partial(_cancel, task)
            with suppress(asyncio.CancelledError):
                await task
        else:
            await leave_by_scope()
        await until(lambda: "revoked" in mint.lines.words())
        assert mint.vault.logins == {}
    assert mint.vault.tokens == {}


@pytest.mark.parametrize("native", [False, True])
async def test_a_caller_who_leaves_during_the_call_leaves_nothing(native: bool) -> None:
    """The login is ended though the one who waits for it is gone."""
    mint, inside = Mint(), anyio.Event()
    async with mint.leases() as leases:

        async def call() -> None:
            async with leases.login("erp-read", RUN, 10):
                inside.set()
                await anyio.sleep_forever()

        if native:
            task = asyncio.create_task(call())
            await inside.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await inside.wait()
                group.cancel_scope.cancel()
        await until(lambda: mint.vault.logins == {})
        assert mint.meter.live == 0


async def test_a_failing_call_keeps_its_own_error() -> None:
    """The end of the login does not hide how the call ended."""
    mint = Mint()
    async with mint.leases() as leases:
        with pytest.raises(ZeroDivisionError):
            async with leases.login("erp-read", RUN, 10):
                raise ZeroDivisionError
        assert mint.vault.logins == {}


@pytest.mark.parametrize("step", ["vault.open_token", "journal.opened", "vault.mint"])
async def test_what_cannot_be_minted_or_journalled_is_not_used(step: str) -> None:
    """A vault or a log that fails: 503 before anything is sent, nothing left, and the next call works."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail(step, fault(VaultCause.SEALED))
        with pytest.raises(Unavailable) as caught:
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        assert caught.value.cause_code == VaultCause.SEALED
        assert mint.vault.logins == {}
        del mint.journal.traps[step]
        async with leases.login("erp-read", RUN, 10):
            pass
    assert mint.vault.tokens == {}


@pytest.mark.parametrize(
    "trouble", [*(fault(cause) for cause in VaultCause if cause != VaultCause.DENIED), RuntimeError("a bug")]
)
async def test_a_login_nobody_heard_of_ends_with_its_token(trouble: Exception) -> None:
    """The vault may have minted, whatever the fault is called: the token is ended once no other call uses it."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.journal.fail("vault.minted", trouble)
            with pytest.raises(type(trouble)):
                async with leases.login("erp-read", RUN, 10):
                    raise AssertionError("the call was carried out")
            assert len(mint.vault.logins) == 2
        await until(lambda: mint.vault.logins == {})
        del mint.journal.traps["vault.minted"]
        async with leases.login("erp-read", RUN, 10):
            assert len(mint.vault.tokens) == 1


async def test_a_login_that_cannot_be_handed_to_the_log_is_ended() -> None:
    """Whatever the log met: the call is not carried out, the login is gone and its token is free for the next."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("journal.leased", RuntimeError("a bug"))
        with pytest.raises(RuntimeError):
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        assert (mint.vault.logins, mint.meter.live) == ({}, 0)
        del mint.journal.traps["journal.leased"]
        async with leases.login("erp-read", RUN, 10):
            assert mint.journal.steps.count("vault.open_token") == 1
    assert mint.vault.tokens == {}


async def test_a_vault_that_certainly_did_nothing_keeps_its_token() -> None:
    """A refusal of one minting is no reason to make another token for the next."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.mint", fault(VaultCause.NO_ROLE, undone=True))
        with pytest.raises(Unavailable):
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        del mint.journal.traps["vault.mint"]
        async with leases.login("erp-read", RUN, 10):
            assert mint.journal.steps.count("vault.open_token") == 1


@pytest.mark.parametrize("trouble", [fault(VaultCause.SLOW), RuntimeError("a bug")])
async def test_a_failing_revocation_never_loses_the_answer(trouble: Exception) -> None:
    """The call goes on; the journal says pending; the vault is asked again until the login is gone, then it says so."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10) as login:
            mint.journal.fail("vault.revoke_login", trouble)
            mint.journal.fail("vault.revoke_later", fault(VaultCause.UNREACHABLE))
            mint.journal.fail("vault.revoke_token", fault(VaultCause.UNREACHABLE))
        assert mint.lines.words() == ["opened", "leased", "pending"]
        assert (mint.meter.live, mint.meter.pending) == (0, 1)
        assert mint.knows(login.password)
        del mint.journal.traps["vault.revoke_later"]
        await until(lambda: "revoked" in mint.lines.words())
        assert (mint.vault.logins, mint.meter.pending) == ({}, 0)
        assert mint.journal.steps.count("vault.revoke_later") >= 2
        del mint.journal.traps["vault.revoke_token"]


async def test_a_login_is_ended_when_the_vault_says_so_and_not_before() -> None:
    """The database behind the vault is down: the revocation is accepted, the user is still there."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.vault.keeps = True
            mint.journal.fail("vault.revoke_token", fault(VaultCause.FAILED))
        await until(lambda: "vault.revoke_later" in mint.journal.steps)
        assert mint.lines.words()[-1] == "pending"
        mint.vault.keeps = False
        mint.vault.logins.clear()
        await until(lambda: mint.lines.words()[-1] == "revoked")
        del mint.journal.traps["vault.revoke_token"]


async def test_a_login_that_could_not_be_ended_takes_its_token_with_it() -> None:
    """No other login is minted by that token, so nothing keeps it, and the login with it, from being ended."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.journal.fail("vault.revoke_login", fault(VaultCause.SLOW))
            mint.journal.fail("vault.revoke_later", fault(VaultCause.SLOW))
        del mint.journal.traps["vault.revoke_login"]
        async with leases.login("erp-read", RUN, 10):
            assert mint.journal.steps.count("vault.open_token") == 2
            await until(lambda: len(mint.vault.tokens) == 1)
            assert len(mint.vault.logins) == 1
    assert mint.lines.words().count("revoked") == 2


async def test_the_vault_is_asked_once_and_then_looked_at() -> None:
    """It goes on by itself: each further request would start another attempt."""
    mint = Mint()
    async with mint.leases() as leases:
        async with leases.login("erp-read", RUN, 10):
            mint.vault.keeps = True
            mint.journal.fail("vault.revoke_token", fault(VaultCause.FAILED))
        await until(lambda: mint.journal.steps.count("vault.login_exists") >= 4)
        assert mint.journal.steps.count("vault.revoke_later") == 1
        mint.vault.logins.clear()
        mint.journal.traps.clear()


@pytest.mark.parametrize(("ttl_s", "lasting_s"), [(5, 10), (121, 10)])
async def test_a_login_that_does_not_fit_the_tool_is_not_used(ttl_s: int, lasting_s: int) -> None:
    """One that would end in the middle of the call, or outlive what the operator allows."""
    mint = Mint()
    mint.vault.ttl_s = ttl_s
    async with mint.leases() as leases:
        with pytest.raises(Unavailable) as caught:
            async with leases.login("erp-read", RUN, lasting_s):
                raise AssertionError("the call was carried out")
        assert caught.value.cause_code == VaultCause.UNFIT
        assert mint.vault.logins == {}
        assert mint.lines.words() == ["opened", "leased", "revoked"]


async def test_a_password_that_cannot_be_redacted_is_not_used() -> None:
    """Too short a password policy: refused, ended, and the operator is told."""
    mint = Mint()
    mint.vault.password = "short"
    async with mint.leases() as leases:
        with pytest.raises(Unavailable) as caught:
            async with leases.login("erp-read", RUN, 10):
                raise AssertionError("the call was carried out")
        assert "kept out of outputs" in caught.value.detail
        assert mint.vault.logins == {}


async def test_the_tool_decides_which_credential_it_gets() -> None:
    """A lease template gives a login, a static credential header fields, none nothing, an unknown name no call."""
    mint = Mint()
    async with mint.leases() as leases:
        broker = CredentialBroker(StaticCredentials({}, KnownValues()), leases)
        async with broker.lease(intent("erp-read")) as lease:
            assert lease.login is not None
            assert lease.login.password not in repr(lease)
        async with broker.lease(intent(None)) as lease:
            assert (lease.login, dict(lease.headers)) == (None, {})
        with pytest.raises(Unavailable):
            async with broker.lease(intent("nobody")):
                raise AssertionError("there is a lease")
        assert mint.lines.lines[1][:2] == ("leased", "erp-read")
        await broker.ping()


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()


def _is_leases(leases: Leases) -> bool:
    return "erp-read" in leases and "other" not in leases


async def test_templates_are_asked_for_by_name() -> None:
    """Only configured ones are there."""
    assert _is_leases(Mint().leases())
