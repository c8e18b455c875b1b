"""PostgreSQL as the place of a log: who is let in, what is refused, what is found altered, and how it heals."""

import asyncio
import shutil
import ssl
from dataclasses import replace

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.keyring.key_files import LOG_KEY, StateRefused
from gateway.adapters.ledger.keyring.keys import PAYLOAD_KEK
from gateway.adapters.ledger.storage.files import GUARD
from gateway.adapters.ledger.storage.postgres_database import server
from gateway.adapters.ledger.storage.postgres_site import REPLICA, PostgresSite
from gateway.core.errors import Conflict, NotFound, OutcomeUnknown, Unavailable
from tests.evidence import make_principal
from tests.ledgers import Books, Walk, check, open_books
from tests.replicas import Sites
from tests.waiting import until, until_asked


async def test_a_database_that_goes_away_stops_calls_and_heals(both: tuple[Books, Books], sites: Sites) -> None:
    """All sessions end at once: nothing is executed unrecorded, and both go on by themselves."""
    await asyncio.gather(*(Walk(books).go() for books in both))
    sites.cut_all()
    done = await asyncio.gather(*(Walk(both[at % 2]).go() for at in range(20)), return_exceptions=True)
    assert {type(one) for one in done if isinstance(one, BaseException)} <= {Unavailable, OutcomeUnknown}, done
    for books in both:
        await until_asked(lambda books=books: _works(books))  # type: ignore[misc]
    await asyncio.gather(*(Walk(books).go() for books in both))
    await until(lambda: not both[0].verify().open_calls)
    assert both[0].verify().findings == []


async def _works(books: Books) -> bool:
    try:
        await Walk(books).go()
    except Unavailable:
        return False
    return True


async def test_a_second_process_of_one_name_is_refused(both: tuple[Books, Books], sites: Sites) -> None:
    """A state folder that was copied: it says so, and disturbs nothing."""
    twin = sites.site("twin")
    shutil.copy(both[0].folder / REPLICA, twin.folder / REPLICA)
    with pytest.raises(StateRefused, match="copied needs a name of its own"):
        async with open_books(twin, SystemClock()):
            raise AssertionError("it started")
    with pytest.raises(StateRefused, match="another gateway is using"):
        async with open_books(PostgresSite(both[0].folder, sites.target), SystemClock()):
            raise AssertionError("it started")
    await Walk(both[0]).go()


@pytest.mark.parametrize("name", [PAYLOAD_KEK, LOG_KEY])
async def test_a_gateway_with_other_keys_is_refused(both: tuple[Books, Books], sites: Sites, name: str) -> None:
    """Nothing of it gets into the log."""
    stranger = sites.site("c")
    if name == LOG_KEY:
        shutil.rmtree(stranger.folder / "keys")
    else:
        (stranger.folder / "keys" / name).write_bytes(bytes(32))
    before = both[0].records()
    with pytest.raises(StateRefused, match="keys"):
        async with open_books(stranger, SystemClock()):
            raise AssertionError("it started")
    assert both[0].records() == before


async def test_a_gateway_that_knew_the_log_wants_its_guard(sites: Sites) -> None:
    """A new folder joins without one; a folder that wrote to the log before does not start without it."""
    for name in ("a", "b"):
        async with open_books(sites.site(name), SystemClock()) as books:
            await Walk(books).go()
            assert books.verify().findings == []
    (sites.folder / "b" / GUARD).unlink()
    with pytest.raises(StateRefused, match="guard"):
        async with open_books(sites.site("b"), SystemClock()):
            raise AssertionError("it started")


async def test_a_database_set_back_is_refused(sites: Sites) -> None:
    """An older state, or an empty database: the guard in the state folder knows better."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        await Walk(books).go()
    sites.run("drop schema ostiary cascade")
    with pytest.raises(StateRefused, match="older state was put back"):
        async with open_books(sites.site("a"), SystemClock()):
            raise AssertionError("it started")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("update ostiary.records set leaf = leaf || ' ' where idx = 1", "record was altered"),
        ("update ostiary.records set tool = 'x' where idx = 3", "columns searches use"),
        ("delete from ostiary.records where idx = 2", "are missing"),
        ("delete from ostiary.payloads where pid = (select min(pid) from ostiary.payloads)", "payload is missing"),
        ("update ostiary.sequencer set size = size + 1", "sequencer"),
        ("insert into ostiary.intents values ('x', 1, 'y')", "list of open calls"),
        ("alter table ostiary.records add note text", "not part of a log"),
        ("drop index ostiary.records_run", "missing"),
        ("create index more on ostiary.records (ts)", "not part of a log"),
        ("create function ostiary.f() returns int language sql as 'select 1'", "not part of a log"),
    ],
)
async def test_what_is_altered_is_found(sites: Sites, statement: str, said: str) -> None:
    """By the offline verifier, as in a file."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        await Walk(books).go()
    sites.run(statement)
    problems = [found.problem for found in check(sites.site("a")).findings]
    assert [problem for problem in problems if said in problem], problems


