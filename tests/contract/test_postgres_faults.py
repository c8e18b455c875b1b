"""PostgreSQL that fails, hangs, is put back or is set up otherwise: what gateways on it make of that."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg
import pytest
from anyio import to_thread

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.database import Database, DatabaseFault
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.storage import postgres_database, postgres_site
from gateway.adapters.ledger.storage.lives import LIVES
from gateway.adapters.ledger.storage.postgres_database import PostgresDatabase, answered
from gateway.core.call import Intent
from gateway.core.errors import Conflict, Unavailable
from tests.evidence import make_principal
from tests.ledgers import Books, Walk, open_books
from tests.replicas import Sites, made, opened, paying
from tests.waiting import until, until_asked


async def test_a_database_from_before_a_gateway_joined_is_refused_by_it(sites: Sites) -> None:
    """It does not know that gateway, whose guard is ahead of it all the same."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        await Walk(books).go()
    tables = [name for (name,) in sites.rows("select tablename from pg_tables where schemaname = 'ostiary'")]
    sites.run("create schema kept")
    for table in tables:
        sites.run(f"create table kept.{table} as select * from ostiary.{table}")
    async with open_books(sites.site("b"), SystemClock()) as books:
        await Walk(books).go()
    for table in tables:
        sites.run(f"truncate ostiary.{table} cascade")
    for table in tables:
        sites.run(f"insert into ostiary.{table} select * from kept.{table}")
    with pytest.raises(StateRefused, match="older state was put back"):
        async with open_books(sites.site("b"), SystemClock()):
            raise AssertionError("it started")


async def test_budgets_hold_whatever_isolation_the_database_prefers(sites: Sites) -> None:
    """Three calls a run, asked for at two gateways: each sees what was counted before its turn, not its own past."""
    sites.run(f"alter database \"{sites.target.database}\" set default_transaction_isolation = 'repeatable read'")
    async with open_books(sites.site("a"), SystemClock()) as one, open_books(sites.site("b"), SystemClock()) as other:
        token = await opened(one)
        assert await made(*(paying((one, other)[at % 2], token) for at in range(30))) == 3
        assert one.verify().findings == []


async def test_a_transaction_that_fails_does_not_cost_the_life(both: tuple[Books, Books], sites: Sites) -> None:
    """The session is kept: the call that was under way meanwhile is still this gateway's to complete."""
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def act(intent: Intent) -> None:
        under_way.set()
        await go_on.wait()

    walk = Walk(both[0], act=act)
    call = walk.call()
    task = asyncio.create_task(walk.go(call))
    await under_way.wait()
    session = life(both[0], sites)
    sites.run("alter table ostiary.records add constraint no check (type <> 'tool.requested') not valid")
    with pytest.raises(Unavailable):
        await Walk(both[0]).go()
    sites.run("alter table ostiary.records drop constraint no")
    await Walk(both[0]).go()
    assert life(both[0], sites) == session
    go_on.set()
    await task
    assert both[1].types(call.id)[-1] == "tool.completed"
    assert both[0].verify().findings == []


def life(books: Books, sites: Sites) -> list[tuple[Any, ...]]:
    """The session that holds the life of these books' gateway."""
    return sites.rows(
        "select l.pid from pg_locks l join ostiary.replicas r on l.objid = r.num "
        f"where l.locktype = 'advisory' and l.objsubid = 2 and r.id = '{books.site.replica}'"
    )


