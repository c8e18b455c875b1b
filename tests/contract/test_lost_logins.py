"""Logins that a vault makes and nobody hears of: real OpenBao and PostgreSQL, whose commits are held up."""

import socket
from collections.abc import Iterator

import pytest

from deploy.servers import warden
from deploy.servers.erp import READ as ROLE
from deploy.servers.erp import Erp, erp
from deploy.servers.postgres import commits_held
from deploy.servers.warden import Warden
from tests.contract.test_vault import client
from tests.fakes.leases import READ
from tests.waiting import until

_WARDEN = "the-wardens-own-secret"
_HELD = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Servers of their own: nothing ends by its age here, and commits are held up."""
    with erp(60, warden.requests(_WARDEN)) as both:
        yield both


@pytest.mark.requirement("CRED-2")
async def test_what_a_minting_that_was_broken_off_leaves_is_dropped_by_a_later_one(servers: Erp) -> None:
    """The connection closes while the database commits: the vault has no lease of the role, and no token ends it.

    Nobody has its password. Once it has ended, the next minting of that template drops it.
    """
    seen = Warden(servers.openbao, _WARDEN)
    async with client(servers) as vault:
        token = await vault.open_token(READ)
        with commits_held(servers.postgres):
            asking = ask(servers, token.secret)
            await until(lambda: servers.postgres.run(_HELD)[0][0][0] == 1)
            asking.close()  # as where a gateway is killed
            await until(lambda: len(servers.minted()) == 1)
        (lost,) = servers.minted()
        assert seen.leases(ROLE) == []
        await vault.revoke_token(token.accessor)
        assert servers.minted() == [lost]
        token = await vault.open_token(READ)
        await vault.mint(READ, token)
        assert lost in servers.minted()  # it could be one that is just being handed out
        servers.postgres.run(f"ALTER ROLE \"{lost}\" VALID UNTIL '2026-01-01'")
        await vault.mint(READ, token)
        assert lost not in servers.minted()
        await vault.revoke_token(token.accessor)
        await until(lambda: servers.minted() == [])


def ask(servers: Erp, token: str) -> socket.socket:
    """A connection by which a login was asked for; nothing was read of the answer."""
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(str(servers.openbao.socket))
    head = f"GET /v1/database/creds/{ROLE} HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: {token}"
    asking.sendall(f"{head}\r\nX-Vault-Request: true\r\n\r\n".encode())
    return asking


def made(name: str, until_when: str, comment: str | None) -> list[str]:
    """Statements that make a role as a minting does."""
    found = [
        f"CREATE ROLE \"{name}\" LOGIN IN ROLE erp_reader VALID UNTIL '{until_when}'",
        f'GRANT "{name}" TO ostiary_keeper',
    ]
    return found if comment is None else [*found, f"COMMENT ON ROLE \"{name}\" IS '{comment}'"]


@pytest.mark.requirement("CRED-2")
async def test_the_next_minting_drops_what_ended_long_ago_and_nothing_else(servers: Erp) -> None:
    """A role of this template, of which the vault has no lease; not one of others, of another template, or that lasts.

    Nor does one that cannot be dropped keep a login from being minted.
    """
    mark, past = "minted by ostiary for erp-read", "2026-01-01"
    servers.postgres.run(
        "SET ROLE ostiary_keeper",
        *made("v-lost", past, mark),
        *made("v-lasting", "2999-01-01", mark),
        *made("v-endless", "infinity", mark),
        *made("v-unmarked", past, None),
        *made("v-of-writers", past, "minted by ostiary for erp-write"),
        "RESET ROLE",
        *made("v-mighty", past, mark),
        'ALTER ROLE "v-mighty" SUPERUSER',
        "CREATE TABLE its_own (id int)",
        'ALTER TABLE its_own OWNER TO "v-lost"',
    )
    async with client(servers) as vault:
        token = await vault.open_token(READ)
        minted = await vault.mint(READ, token)
        left = set(servers.minted())
        assert "v-lost" not in left
        assert left == {"v-lasting", "v-endless", "v-unmarked", "v-of-writers", "v-mighty", minted.login.user}
        owner = servers.postgres.run("SELECT tableowner FROM pg_tables WHERE tablename = 'its_own'")[0][0][0]
        assert owner == "ostiary_keeper"
        await vault.revoke_token(token.accessor)
    await until(lambda: minted.login.user not in servers.minted())


async def test_a_login_whose_role_is_gone_ends_all_the_same(servers: Erp) -> None:
    """What was dropped beside the vault keeps no lease."""
    async with client(servers) as vault:
        token = await vault.open_token(READ)
        minted = await vault.mint(READ, token)
        servers.postgres.run(f'DROP ROLE "{minted.login.user}"')
        await vault.revoke_login(minted.lease_id, wait=True)
        assert not await vault.login_exists(minted.lease_id)
        await vault.revoke_token(token.accessor)