async def test_a_server_that_lost_what_it_acknowledged_is_not_built_upon(
    both: tuple[Books, Books], sites: Sites
) -> None:
    """As after a failover to a copy that lagged: both gateways refuse calls, though the server lets them in."""
    await Walk(both[0]).go()
    sites.run("create schema kept")
    for table in ("records", "payloads", "checkpoints", "nodes", "reasons", "sequencer"):
        sites.run(f"create table kept.{table} as select * from ostiary.{table}")
    await asyncio.gather(*(Walk(books).go() for books in both * 2))
    for table in ("records", "payloads", "checkpoints", "nodes", "reasons", "sequencer"):
        sites.run(f"truncate ostiary.{table}")
        sites.run(f"insert into ostiary.{table} select * from kept.{table}")
    sites.cut_all()
    for _ in range(3):
        for books in both:
            with pytest.raises((Unavailable, NotFound)):
                await Walk(books).go()
    assert both[0].ledger._store.trouble is not None


async def test_an_auditor_may_verify_with_rights_to_read_only(sites: Sites) -> None:
    """By a user of their own, who can change nothing."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        await Walk(books).go()
        sites.run("create user auditor password 'a'")
        sites.run("grant usage on schema ostiary to auditor")
        sites.run("grant select on all tables in schema ostiary to auditor")
        by_auditor = PostgresSite(sites.folder / "a", replace(sites.target, user="auditor", password="a"))
        assert check(by_auditor).findings == []
        await Walk(books).go()
    sites.run("drop owned by auditor")
    sites.run("drop user auditor")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@h/d", "password"),
        ("mysql://u@h/d", "postgresql://"),
        ("postgresql://h/d", "names a user"),
        ("postgresql://u@h", "one database"),
        ("postgresql:///d?host=/x&user=u&sslmode=disable", "postgresql://USER"),
        ("postgresql://u@h:x/d", "[Pp]ort"),
    ],
)
def test_a_url_that_names_no_database_is_refused(url: str, said: str) -> None:
    """With what is wrong, and without the URL's words."""
    with pytest.raises(ValueError, match=said) as caught:
        server(url)
    assert "secret" not in str(caught.value)


def test_a_server_beyond_loopback_is_reached_by_tls_only() -> None:
    """Its certificate is verified; on loopback and sockets there is nothing to verify."""
    far, near = server("postgresql://u@db.example/d", "pw"), server("postgresql:///d?host=/run&user=u")
    assert far.tls is not None
    assert far.tls.verify_mode is ssl.CERT_REQUIRED
    assert far.tls.check_hostname
    assert near.tls is None
    assert "pw" not in repr(far)


async def test_a_gateway_without_the_new_signing_key_writes_no_more(sites: Sites) -> None:
    """Not rotated while the other lives; afterwards it does not start without the key's file; with it both go on."""
    async with open_books(sites.site("a"), SystemClock()) as one:
        async with open_books(sites.site("b"), SystemClock()) as other:
            await Walk(other).go()
            with pytest.raises(Conflict):
                await one.room.rotate(make_principal())
            await Walk(other).go()
            await Walk(one).go()
        new = (await one.room.rotate(make_principal())).key
        await Walk(one).go()
        with pytest.raises(StateRefused, match="signed by a key that is not here"):
            async with open_books(sites.site("b"), SystemClock()):
                raise AssertionError("it started")
        for path in (sites.folder / "a" / "keys").glob(f"*{new.id.hex()}*"):
            shutil.copy(path, sites.folder / "b" / "keys")
        async with open_books(sites.site("b"), SystemClock()) as other:
            await Walk(other).go()
            await Walk(one).go()
            assert other.verify().findings == []
