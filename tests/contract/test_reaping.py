"""What a cut-off minting left is dropped at once: real OpenBao and PostgreSQL, whose commits are held up."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest
from asyncpg import Connection, InsufficientPrivilegeError, RaiseError, connect

from deploy.servers import warden
from deploy.servers.erp import READ as ROLE
from deploy.servers.erp import TEMPLATES, Erp, erp
from deploy.servers.erp import WRITE as OTHER
from deploy.servers.postgres import DATABASE, commits_held
from deploy.servers.vault_setup import Keeper, databases
from deploy.servers.warden import Warden
from gateway.adapters.vault import VaultClient
from gateway.core.leasing import MintingToken, VaultCause, VaultFault, reaping
from tests.contract.test_lost_logins import ask, made
from tests.contract.test_vault import client
from tests.fakes.leases import READ
from tests.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "credentials.md"
_WARDEN = "the-wardens-own-secret"
_HELD = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Servers of their own: nothing ends by its age here, and commits are held up."""
    with erp(60, warden.requests(_WARDEN)) as both:
        yield both


@pytest.fixture
def name() -> str:
    """Of a token: none comes twice."""
    return token_hex(10)


async def reaped(vault: VaultClient, token: MintingToken) -> None:
    """As the gateway does it: the token ends first."""
    await vault.revoke_token(token.accessor)
    again = await vault.open_token(READ, token.name)
    try:
        await vault.reap(READ, again)
    finally:
        await vault.revoke_token(again.accessor)


@pytest.mark.requirement("CRED-2")
async def test_what_a_minting_that_was_broken_off_left_is_dropped_at_once(servers: Erp, name: str) -> None:
    """The connection closes while the database commits; the vault has no lease of the role, and yet it is gone."""
    seen = Warden(servers.openbao, _WARDEN)
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        with commits_held(servers.postgres):
            asking = ask(servers, token.secret)
            await until(lambda: servers.postgres.run(_HELD)[0][0][0] == 1)
            asking.close()  # as where a gateway is killed
            await until(lambda: len(servers.minted()) == 1)
        (lost,) = servers.minted()
        assert lost.startswith(f"v-{name}-erp-read-")
        assert seen.leases(ROLE) == []
        await reaped(vault, token)
        assert servers.minted() == []
    await until(lambda: seen.leases(ROLE, OTHER, reaping(ROLE)) == [])


@pytest.mark.requirement("CRED-2")
async def test_nothing_is_reaped_before_a_minting_is_over(servers: Erp, name: str) -> None:
    """While its commit is on its way nothing is reaped, at the vault or in the database; afterwards nothing is left."""
    async with client(servers) as vault, client(servers) as other:
        token = await vault.open_token(READ, name)
        with commits_held(servers.postgres):
            asking = ask(servers, token.secret)
            await until(lambda: servers.postgres.run(_HELD)[0][0][0] == 1)
            assert servers.minted() == []  # nobody can see it yet
            with pytest.raises(VaultFault):  # this vault mints one after the other, others may not
                await reaped(other, token)
            with pytest.raises(RaiseError, match="goes on"):
                servers.postgres.run("BEGIN", *statements(reaping(ROLE), f"v-{name}-erp-read-reap-x"))
            asking.close()
            await until(lambda: len(servers.minted()) == 1)
        await reaped(vault, token)
        assert servers.minted() == []


@pytest.mark.requirement("CRED-2")
async def test_a_minting_that_comes_after_the_reaping_makes_nobody(servers: Erp, name: str) -> None:
    """The fence: however late a request of the token begins in the database, it is refused there."""
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        await reaped(vault, token)
    with pytest.raises(RaiseError, match="has ended"):
        servers.postgres.run("BEGIN", *statements(ROLE, f"v-{name}-erp-read-late")[:2])
    servers.postgres.run("BEGIN", *statements(ROLE, f"v-{token_hex(10)}-erp-read-other")[:2], "ROLLBACK")


