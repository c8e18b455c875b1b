"""The contract of a vault, on the fake and on a real OpenBao with a real PostgreSQL behind it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from deploy.servers.erp import Erp
from gateway.adapters.clock import SystemClock
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.core.known import KnownValues
from gateway.core.leasing import Vault, VaultCause, VaultFault
from tests.fakes.leases import READ, WRITE, FakeVault
from tests.servers import PERIOD_S
from tests.waiting import until_asked


@pytest.fixture(params=["fake", "openbao"])
async def vault(request: pytest.FixtureRequest) -> AsyncIterator[Vault]:
    """A vault that knows the two templates."""
    if request.param == "fake":
        yield FakeVault(period_s=PERIOD_S, left_s=PERIOD_S)
        return
    async with client(request.getfixturevalue("real_erp")) as real:
        yield real


def client(erp: Erp, known: KnownValues | None = None, **address: Any) -> VaultClient:
    """The real adapter, let in as the gateway is."""
    access = Access(lambda: erp.entry.secret_id, erp.entry.role_id)
    place = Address(**{"url": erp.openbao.address, **address})
    return VaultClient(place, access, known or KnownValues(), SystemClock())


async def test_a_login_is_minted_and_ended(vault: Vault) -> None:
    """It exists from the minting to the end, and has a name, a password and a limited life; ending it twice is fine."""
    token = await vault.open_token(READ)
    assert (token.period_s, bool(token.accessor), bool(token.request_id)) == (PERIOD_S, True, True)
    first, second = await vault.mint(READ, token), await vault.mint(READ, token)
    assert first.login.user != second.login.user
    assert first.login.password != second.login.password
    assert 0 < first.ttl_s <= 60
    assert await vault.login_exists(first.lease_id)
    await vault.revoke_login(first.lease_id, wait=True)
    assert not await vault.login_exists(first.lease_id)
    assert await vault.login_exists(second.lease_id)
    await vault.revoke_login(first.lease_id, wait=True)
    await vault.revoke_token(token.accessor)


async def test_a_login_can_be_ended_without_waiting(vault: Vault) -> None:
    """The vault goes on by itself, and says when it is done."""
    token = await vault.open_token(READ)
    minted = await vault.mint(READ, token)
    await vault.revoke_login(minted.lease_id, wait=False)
    await until_asked(lambda: _is_gone(vault, minted.lease_id))
    await vault.revoke_token(token.accessor)


async def _is_gone(vault: Vault, lease_id: str) -> bool:
    return not await vault.login_exists(lease_id)


async def test_secrets_are_not_shown(vault: Vault) -> None:
    """Neither the token nor the password stands in a representation."""
    token = await vault.open_token(READ)
    minted = await vault.mint(READ, token)
    assert token.secret not in repr(token)
    assert minted.login.password not in repr(minted)
    await vault.revoke_token(token.accessor)


async def test_logins_end_with_their_token(vault: Vault) -> None:
    """One accessor ends all; ending it twice is fine; then the token mints nothing and cannot be renewed."""
    token, other = await vault.open_token(READ), await vault.open_token(READ)
    mine, others = await vault.mint(READ, token), await vault.mint(READ, other)
    await vault.revoke_token(token.accessor)
    await vault.revoke_token(token.accessor)
    await until_asked(lambda: _is_gone(vault, mine.lease_id))
    assert await vault.login_exists(others.lease_id)
    with pytest.raises(VaultFault) as caught:
        await vault.mint(READ, token)
    assert caught.value.cause_code == VaultCause.DENIED
    with pytest.raises(VaultFault):
        await vault.renew_token(token.accessor)
    await vault.revoke_token(other.accessor)


async def test_a_token_mints_by_its_own_template_only(vault: Vault) -> None:
    """Who may read cannot make a user who may write."""
    token = await vault.open_token(READ)
    with pytest.raises(VaultFault) as caught:
        await vault.mint(WRITE, token)
    assert caught.value.cause_code == VaultCause.DENIED
    await vault.revoke_token(token.accessor)


async def test_a_renewed_token_has_its_whole_period_again(vault: Vault) -> None:
    """So it lives while its gateway does."""
    token = await vault.open_token(WRITE)
    assert await vault.renew_token(token.accessor) == PERIOD_S
    await vault.revoke_token(token.accessor)


async def test_a_template_nobody_allowed_opens_nothing(vault: Vault) -> None:
    """A token role that is not there, or not for the gateway."""
    with pytest.raises(VaultFault) as caught:
        await vault.open_token(replace(READ, name="other", token_role="other"))
    assert caught.value.cause_code == VaultCause.DENIED


async def test_a_vault_that_is_well_says_so(vault: Vault) -> None:
    """The readiness check returns, and what was never minted is not there."""
    await vault.ping()
    assert not await vault.login_exists("database/creds/erp-read/never")


@pytest.mark.requirement("CRED-1")
async def test_a_minted_user_can_do_what_its_group_can_and_is_dead_afterwards(real_erp: Erp) -> None:
    """It reads what readers may and nothing else, another password is refused, and once ended it cannot log in."""
    async with client(real_erp) as vault:
        token = await vault.open_token(READ)
        minted = await vault.mint(READ, token)
        place: dict[str, Any] = {"host": str(real_erp.postgres.folder), "database": "postgres", "ssl": False}
        session = await asyncpg.connect(user=minted.login.user, password=minted.login.password, **place)
        assert await session.fetchval("SELECT count(*) FROM orders") == 2
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute("DELETE FROM orders")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute("CREATE TABLE mine (a int)")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(user=minted.login.user, password="wrong" + minted.login.password, **place)
        assert minted.login.user in real_erp.minted()
        await vault.revoke_login(minted.lease_id, wait=True)
        assert minted.login.user not in real_erp.minted()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            await session.fetchval("SELECT 1")  # the session it had open is ended, too
        session.terminate()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(user=minted.login.user, password=minted.login.password, **place)
        await vault.revoke_token(token.accessor)


async def test_the_gateway_can_end_its_own_leases_only(real_erp: Erp) -> None:
    """Another lease of the same vault is out of its reach, and the operator is told the line that is missing."""
    async with client(real_erp) as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.revoke_login("pki/issue/somebody/else", wait=True)
    assert 'path "sys/leases/revoke" { capabilities = ["update"] }' in caught.value.fix


async def test_its_own_secrets_are_known_to_the_redactor(real_erp: Erp) -> None:
    """The secret id and the gateway's token."""
    known = KnownValues()
    async with client(real_erp, known) as vault:
        await vault.ping()
        token = vault._token
    assert token is not None
    for secret in (real_erp.entry.secret_id, token):
        assert any(part.spans(secret.encode()) for part in known.segments)