async def test_why_a_running_gateway_is_refused_is_said_once(
    both: tuple[Books, Books], sites: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that came while it was cut off, so that it was not asked: its log says so, not with every call again."""

    async def is_rotated() -> bool:
        sites.cut(both[1])
        with suppress(Conflict):  # it is back already
            await both[0].room.rotate(make_principal())
            return True
        return False

    await until_asked(is_rotated)
    with caplog.at_level(logging.ERROR, "gateway.ledger"):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await Walk(both[1]).go()
    said = [line for line in caplog.messages if "cannot be written: " in line]
    assert sum("signed by a key that is not here" in line for line in said) == 1


async def test_an_idle_gateway_notices_that_the_database_is_gone(both: tuple[Books, Books], sites: Sites) -> None:
    """Nobody calls: it is not ready within a round or two, and ready again by itself."""
    name = sites.target.database
    assert await is_ready(both[0])
    sites.server.run(f'alter database "{name}" allow_connections false')
    sites.server.run(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    await until(lambda: both[0].ledger._store.trouble is not None)
    assert not await is_ready(both[0])
    sites.server.run(f'alter database "{name}" allow_connections true')
    await until(lambda: both[0].ledger._store.trouble is None)
    assert await is_ready(both[0])


async def is_ready(books: Books) -> bool:
    """What a probe of readiness is told."""
    try:
        await books.log.ping()
    except Unavailable:
        return False
    return True


async def test_who_lost_its_session_does_not_wait_for_who_starts(both: tuple[Books, Books], sites: Sites) -> None:
    """It joined long ago: while another one has the turn to start, it is back and writes."""
    starting = await to_thread.run_sync(PostgresDatabase, sites.target)
    await to_thread.run_sync(starting.execute, f"select pg_advisory_lock({LIVES}, 0)")
    sites.cut(both[0])
    await until_asked(lambda: writes(both[0]))
    await to_thread.run_sync(starting.close)
    assert both[0].verify().findings == []


async def test_a_start_that_hangs_is_named_by_the_next_one(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gateway has the turn to start, and does not go on: who waits says whom for."""
    async with open_books(sites.site("a"), SystemClock()):
        pass
    starting = await to_thread.run_sync(PostgresDatabase, sites.target)
    await to_thread.run_sync(starting.execute, f"select pg_advisory_lock({LIVES}, 0)")
    monkeypatch.setitem(postgres_database._SETTINGS, "lock_timeout", "100")
    with pytest.raises(StateRefused, match="another gateway is starting"):
        async with open_books(sites.site("b"), SystemClock()):
            raise AssertionError("it started")
    await to_thread.run_sync(starting.close)
    async with open_books(sites.site("b"), SystemClock()) as books:
        assert books.verify().findings == []


async def test_a_verifier_that_is_cut_off_calls_nothing_damaged(
    both: tuple[Books, Books], sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where it stopped reading, and why."""
    await Walk(both[0]).go()
    walk = PostgresDatabase.walk

    def cut(self: PostgresDatabase, sql: str, most: int = 1) -> Iterator[Any]:
        if "from records" in sql:
            self.script("select pg_terminate_backend(pg_backend_pid())")
        return walk(self, sql, most)

    monkeypatch.setattr(PostgresDatabase, "walk", cut)
    said = [found.problem for found in both[0].verify().findings]
    assert any("cannot be read on from here" in problem for problem in said), said
    assert not any("damaged" in problem for problem in said), said


async def writes(books: Books) -> bool:
    """Whether a call gets through."""
    try:
        await Walk(books).go()
    except Unavailable:
        return False
    return True


async def test_calls_do_not_wait_for_a_session_that_hangs(
    both: tuple[Books, Books], sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader that calls wait for gives it up, and reads by another one."""
    monkeypatch.setattr(postgres_site, "COMMAND_S", 0.2)
    async with LogReader(sites.site("a"), both[0].keys, is_hasty=True) as reader:
        with stopped(await reader.ask(session_of)):
            with pytest.raises(Unavailable):
                await reader.ask(session_of)
            await until_asked(lambda: answers(reader))


def session_of(db: Database) -> int:
    """The server's process that answers."""
    return int(db.execute("select pg_backend_pid()").fetchone()[0])


async def answers(reader: LogReader) -> bool:
    """Whether it reads."""
    try:
        return await reader.ask(session_of) > 0
    except Unavailable:
        return False


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "error", [asyncpg.InternalClientError("cannot switch to state 15"), BrokenPipeError(32, "gone")]
)
async def test_a_driver_that_has_lost_its_way_is_a_database_that_fails(error: Exception) -> None:
    """Whatever it says of a connection that broke: callers are told that nothing was done, not that we have a bug."""

    def asked() -> Awaitable[None]:
        raise error  # as a connection does that was given back, before there is anything to await

    async def answering() -> None:
        raise error

    for work in (asked, answering):
        with pytest.raises(DatabaseFault, match="cannot be reached"):
            await answered(work)


async def test_a_statement_that_is_broken_off_is_a_fault_of_the_database(
    both: tuple[Books, Books], sites: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever administers the server may do so: the call is refused, it is said in a line, the next one passes."""
    sites.run(
        "create function ostiary.stop() returns trigger language plpgsql as $$begin "
        " perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); return new; end$$"
    )
    sites.run("create trigger stop before insert on ostiary.records for each row execute function ostiary.stop()")
    with pytest.raises(Unavailable):
        await Walk(both[0]).go()
    sites.run("drop trigger stop on ostiary.records")
    sites.run("drop function ostiary.stop()")
    await Walk(both[0]).go()
    assert [line for line in caplog.messages if "canceling statement" in line]
    assert not [record for record in caplog.records if record.exc_info]
    assert both[0].verify().findings == []