def statements(role: str, user: str) -> list[str]:
    """What the vault asks of the database by this role; a minting begins with two that are its fence."""
    keeper = Keeper("ostiary_keeper", "x", "x", "x")
    (found,) = [one for one in databases(TEMPLATES, keeper) if one.path == f"database/roles/{role}"]
    return [line.replace("{{name}}", user) for line in found.data["creation_statements"]]


@pytest.mark.requirement("CRED-2")
async def test_what_others_made_is_not_touched(servers: Erp, name: str) -> None:
    """Roles of another token, of another template, without the mark, or named nearly so; what it owned is kept."""
    mark = "minted by ostiary for erp-read"
    future = "2999-01-01"
    own, rest = (
        f"v-{name}-mine",
        {
            f"v-{token_hex(10)}-another-token": mark,
            f"v-{name}-another-template": "minted by ostiary for erp-write",
            f"v-{name}-unmarked": None,
            f"v-{name}x-longer-name": mark,
        },
    )
    others = [one for user, said in rest.items() for one in made(user, future, said)]
    servers.postgres.run(
        "SET ROLE ostiary_keeper",
        *made(own, future, mark),
        *others,
        "RESET ROLE",
        "CREATE TABLE what_it_owned (id int)",
        f'ALTER TABLE what_it_owned OWNER TO "{own}"',
    )
    async with client(servers) as vault:
        await reaped(vault, await vault.open_token(READ, name))
    assert set(servers.minted()) == set(rest)
    (reads,) = servers.postgres.run("SELECT has_schema_privilege('erp_reader', 'ostiary_keeper', 'usage')")
    assert reads == [(False,)]  # which tokens have ended is nobody else's to say
    owner = servers.postgres.run("SELECT tableowner FROM pg_tables WHERE tablename = 'what_it_owned'")[0][0][0]
    assert owner == "ostiary_keeper"
    servers.postgres.run(*(f'DROP ROLE "{user}"' for user in rest))


async def test_a_login_in_use_and_its_lease_end_whoever_is_first(servers: Erp, name: str) -> None:
    """The vault's own revocation and the reaping meet at the same roles: all of them go, and no lease stays."""
    seen = Warden(servers.openbao, _WARDEN)
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        for _ in range(4):
            await vault.mint(READ, token)
        assert len(servers.minted()) == 4
        await until_reaped(vault, token)
        assert servers.minted() == []
        await until(lambda: seen.leases(ROLE, reaping(ROLE)) == [])


async def until_reaped(vault: VaultClient, token: MintingToken) -> None:
    """As the gateway does it: again, until it succeeds."""
    while True:
        with suppress(VaultFault):
            await reaped(vault, token)
            return


async def test_a_token_that_has_no_name_is_not_reaped(servers: Erp) -> None:
    """Where the connection names no users by their tokens nothing is dropped, and it is said."""
    async with client(servers) as vault:
        token = await vault.open_token(READ)
        minted = await vault.mint(READ, token)
        again = await vault.open_token(READ)
        with pytest.raises(VaultFault) as failed:
            await vault.reap(READ, again)
        assert failed.value.cause_code == VaultCause.FAILED
        assert servers.minted() == [minted.login.user]
        for one in (token, again):
            await vault.revoke_token(one.accessor)
    await until(lambda: servers.minted() == [])


async def test_a_vault_that_was_not_set_up_for_it_says_what_is_missing(servers: Erp, name: str) -> None:
    """Not the role, or not the line of the policy."""
    async with client(servers) as vault:
        odd = replace(READ, role="erp-none", name="erp-read")
        token = await vault.open_token(odd, name)
        with pytest.raises(VaultFault) as denied:
            await vault.reap(odd, token)
        assert denied.value.cause_code == VaultCause.DENIED
        assert 'path "database/creds/erp-none-reap" { capabilities = ["read"] }' in denied.value.fix
        await vault.revoke_token(token.accessor)


@pytest.mark.requirement("CRED-2")
async def test_no_session_keeps_its_own_user_from_being_ended(servers: Erp, name: str) -> None:
    """Whatever advisory locks it takes: its login ends, and with it the locks, and then it can be reaped."""
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        minted = await vault.mint(READ, token)
        user = minted.login.user
        holder = await connect(
            host=str(servers.postgres.folder), user=user, password=minted.login.password, database=DATABASE, ssl=False
        )
        for key in (f"v-{name}", user):
            await holder.fetch("SELECT pg_advisory_lock(7809638, hashtext($1))", key)
        await vault.revoke_login(minted.lease_id, wait=True)
        assert servers.minted() == []
        await until(holder.is_closed)
        await reaped(vault, token)