async def test_an_expired_login_is_renewed_once(real_erp: Erp) -> None:
    """A token the vault no longer takes looks like a refusal: the client logs in anew and goes on."""
    async with client(real_erp) as vault:
        await vault.ping()
        vault._token = "s.AAAAAAAAAAAAAAAAAAAAAAAA"
        token = await vault.open_token(READ)
        await vault.revoke_token(token.accessor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"longest_s": PERIOD_S - 1}, "period of at most"),
        ({"policy": "another"}, ""),
    ],
)
async def test_tokens_that_are_not_as_agreed_are_not_used(real_erp: Erp, change: dict[str, Any], words: str) -> None:
    """A longer period, another policy: ended at once, and said which rule of the token role is wrong."""
    async with client(real_erp) as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.open_token(replace(READ, **change))
    assert words in caught.value.fix


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("unix:///nowhere/bao.sock", VaultCause.UNREACHABLE),
        ("http://127.0.0.1:1", VaultCause.UNREACHABLE),
    ],
)
async def test_a_vault_that_is_not_there_did_nothing(real_erp: Erp, address: str, cause: VaultCause) -> None:
    """Nothing was sent, so nothing can have been minted; after some attempts it is left alone for a while."""
    async with client(real_erp, url=address) as vault:
        for words in ("cannot be reached", "cannot be reached", "cannot be reached", "a moment ago"):
            with pytest.raises(VaultFault, match=words) as caught:
                await vault.open_token(READ)
            assert caught.value.cause_code == cause
            assert caught.value.undone


async def test_a_wrong_secret_id_is_not_let_in(real_erp: Erp) -> None:
    """The operator is told which settings to look at."""
    place = Address(real_erp.openbao.address)
    access = Access(lambda: "not-the-secret-id-at-all", real_erp.entry.role_id)
    async with VaultClient(place, access, KnownValues(), SystemClock()) as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.ping()
    assert "secret_id" in caught.value.fix
    assert "not-the-secret" not in caught.value.detail + caught.value.fix
