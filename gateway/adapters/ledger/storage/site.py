"""Where one log is kept, and what only that place has to do: hold it for one writer, order the writers, clean up."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.adapters.ledger.database import Database, Displaced, SqliteDatabase
from gateway.adapters.ledger.storage import files, journaled
from gateway.adapters.ledger.storage.journal import JOURNAL
from gateway.adapters.ledger.storage.places import Places
from gateway.adapters.ledger.storage.span import Span

_MAX_DAMAGES = 20


@dataclass(frozen=True, slots=True)
class End:
    """The end of a log as its writers leave it for each other: the newest checkpoint.

    Attributes:
        note: the signed checkpoint.
        peaks: the tree's right edge, encoded.
        changes: how many erasures there were.
    """

    size: int
    note: str
    peaks: bytes
    span: Span
    changes: int


class Site(Protocol):
    """The place of one log, as one gateway process sees it.

    Attributes:
        name: what people call the place.
        folder: the state folder: keys, and the guard outside the database.
        replica: which of the processes that write the log this is; empty where there can be only one.
        is_local: whether it is a file here that only this process writes.
        unchecked: what a verifier cannot see of such a place.
        sweeps: whether ``sweep`` can ever say that no copy of a destroyed key is left.
    """

    name: str
    folder: Path
    replica: str
    is_local: bool
    unchecked: tuple[str, ...]
    sweeps: bool

    def take(self) -> None:
        """Hold the place.

        Raises:
            StateRefused: another process has it.
        """

    def connect(self) -> Database:
        """The writer's connection, durable at each commit; makes the database where there is none.

        Raises:
            StateRefused: it is no log of this format, or another process writes under this name.
        """

    def reader(self, *, is_hasty: bool = False, is_settled: bool = False) -> Database:
        """A connection that cannot write.

        ``is_hasty``: calls wait for what it answers, so it gives up soon; ``is_settled``: what is asked for stands in
        the tables, so it need not look elsewhere, too, which takes longer with each question.
        """

    def places(self) -> Places | None:
        """Where the processes that write the log count their budgets together; None where there is only one."""

    def problems(self, db: Database) -> list[str]:
        """How the database, in a snapshot, differs from what a gateway makes: tables, and what is beside the log."""

    def check_pages(self) -> list[str]:
        """What the database finds damaged in its own pages; on a connection and in a thread of its own."""

    def joins(self, db: Database, keys: str) -> bool:
        """Whether this process's folder never belonged to this log before, so that it can have no guard of it.

        ``keys``: a keyed hash of the keys that all processes must have in common.

        Raises:
            StateRefused: the log was written with others.
        """

    def starting(self, db: Database) -> AbstractContextManager[None]:
        """One process starts at a time."""

    def begin(self, db: Database, size: int) -> End | None:
        """Begin a transaction that writes; the log's end where another process wrote since it had ``size`` records.

        Raises:
            Displaced: the database is not in its place any more.
        """

    def advance(self, db: Database, end: End) -> None:
        """Leave the end for the next writer, in the transaction."""

    def others(self, db: Database) -> frozenset[str]:
        """The other processes that write the log and live."""

    def orphans(self, db: Database) -> Sequence[str]:
        """Calls under way whose process is dead, in the transaction; their places in budgets are given back."""

    def redeem(self, db: Database, calls: Sequence[str]) -> frozenset[str] | None:
        """Which of the calls still hold their place in a budget, given up in the transaction for their intents.

        None where places are not kept in the database.
        """

    def free_bytes(self) -> int | None:
        """Free space, where that is the gateway's business."""

    def sweep(self, db: Database) -> bool:
        """Clean up after destroyed keys; False where a copy may be left."""

    def release(self) -> None:
        """Let go of the place."""


class Folder:
    """Implements ``Site``: a SQLite database in the state folder, written by one process."""

    replica = ""
    is_local = True
    unchecked: tuple[str, ...] = ()
    sweeps = True

    def __init__(self, folder: Path, database: str = files.DATABASE) -> None:
        self.folder = folder
        self.database = folder / database
        self.name = str(self.database)
        # Asked after with each write.
        self._place, self._watched = str(folder), files.watched(folder)
        self._lock: tuple[int, ...] = ()
        self._opened: files.Standing = []

    def take(self) -> None:
        """See ``Site``."""
        self._lock = files.take_lock(self.folder)

    def connect(self) -> Database:
        """See ``Site``."""
        db = journaled.opened(files.connect(self.folder), self.folder / JOURNAL)
        try:
            self._opened = files.standing(self._watched)
        except BaseException:
            db.close()
            raise
        return db

    def reader(self, *, is_hasty: bool = False, is_settled: bool = False) -> SqliteDatabase:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return files.connect_readonly(self.database, is_settled=is_settled)

    def places(self) -> Places | None:
        """See ``Site``."""
        return None

    def problems(self, db: Database) -> list[str]:
        """See ``Site``."""
        return files.schema_problems(db)

    def check_pages(self) -> list[str]:
        """See ``Site``."""
        with closing(self.reader()) as db:
            said = [str(row[0]) for row in db.execute(f"pragma integrity_check({_MAX_DAMAGES})")]
        return [words for words in said if words != "ok"]

    def joins(self, db: Database, keys: str) -> bool:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return False

    @contextmanager
    def starting(self, db: Database) -> Iterator[None]:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        yield

    def begin(self, db: Database, size: int) -> End | None:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        if not files.stands(self._watched, self._opened):
            raise Displaced(
                f"{self.name}, {files.DATABASE}-wal or {JOURNAL} was moved away, removed or replaced while the gateway "
                "runs"
            )
        db.begin()
        return None

    def advance(self, db: Database, end: End) -> None:
        """See ``Site``."""

    def others(self, db: Database) -> frozenset[str]:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return frozenset()

    def orphans(self, db: Database) -> Sequence[str]:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return ()

    def redeem(self, db: Database, calls: Sequence[str]) -> frozenset[str] | None:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return None

    def free_bytes(self) -> int | None:
        """See ``Site``."""
        return files.free_bytes(self._place)

    def sweep(self, db: Database) -> bool:
        """See ``Site``."""
        return files.sweep(db)

    def release(self) -> None:
        """See ``Site``."""
        files.release_lock(self._lock)
        self._lock = ()


def sited(place: Path | Site) -> Site:
    """A folder (or its database file) as the site of a SQLite log; any other site as it is."""
    if not isinstance(place, Path):
        return place
    return Folder(place.parent, place.name) if place.is_file() else Folder(place)
