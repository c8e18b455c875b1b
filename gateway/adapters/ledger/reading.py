"""Reading the log: its own connection that cannot write, used off the event loop, one query at a time."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import msgspec
from anyio import to_thread

from gateway.adapters.ledger.files import DATABASE, PAYLOAD_SLOTS, connect_readonly
from gateway.adapters.ledger.keys import LogKeys
from gateway.adapters.ledger.sealing import SealBroken, unseal, unwrap
from gateway.core.desk import LogRecord, Query
from gateway.core.errors import NotFound, Unavailable
from gateway.core.records import EventType, Role

_MAX_LIMIT = 1000
_IDLE_BATCH = 500
T = TypeVar("T")

_EQUAL = ("type", "run_id", "call_id", "effect", "agent")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What the log knows of one run.

    Attributes:
        document: the sealed ``run`` payload of its start, opened; None where its key was destroyed.
        is_open: whether it has not ended.
        last_us: time of its last record.
        requested: body of each ``tool.requested`` record.
    """

    document: dict[str, Any] | None
    is_open: bool
    last_us: int
    requested: tuple[dict[str, Any], ...]


class LogReader:
    """Implements ``core.desk.AuditReader`` on the files of a ledger that is open; an async context manager.

    Failure mode, closed: a log that cannot be read is ``Unavailable``.
    """

    def __init__(self, folder: Path, keys: LogKeys) -> None:
        self._path = folder / DATABASE
        self._kek = keys.kek
        self._db: sqlite3.Connection | None = None
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def search(self, query: Query) -> tuple[LogRecord, ...]:
        """Matching records in log order; see ``core.desk.AuditReader``."""
        statement, values = _search(query)

        def run(db: sqlite3.Connection) -> tuple[LogRecord, ...]:
            rows = db.execute(statement, values).fetchall()
            return tuple(LogRecord(index, entry, msgspec.json.decode(entry)) for index, entry in rows)

        return await self._ask(run)

    async def checkpoint(self) -> str:
        """The newest signed checkpoint; see ``core.desk.AuditReader``."""

        def run(db: sqlite3.Connection) -> str | None:
            row = db.execute("select note from checkpoints order by win desc limit 1").fetchone()
            return None if row is None else str(row[0])

        note = await self._ask(run)
        if note is None:
            raise NotFound("nothing was logged yet")
        return note

    async def payload(self, call_id: str, role: str) -> Any:
        """A sealed payload, opened and decoded; see ``core.desk.AuditReader``."""
        return await self._ask(lambda db: self._payload(db, "call_id", call_id, role))

    async def run(self, run_id: str) -> StoredRun | None:
        """What the log knows of a run, or None where there is no such run."""
        return await self._ask(lambda db: self._run(db, run_id))

    async def bound_run(self, binding: str) -> str | None:
        """Id of the open implicit run of a session, by its keyed name."""

        def run(db: sqlite3.Connection) -> str | None:
            row = db.execute("select run_id from open_runs where binding = ?", (binding,)).fetchone()
            return None if row is None else str(row[0])

        return await self._ask(run)

    async def open_runs(self, after: str) -> tuple[tuple[str, bool, int], ...]:
        """Open runs with ids greater than ``after``, at most 500: (id, whether implicit, time of the last record)."""

        def run(db: sqlite3.Connection) -> tuple[tuple[str, bool, int], ...]:
            rows = db.execute(
                "select run_id, binding is not null, (select ts from records r where r.run_id = o.run_id"
                " order by seq_run desc limit 1) from open_runs o where run_id > ? order by run_id limit ?",
                (after, _IDLE_BATCH),
            )
            return tuple((str(run_id), bool(implicit), int(last)) for run_id, implicit, last in rows)

        return await self._ask(run)

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            if self._db is None:
                self._db = connect_readonly(self._path)
            return question(self._db)

        async with self._turn:
            try:
                return await to_thread.run_sync(run)
            except (UnicodeEncodeError, OverflowError):
                raise NotFound("no record can have such an id or time") from None
            except (sqlite3.Error, msgspec.DecodeError, SealBroken) as error:
                self._close()  # the next question opens the log anew
                raise Unavailable("the audit log cannot be read", cause_code="ledger_unreadable") from error

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _run(self, db: sqlite3.Connection, run_id: str) -> StoredRun | None:
        last = db.execute("select ts from records where run_id = ? order by seq_run desc limit 1", (run_id,)).fetchone()
        if last is None:
            return None
        is_open = db.execute("select 1 from open_runs where run_id = ?", (run_id,)).fetchone() is not None
        document = self._payload(db, "run_id", run_id, Role.RUN)
        rows = db.execute(
            "select leaf from records where run_id = ? and +type = ? order by seq_run",
            (run_id, EventType.TOOL_REQUESTED),
        )
        requested = tuple(msgspec.json.decode(entry)["body"] for (entry,) in rows)
        return StoredRun(document, is_open, int(last[0]), requested)

    def _payload(self, db: sqlite3.Connection, column: str, value: str, role: str) -> Any:
        order = "seq_run limit 1" if column == "run_id" else "idx"
        rows = db.execute(f"select idx, leaf from records where {column} = ? order by {order}", (value,))  # noqa: S608 - column is one of two literals
        for index, entry in rows.fetchall():
            record = msgspec.json.decode(entry)
            for slot, ref in enumerate(record["payloads"]):
                if ref["role"] == role:
                    return self._opened(db, index * PAYLOAD_SLOTS + slot, record["id"], ref)
        return None

    def _opened(self, db: sqlite3.Connection, pid: int, record_id: str, ref: dict[str, Any]) -> Any:
        key_row = db.execute("select wrapped from deks where id = ?", (ref["dek"],)).fetchone()
        row = db.execute("select sealed from payloads where pid = ?", (pid,)).fetchone()
        if key_row is None or row is None:
            return None
        content = unseal(unwrap(self._kek, ref["dek"], key_row[0]), record_id, ref["role"], row[0])
        return msgspec.json.decode(content) if ref["mime"] == "application/json" else content.decode()


def _search(query: Query) -> tuple[str, list[Any]]:
    conditions = ["idx > ?"]
    values: list[Any] = [query.after]
    for column in _EQUAL:
        wanted = getattr(query, column)
        if wanted is not None:
            conditions.append(f"{column} = ?")
            values.append(wanted)
    if query.tool is not None:
        conditions.append("tool glob ?" if "*" in query.tool else "tool = ?")
        # Only the star is a wildcard; the other two GLOB knows are taken literally.
        values.append(query.tool.replace("[", "[[]").replace("?", "[?]") if "*" in query.tool else query.tool)
    for column, bound in (("ts >= ?", query.since_us), ("ts <= ?", query.until_us)):
        if bound is not None:
            conditions.append(column)
            values.append(bound)
    values.append(max(1, min(query.limit, _MAX_LIMIT)))
    return f"select idx, leaf from records where {' and '.join(conditions)} order by idx limit ?", values  # noqa: S608 - literals only
