"""The writer's connection to a SQLite log: what only adds goes to the journal, all else to the tables.

A transaction begins in the database as soon as it reads or changes anything there; what the journal holds is put into
the tables first, so nothing is ever read that is older than the log. One that only adds what is known beforehand, as a
call's records are, never touches it: its frame of the journal is the transaction. Now and then one takes along into the
tables what has gathered.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from gateway.adapters.ledger.additions import Additions
from gateway.adapters.ledger.database import SQLITE, DatabaseFault, Rows, SqliteDatabase, write
from gateway.adapters.ledger.storage.journal import Journal, beyond, frames, log_size

# Records in the journal at most: what a transaction that takes them along costs more than others.
_MOST = 256


class JournaledDatabase:
    """Implements ``Database``, for the one process that has the log."""

    dialect = SQLITE

    def __init__(self, db: SqliteDatabase, path: Path) -> None:
        """``db``: the writer's connection; what the journal in ``path`` holds is put into its tables.

        Raises:
            OSError: the journal cannot be made or written.
            FAULTS: it cannot be read, or its content not be written.
        """
        self._db = db
        self._is_open = self._is_begun = False
        self._added: Additions | None = None
        # What the journal holds beyond the tables, and how many records that are.
        self._pending: list[Additions] = []
        self._count = 0
        held = beyond(frames(path), log_size(db))
        if held.records:
            db.begin()
            write(db, held)
            db.commit()
        self._journal = Journal(path)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        """See ``Database``."""
        self._touch()
        return self._db.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """See ``Database``."""
        self._touch()
        return self._db.executemany(sql, parameters)

    def bounded(self, steps: int) -> AbstractContextManager[None]:
        """See ``Database``."""
        return self._db.bounded(steps)

    def walk(self, sql: str, most: int = 1) -> Iterator[Any]:
        """See ``Database``."""
        return self._db.walk(sql, most)

    def begin(self) -> None:
        """See ``Database``."""
        if self._is_open:
            raise DatabaseFault("a transaction is open already")
        self._is_open = True

    def snapshot(self) -> None:
        """See ``Database``."""
        self.settle()
        self._db.snapshot()

    def add(self, additions: Additions, *, settles: bool = False) -> None:
        """See ``Database``."""
        # One that adds no record asks whether writing works; a log's first is in the tables at once, see ``beyond``.
        small = 0 < additions.first < additions.size <= additions.first + _MOST - self._count
        if settles or self._is_begun or not small or not self._journal.hold(additions):
            self._touch()
            write(self._db, additions)
        else:
            self._added = additions

    def commit(self) -> None:
        """See ``Database``."""
        if self._is_begun:
            self._db.commit()
            self._journal.restart()
            self._pending, self._count = [], 0
        elif self._added is not None:
            self._journal.append()
            self._pending.append(self._added)
            self._count += self._added.size - self._added.first
        self._end()

    def rollback(self) -> None:
        """See ``Database``."""
        self._end()
        self._db.rollback()

    @property
    def is_behind(self) -> bool:
        """See ``Database``."""
        return self._count > 0

    def settle(self) -> None:
        """See ``Database``."""
        if self.is_behind:
            self.begin()
            self._touch()
            self.commit()

    def close(self) -> None:
        """See ``Database``."""
        self._db.close()
        if not self.is_behind and self._added is None:  # what may have been written is seen by whoever reads it again
            with suppress(OSError):  # all is in the tables
                self._journal.clear()
        with suppress(OSError):  # whoever closes it opens it anew, or is through with it
            self._journal.close()

    def _touch(self) -> None:
        if not self._is_open or self._is_begun:
            return
        if self._added is not None:
            raise DatabaseFault("what a transaction adds is the last of it")
        self._db.begin()
        self._is_begun = True
        if self._pending:
            together = Additions.none()
            for added in self._pending:
                together.take(added)
            write(self._db, together)

    def _end(self) -> None:
        self._is_open = self._is_begun = False
        self._added = None


def opened(db: SqliteDatabase, path: Path) -> JournaledDatabase:
    """As ``JournaledDatabase``; where that fails, ``db`` is closed."""
    try:
        return JournaledDatabase(db, path)
    except BaseException:
        db.close()
        raise
