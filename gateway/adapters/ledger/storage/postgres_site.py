"""A log in PostgreSQL, written by any number of gateway processes: one row is the sequencer they take turns with.

Each process holds a session's advisory lock, as proof that it lives, on the very connection it writes with: a process
that lost the lock cannot write either, and takes everything anew before it writes again. Whoever can have the lock of
another one may end what that one left open.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.adapters.ledger.database import Database, DatabaseFault
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage import files, postgres_schema
from gateway.adapters.ledger.storage.lives import LIVES, LIVING
from gateway.adapters.ledger.storage.postgres_database import (
    COMMAND_S,
    QUESTION_S,
    READS_ONLY,
    SCHEMA,
    PostgresDatabase,
    Server,
)
from gateway.adapters.ledger.storage.postgres_places import PostgresPlaces
from gateway.adapters.ledger.storage.site import End
from gateway.adapters.ledger.storage.span import Span

REPLICA = "replica.id"
_ID_SIZE = 8
# Of the advisory locks that are lives of replicas, number 0 is nobody's life but the turn to start.
_STARTS = 0
_LIFE = f"select pg_advisory_lock({LIVES}, cast(num as int)) from replicas where id = ?"  # noqa: S608 - literals only
_DEAD = f"""
with left_over as materialized (
  select id, num from replicas r where id <> ? and (
    exists (select 1 from intents where replica = r.id) or exists (select 1 from reservations where replica = r.id)
  )
) select id from left_over where pg_try_advisory_xact_lock({LIVES}, cast(num as int))
"""  # noqa: S608 - literals only
_JOIN = """
insert into replicas select (select coalesce(max(num), 0) + 1 from replicas), ?, false
  where not exists (select 1 from replicas where id = ?)
