"""What the ledger asks of a database, whichever it is: statements with ``?`` for what is bound, rows as tuples."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Protocol

from gateway.adapters.ledger.additions import CHECKPOINT, Additions

_BEAT = 10_000  # instructions between two looks at how many there were
_INTERRUPTED = "interrupted"


class DatabaseFault(Exception):
    """The database cannot do what it was asked; the message holds nothing secret."""


class Displaced(DatabaseFault):
    """The database is not where it was opened any more: what is written now, nobody would find."""


class TooCostly(Exception):
    """A question took more than it was given."""


# What any of the databases raises where it fails.
FAULTS = (sqlite3.Error, DatabaseFault)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few words in which the databases differ.

    Attributes:
        like: the operator that holds a value against a pattern.
        pattern: a pattern with ``*`` for any characters, as that operator takes it.
        text: the text at a dotted path of ``leaf``.
        number: the integer at such a path.
        reasons: a table of one column ``value``: the reasons in ``leaf``.
        greatest: the function that tells the greatest of its arguments.
        put: the statement that writes a row of a table, in place of the one with the same key: (table, columns); the
            key is the first column.
    """

    like: str
    pattern: Callable[[str], str]
    text: Callable[[str], str]
    number: Callable[[str], str]
    reasons: str
    greatest: str
    put: Callable[[str, str], str]


class Rows(Protocol):
    """What a statement found."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchmany(self, size: int) -> list[Any]:
        """At most ``size`` rows more."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """A connection. Belongs to one thread at a time. Whatever fails raises one of ``FAULTS``.

    A value that no column can hold raises ``OverflowError`` or ``UnicodeEncodeError``.
    """

    @property
    def dialect(self) -> Dialect:
        """Its words."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each row of parameters."""

    def bounded(self, steps: int) -> AbstractContextManager[None]:
        """Statements within take about so many of SQLite's instructions together, or raise ``TooCostly``."""

    def walk(self, sql: str, most: int = 2000) -> Iterator[Any]:
        """The rows of a statement that may find any number, at most ``most`` of them in memory; within a snapshot."""

    def begin(self) -> None:
        """Begin a transaction that writes."""

    def snapshot(self) -> None:
        """Begin a transaction that sees one state of the database; ended by ``rollback``."""

    def add(self, additions: Additions, *, settles: bool = False) -> None:
        """Write what a log's transaction adds, as the last of it: what else it writes comes before.

        ``settles``: nothing durable stands outside the tables then.
        """

    def commit(self) -> None:
        """Make the transaction durable. Where this raises, it may be so all the same."""

    @property
    def is_behind(self) -> bool:
        """Whether something durable stands in no table yet."""

    def settle(self) -> None:
        """Put it there; outside a transaction."""

    def rollback(self) -> None:
        """End the transaction without effect."""

    def close(self) -> None:
        """Close the connection; an open transaction has no effect."""


def _glob(pattern: str) -> str:
    # Only the star is a wildcard; the other two GLOB knows are taken literally.
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _json_extract(path: str) -> str:
    return f"json_extract(cast(leaf as text), '$.{path}')"


@cache
def _replace(table: str, columns: str) -> str:
    # Not an upsert: one that changes nothing writes nothing, and the gateway asks by such a row whether writing works.
    return f"insert or replace into {table} ({columns}) values ({marks(columns)})"  # noqa: S608 - literals of this package


def write(db: Database, additions: Additions) -> None:
    """Put rows into their tables, in the transaction."""
    for statement, rows in additions.statements(db.dialect.put("checkpoints", CHECKPOINT)):
        db.executemany(statement, rows)


def marks(columns: str) -> str:
    """As many parameters as columns."""
    return ", ".join("?" for _ in columns.split(","))


SQLITE = Dialect(
    like="glob",
    pattern=_glob,
    text=_json_extract,
    number=_json_extract,
    reasons="json_each(cast(leaf as text), '$.body.reasons')",
    greatest="max",
    put=_replace,
)


class SqliteDatabase(sqlite3.Connection):
    """Implements ``Database``, each transaction in its tables; to be opened with ``isolation_level=None``."""

    dialect = SQLITE
    is_behind = False

    @contextmanager
    def bounded(self, steps: int) -> Iterator[None]:
        """See ``Database``."""
        budget = count(1)
        self.set_progress_handler(lambda: next(budget) * _BEAT > steps, _BEAT)
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error) != _INTERRUPTED:
                raise
            raise TooCostly from None
        finally:
            self.set_progress_handler(None, 0)

    def walk(self, sql: str, most: int = 1) -> Iterator[Any]:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Database``."""
        return self.execute(sql)

    def begin(self) -> None:
        """See ``Database``."""
        self.execute("begin immediate")

    def snapshot(self) -> None:
        """See ``Database``."""
        self.execute("begin")

    def add(self, additions: Additions, *, settles: bool = False) -> None:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Database``."""
        write(self, additions)

    def settle(self) -> None:
        """See ``Database``."""
