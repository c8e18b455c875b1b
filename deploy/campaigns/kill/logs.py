"""The dead log as the judge reads it: past every gateway, from SQLite's file or from PostgreSQL itself."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from deploy.servers.postgres import Postgres
from gateway.adapters.ledger.storage.files import connect_readonly

_SIZE: Final = "select coalesce(max(idx) + 1, 0) from {}records"
_ROWS: Final = "select idx, leaf from {}records where idx >= {} order by idx"
_NEWEST: Final = "select note from {}checkpoints order by win desc limit 1"
_SNAPSHOT: Final = "begin transaction isolation level repeatable read, read only"
SCHEMA: Final = "ostiary."


@dataclass(frozen=True, slots=True)
class Stand:
    """One state of a log.

    Attributes:
        size: records.
        rows: index and bytes of those that were asked for.
        note: the newest checkpoint, or None.
    """

    size: int
    rows: Iterable[tuple[int, bytes]]
    note: str | None


class Log(Protocol):
    """Where a log lies."""

    def read(self, since: int) -> AbstractContextManager[Stand | None]:
        """Its state, with the rows from index ``since`` on; None where there is no log."""


@dataclass(frozen=True, slots=True)
class SqliteLog:
    """A file; implements ``Log``."""

    path: Path

    @contextmanager
    def read(self, since: int) -> Iterator[Stand | None]:
        """See ``Log``."""
        if not self.path.exists():
            yield None
            return
        with closing(connect_readonly(self.path)) as db:
            db.snapshot()
            (size,) = db.execute(_SIZE.format("")).fetchone()
            row = db.execute(_NEWEST.format("")).fetchone()
            yield Stand(size, db.execute(_ROWS.format("", since)), None if row is None else row[0])


@dataclass(frozen=True, slots=True)
class PostgresLog:
    """A database of a server that is not killed; implements ``Log``."""

    server: Postgres

    @contextmanager
    def read(self, since: int) -> Iterator[Stand | None]:
        """See ``Log``."""
        asked = (query.format(SCHEMA, since) for query in (_SIZE, _NEWEST, _ROWS))
        _, ((size,),), notes, rows, _ = self.server.run(_SNAPSHOT, *asked, "commit")
        yield Stand(size, [(index, bytes(entry)) for index, entry in rows], notes[0][0] if notes else None)

    def open_calls(self) -> int:
        """How many calls are under way, as gateways have it."""
        return int(self.server.run(f"select count(*) from {SCHEMA}intents")[0][0][0])  # noqa: S608 - literals only
