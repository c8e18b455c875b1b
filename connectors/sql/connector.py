"""The connector for SQLite files. What a result is like, ``result`` says.

Bytes and infinite numbers are refused: the statement says ``hex(column)`` or ``CAST``. ``changed`` counts the rows of
triggers and cascades, too.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

from anyio import CancelScope

from connectors.sql import binding, sqlite
from connectors.sql.binding import Mode, Statement
from connectors.sql.result import Fault, FaultKind, Rendered, answered, rendered
from connectors.sql.sqlite import Job, Stop
from gateway.core.call import Lease, Raw
from gateway.core.errors import Unavailable
from gateway.core.tool import Tool

_READERS = 4
_BUSY_S = 1.0
_PING_S = 2.0
# The statement ends before the caller's patience does, so that how it ended is known.
_SHARE_OF_TIMEOUT = 0.9


class SqliteConnector:
    """Carries out declared statements on one SQLite file. An async context manager.

    Failure mode: see ``core.connector.Connector``. A database that is busy before the statement began is ``NotSent``; a
    commit whose outcome cannot be known is ``OutcomeUnknown``; all other faults changed nothing.
    """

    def __init__(self, database: Path, *, busy_s: float = _BUSY_S) -> None:
        """Prepare; nothing is opened yet. ``busy_s``: longest wait for another process's lock, seconds."""
        self._database = database
        self._busy_s = busy_s
        self._idle: dict[Mode, list[sqlite3.Connection]] = {Mode.READ: [], Mode.WRITE: []}
        self._threads: dict[Mode, ThreadPoolExecutor] = {}
        self._statements = binding.Statements()

    async def __aenter__(self) -> Self:
        """Provide threads: several for reads, one for writes, as SQLite takes one writer at a time."""
        self._threads = {
            Mode.READ: ThreadPoolExecutor(_READERS, "sql-read"),
            Mode.WRITE: ThreadPoolExecutor(1, "sql-write"),
        }
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Wait for running statements and close all connections."""
        for threads in self._threads.values():
            threads.shutdown()
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    async def invoke(self, lease: Lease) -> Raw:
        """Run the statement the tool declares, once. On cancellation it is interrupted and a write rolled back.

        Raises:
            NotSent: arguments do not fit, the database cannot be opened or is locked.
            ToolFailed: the statement failed, took too long or brought too much; nothing was changed.
            OutcomeUnknown: the commit failed.
        """
        intent = lease.intent
        found = self._statements.of(intent.tool)
        job = Job(
            statement=found,
            values=binding.values(found, intent.call.arguments),
            max_bytes=intent.tool.limits.max_output_bytes,
            stop=Stop(intent.timeout_s * _SHARE_OF_TIMEOUT),
            render=partial(rendered, found, intent.tool.limits.max_output_bytes),
        )
        try:
            body, value = await self._in_thread(job)
        except Fault as fault:
            body, value = answered(fault)
        return Raw(lease, body, value)

    async def ping(self) -> None:
        """The database can be opened and read.

        Raises:
            Unavailable: it cannot.
        """
        look = Statement("SELECT count(*) AS tables FROM sqlite_schema", (), Mode.READ)
        try:
            await self._in_thread(Job(look, {}, 1_024, Stop(_PING_S), partial(rendered, look, 1_024)))
        except Fault as fault:
            raise Unavailable("the database cannot be read", cause_code=fault.kind) from None

    async def _in_thread(self, job: Job) -> Rendered:
        running = self._threads[job.statement.mode].submit(self._run, job)
        future = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Nothing may go on behind the back of a caller who was told that it ended.
            job.stop.ask()
            if not running.cancel():
                with CancelScope(shield=True):
                    await asyncio.wait([future])
                future.exception()
            raise

    def _run(self, job: Job) -> Rendered:
        mode = job.statement.mode
        connection = self._connection(mode)
        usable = False
        try:
            result = sqlite.run(connection, job)
            usable = True
        except Fault as fault:
            usable = fault.kind in {FaultKind.BUSY, FaultKind.CONSTRAINT} and not connection.in_transaction
            raise
        finally:
            if usable:
                self._idle[mode].append(connection)
            else:
                connection.close()
        return result

    def _connection(self, mode: Mode) -> sqlite3.Connection:
        try:
            return self._idle[mode].pop()
        except IndexError:
            return sqlite.connect(self._database, mode, self._busy_s)


def check(tool: Tool, database: Path) -> list[str]:
    """What is wrong with a tool's statement, held against its schema and the database; empty = nothing.

    For ``ostiary check`` and catalogue loading; blocks for as long as opening the file and planning the statement take.
    """
    try:
        found = binding.statement(tool.binding)
        connection = sqlite.connect(database, found.mode, _BUSY_S)
    except (LookupError, TypeError, ValueError) as error:
        return [f"{tool.fqn}: {error}"]
    except Fault as fault:
        return [f"{tool.fqn}: the database {database} cannot be opened ({fault.detail})"]
    try:
        wrong = binding.problems(tool, found) + sqlite.problems(connection, found)
    finally:
        connection.close()
    return [f"{tool.fqn}: {problem}" for problem in wrong]
