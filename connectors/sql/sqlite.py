"""The SQLite dialect: connections that can do no more than their mode, and one statement on one of them.

Everything here blocks and runs in a worker thread. Two nets besides the declared statement: a read connection is opened
read-only, and an authorizer refuses whatever is no row of a table (ATTACH, PRAGMA, schema changes, extensions).
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.sql.binding import Mode, SqlValue, Statement
from connectors.sql.result import Fault, FaultKind, Rendered, Room, Table

_SELECTING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_CHANGING = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_TRANSACTION})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_PRIMARY = 0xFF  # extended result codes keep the primary one in the low byte
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_MAX_VALUE_BYTES = 16 * 1024 * 1024
_STEPS_BETWEEN_LOOKS = 1_000


class Stop:
    """Says when a running statement must end: its deadline passed, or its caller gave up."""

    __slots__ = ("_asked", "_deadline")

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._asked = threading.Event()

    def ask(self) -> None:
        """Give up; from any thread."""
        self._asked.set()

    def due(self) -> bool:
        """Whether it is time."""
        return self._asked.is_set() or time.monotonic() > self._deadline


@dataclass(frozen=True, slots=True)
class Job:
    """One statement to run.

    Attributes:
        statement: the declared one.
        values: its parameters.
        max_bytes: most bytes of text and rows taken out of the database, roughly.
        stop: when to end.
        render: makes the result; where it raises ``Fault`` a write is rolled back.
    """

    statement: Statement
    values: Mapping[str, SqlValue]
    max_bytes: int
    stop: Stop
    render: Callable[[Table], Rendered]


def connect(path: Path, mode: Mode, busy_s: float) -> sqlite3.Connection:
    """A connection that can do no more than ``mode``; never creates a database.

    Raises:
        Fault: it cannot be opened.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if mode is Mode.READ else 'rw'}",
            uri=True,
            timeout=busy_s,
            isolation_level=None,
            check_same_thread=False,  # handed from thread to thread, used by one at a time
        )
        connection.execute(f"PRAGMA query_only = {'ON' if mode is Mode.READ else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_authorizer(mode))
    except sqlite3.Error as error:
        raise Fault(FaultKind.UNREACHABLE, _name(error)) from None
    return connection


def run(connection: sqlite3.Connection, job: Job) -> Rendered:
    """Run a statement on a connection of its mode; a write is committed, or rolled back on any fault.

    Raises:
        Fault: see ``FaultKind``. The connection can be used again unless it is ``UNKNOWN``.
    """
    if job.stop.due():
        raise Fault(FaultKind.BUSY, "there was no time left to start")
    connection.set_progress_handler(job.stop.due, _STEPS_BETWEEN_LOOKS)
    try:
        if job.statement.mode is Mode.READ:
            return job.render(_fetched(connection, job))
        return _written(connection, job)
    finally:
        connection.set_progress_handler(None, 0)


def problems(connection: sqlite3.Connection, statement: Statement) -> list[str]:
    """What the database says about a statement without running it; empty = nothing."""
    asked = _Asked()
    try:
        connection.execute(f"EXPLAIN {statement.text}", asked).close()
    except (sqlite3.Error, sqlite3.Warning) as error:
        return [f"the database refuses the statement: {error}"]
    declared = {parameter.name for parameter in statement.parameters}
    wrong = [f"the statement has :{name}, which is no parameter" for name in sorted(asked.names - declared)]
    return wrong + [f"the parameter {name!r} is not in the statement" for name in sorted(declared - asked.names)]


class _Asked(dict[str, SqlValue]):
    # Learns which parameters a statement has by being asked for them.
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __missing__(self, name: str) -> SqlValue:
        self.names.add(name)
        return None


def _fetched(connection: sqlite3.Connection, job: Job) -> Table:
    before = connection.total_changes
    rows: list[tuple[Any, ...]] = []
    room = Room(job.statement, job.max_bytes)
    try:
        cursor = connection.execute(job.statement.text, job.values)
        for row in cursor:
            room.take(row)
            rows.append(row)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _fault(error) from None
    columns = tuple(column[0] for column in cursor.description or ())
    return Table(columns, rows, connection.total_changes - before)


def _written(connection: sqlite3.Connection, job: Job) -> Rendered:
    _simple(connection, "BEGIN IMMEDIATE")
    try:
        result = job.render(_fetched(connection, job))
    except BaseException:
        _roll_back(connection)
        raise
    connection.set_progress_handler(None, 0)  # a commit is not interrupted half-way
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if not connection.in_transaction:
            raise Fault(FaultKind.UNKNOWN, _name(error)) from None
        fault = _fault(error)
        _roll_back(connection)
        # Busy readers and deferred constraints leave the transaction open, so rolling back is certain; a disk that
        # fails in the middle of a commit is not.
        certain = fault.kind in {FaultKind.BUSY, FaultKind.CONSTRAINT}
        raise fault if certain else Fault(FaultKind.UNKNOWN, _name(error)) from None
    return result


def _roll_back(connection: sqlite3.Connection) -> None:
    # Some errors (disk full, interrupt) have rolled back already. What cannot be rolled back here is when the
    # connection is closed, or by the next one to open the file: nothing uncommitted ever counts.
    if connection.in_transaction:
        connection.set_progress_handler(None, 0)
        _simple(connection, "ROLLBACK")


def _simple(connection: sqlite3.Connection, command: str) -> None:
    try:
        connection.execute(command)
    except sqlite3.Error as error:
        raise _fault(error) from None


def _fault(error: Exception) -> Fault:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code in _BUSY:
        return Fault(FaultKind.BUSY, _name(error))
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Fault(FaultKind.CONSTRAINT, str(error)[:200])
    if code == sqlite3.SQLITE_INTERRUPT:
        return Fault(FaultKind.STOPPED, _name(error))
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB}:
        return Fault(FaultKind.UNREACHABLE, _name(error))
    return Fault(FaultKind.FAILED, _name(error))


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def _authorizer(mode: Mode) -> Callable[..., int]:
    allowed = _SELECTING if mode is Mode.READ else _SELECTING | _CHANGING

    def decide(action: int, _first: str | None, second: str | None, *_rest: str | None) -> int:
        if action not in allowed:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    return decide