"""
_END = "select format, size, note, peaks, win, high_us, low_us, changes from sequencer where id = 1"
_ADVANCE = """
update sequencer set size = ?, note = ?, peaks = ?, win = ?, high_us = ?, low_us = ?, changes = ? where id = 1
"""
_REDEEM = "delete from reservations where replica = ? and call_id = any(?) returning call_id"


class PostgresSite:
    """Implements ``site.Site``."""

    is_local = False
    sweeps = False
    unchecked: tuple[str, ...] = (
        "whether the server's pages are sound: where its cluster has data checksums, it checks what it reads",
    )

    def __init__(self, folder: Path, target: Server) -> None:
        """``folder``: the state folder of this process alone; its name among the replicas is kept there."""
        self.folder = folder
        self.target = target
        self.name = target.name
        self.replica = ""
        self._joins = False
        self._has_started = False
        self._lock: tuple[int, ...] = ()

    def take(self) -> None:
        """See ``Site``."""
        self._lock = files.take_lock(self.folder)
        self.replica = _own_name(self.folder / REPLICA)

    def connect(self) -> Database:
        """See ``Site``."""
        db = PostgresDatabase(self.target)
        try:
            self._furnish(db)
            self._live(db)
        except BaseException:
            db.close()
            raise
        return db

    def reader(self, *, is_hasty: bool = False, is_settled: bool = False) -> Database:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Site``."""
        return PostgresDatabase(self.target, READS_ONLY, COMMAND_S if is_hasty else QUESTION_S)

    def places(self) -> PostgresPlaces:
        """See ``Site``."""
        return PostgresPlaces(self.target, self.replica)

    def problems(self, db: Database) -> list[str]:
        """See ``Site``."""
        said = postgres_schema.problems(db)
        newest = "select size, note, peaks, win, high_us, low_us from checkpoints order by win desc limit 1"
        (_, *ends, _), newest_ends = db.execute(_END).fetchone(), db.execute(newest).fetchone()
        if newest_ends is not None and tuple(ends) != newest_ends:
            said.append("the sequencer does not end where the newest checkpoint does")
        return said

    def check_pages(self) -> list[str]:
        """See ``Site``."""
        return []  # the server's business: it checks each page it reads, where its cluster has data checksums

    def joins(self, db: Database, keys: str) -> bool:
        """See ``Site``."""
        db.execute("update sequencer set keys = ? where id = 1 and keys = ''", (keys,))
        if db.execute("select keys from sequencer where id = 1").fetchone() != (keys,):
            raise StateRefused(
                f"the keys in {self.folder / 'keys'} are not those of the log in {self.name}: copy the folder keys of "
                "a gateway that writes to it"
            )
        return self._is_new(db)

    def _is_new(self, db: Database) -> bool:
        (joined,) = db.execute("select joined from replicas where id = ?", (self.replica,)).fetchone()
        # Also where a start was broken off before its first transaction.
        return not joined

    @contextmanager
    def starting(self, db: Database) -> Iterator[None]:
        """See ``Site``."""
        try:
            db.execute(f"select pg_advisory_lock({LIVES}, {_STARTS})")
        except DatabaseFault as error:
            if not _is_timeout(error):
                raise
            raise StateRefused(
                f"another gateway is starting on {self.name} and does not go on: see to it, or end it, and start again"
            ) from error
        try:
            yield
        finally:
            with suppress(DatabaseFault):  # then it went with its session
                db.execute(f"select pg_advisory_unlock({LIVES}, {_STARTS})")

    def begin(self, db: Database, size: int) -> End | None:
        """See ``Site``."""
        db.begin()
        (_, now, note, peaks, *span, changes) = db.execute(f"{_END} for update").fetchone()
        return None if now == size else End(now, note, peaks, Span(*span), changes)

    def advance(self, db: Database, end: End) -> None:
        """See ``Site``."""
        span = end.span
        row = (end.size, end.note, end.peaks, span.window, span.high_us, span.low_us, end.changes)
        db.execute(_ADVANCE, row)
        if self._joins:
            db.execute("update replicas set joined = true where id = ?", (self.replica,))
            self._joins = False

    def others(self, db: Database) -> frozenset[str]:
        """See ``Site``."""
        return frozenset(name for (name,) in db.execute(LIVING, (self.replica,)))

    def orphans(self, db: Database) -> Sequence[str]:
        """See ``Site``."""
        dead = [name for (name,) in db.execute(_DEAD, (self.replica,))]
        if not dead:
            return ()
        db.execute("delete from reservations where replica = any(?)", (dead,))
        return [call_id for (call_id,) in db.execute("select call_id from intents where replica = any(?)", (dead,))]

    def redeem(self, db: Database, calls: Sequence[str]) -> frozenset[str] | None:
        """See ``Site``."""
        if not calls:
            return frozenset()
        return frozenset(call_id for (call_id,) in db.execute(_REDEEM, (self.replica, list(calls))))

    def free_bytes(self) -> int | None:
        """See ``Site``."""
        return None  # the database server's business; when it is full, it says so

    def sweep(self, db: Database) -> bool:
        """See ``Site``."""
        db.execute("vacuum deks")
        return True

    def release(self) -> None:
        """See ``Site``."""
        files.release_lock(self._lock)
        self._lock = ()

    def _furnish(self, db: PostgresDatabase) -> None:
        if db.execute("select to_regclass(?)", (f"{SCHEMA}.sequencer",)).fetchone() == (None,):
            with self.starting(db):
                if db.execute("select to_regclass(?)", (f"{SCHEMA}.sequencer",)).fetchone() == (None,):
                    db.script(postgres_schema.script())
        (version, *_) = db.execute(_END).fetchone() or (None,)
        if version != postgres_schema.FORMAT:
            raise StateRefused(
                f"{self.target.name} holds no log this version can read: use another database, or the version that "
                "wrote it"
            )

    def _live(self, db: PostgresDatabase) -> None:
        # Who only lost its session does not wait for others that start.
        if db.execute("select 1 from replicas where id = ?", (self.replica,)).fetchone() is None:
            with self.starting(db):
                db.execute(_JOIN, (self.replica, self.replica))
        self._joins = self._is_new(db)
        try:
            db.execute(_LIFE, (self.replica,))
        except DatabaseFault as error:
            if not _is_timeout(error):
                raise
            raise StateRefused(
                f"another gateway writes to {self.target.name} as replica {self.replica}: stop it first; a state "
                f"folder that was copied needs a name of its own: delete {self.folder / REPLICA}"
            ) from error
        if not self._has_started:  # what the process before this one held nobody will give back
            db.execute("delete from reservations where replica = ?", (self.replica,))
            self._has_started = True


def _is_timeout(error: DatabaseFault) -> bool:
    # Whatever else it is, nobody holds the lock.
    return "lock timeout" in str(error)


def _own_name(path: Path) -> str:
    try:
        name = path.read_text("ascii").strip()
    except FileNotFoundError:
        name = os.urandom(_ID_SIZE).hex()
        beside = path.with_name(f"{path.name}.new")  # a kill leaves a name or none, never half of one
        beside.write_text(f"{name}\n", "ascii")
        beside.replace(path)
    if len(name) != 2 * _ID_SIZE or not name.isalnum():
        raise StateRefused(f"{path} is not the name of a replica: delete it, and this gateway joins under a new one")
    return name