@contextmanager
def locks_kept(servers: Erp) -> Iterator[None]:
    """Advisory locks of two keys are the keeper's, as ``docs/credentials.md`` has it."""
    (statement,) = [block for block in PAGE.read_text("utf-8").split("```") if "advisory_(xact_)?lock" in block]
    statement = statement.removeprefix("sql")
    servers.postgres.run(statement)
    try:
        yield
    finally:
        servers.postgres.run(statement.replace("REVOKE", "GRANT").replace("FROM PUBLIC", "TO PUBLIC"))


_LOCKING = """SELECT proname FROM pg_proc WHERE proname ~ '^pg_.*advisory.*lock' AND pronargs = 2
    AND proname !~ 'unlock' ORDER BY 1"""


@pytest.mark.requirement("CRED-2")
async def test_no_session_holds_up_another_token_where_the_locks_are_the_keepers(servers: Erp, name: str) -> None:
    """A minted user takes none of them, by no function; locks of one key it may take, and minting and reaping go on."""
    asked = (f"v-{token_hex(10)}", f"v-{name}")
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        minted = await vault.mint(READ, token)
        login = {"user": minted.login.user, "password": minted.login.password, "database": DATABASE}
        holder = await connect(host=str(servers.postgres.folder), ssl=False, **login)
        with locks_kept(servers):
            functions = [str(found) for (found,) in servers.postgres.run(_LOCKING)[0]]
            assert len(functions) == 8
            for function in functions:
                with pytest.raises(InsufficientPrivilegeError):
                    await holder.fetch(f"SELECT {function}(7809638, hashtext($1))", asked[0])
            await holder.fetch("SELECT pg_advisory_lock(1)")
            other = await vault.open_token(READ, asked[0].removeprefix("v-"))
            for lost in (await vault.mint(READ, other), await vault.mint(READ, other)):
                assert lost.login.user in servers.minted()
            await until_reaped(vault, other)
            assert servers.minted() == [minted.login.user]
            await vault.revoke_login(minted.lease_id, wait=True)
            await until(holder.is_closed)
            await reaped(vault, token)


@pytest.mark.requirement("CRED-2")
async def test_no_open_transaction_keeps_its_own_user_from_being_ended(servers: Erp, name: str) -> None:
    """Anybody may change their own password, and the row of their role is locked until they commit."""
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        minted = await vault.mint(READ, token)
        holder = await connect(
            host=str(servers.postgres.folder),
            user=minted.login.user,
            password=minted.login.password,
            database=DATABASE,
            ssl=False,
        )
        await holder.execute("SET idle_session_timeout = 0; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'")
        await vault.revoke_login(minted.lease_id, wait=True)
        assert servers.minted() == []
        await until(holder.is_closed)
        await reaped(vault, token)


@pytest.mark.requirement("CRED-2")
async def test_a_session_that_came_in_while_its_user_was_dropped_is_ended(servers: Erp, name: str) -> None:
    """PostgreSQL lets it go on: it ends with the next minting, and with the next ending."""
    async with client(servers) as vault:
        token = await vault.open_token(READ, name)
        late = await without_user(servers)
        minted = await vault.mint(READ, token)
        await until(late.is_closed)
        late = await without_user(servers)
        await vault.revoke_login(minted.lease_id, wait=True)
        await until(late.is_closed)
        await vault.revoke_token(token.accessor)


async def without_user(servers: Erp) -> Connection:
    """A session whose user is no more."""
    servers.postgres.run("CREATE ROLE late LOGIN PASSWORD 'late'")
    host = str(servers.postgres.folder)
    found: Connection = await connect(host=host, user="late", password="late", database=DATABASE, ssl=False)
    servers.postgres.run("DROP ROLE late")
    assert await found.fetchval("SELECT 1") == 1
    return found
