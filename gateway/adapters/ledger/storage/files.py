"""The files of one log: the database, its lock, and the guard that betrays a database set back to an older state."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.adapters.ledger.database import Database, DatabaseFault, SqliteDatabase
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage.journal import JOURNAL
from gateway.adapters.ledger.storage.overlay import lay_over
from gateway.core.decision import Effect
from gateway.core.records import EventType

DATABASE = "log.db"
GUARD = "log.guard"
LOCK = "log.lock"
_FORMAT, _FORMER = 6, 5
_APPLICATION_ID = 0x4F737479
_BUSY_S = 5.0
_MAKE_WRITABLE = "the gateway's user must be able to write the folder and every file in it"
# Pages of the write-ahead log before they move into the database: the same few pages are written by every commit, and
# moving them once serves them all. 32 MiB at most, read again after a crash in a fraction of a second.
_WAL_PAGES = 8_000
_PAGE = 4096
# The writer's pages in memory, KiB: a commit touches some two hundred, mostly the same as the one before. With SQLite's
# own 2000 each would read a dozen of them again.
_CACHE_KIB = 4000

# Each index is another page to write with each commit. What most records have in common needs none: whoever looks for
# it finds it wherever they look. A query that is to use one of these has its condition in the very same words. The
# index on tools takes records without one, too, or refusing a hidden tool would take longer than refusing no tool.
COMMON_TYPES = (EventType.DECISION, EventType.TOOL_REQUESTED, EventType.TOOL_COMPLETED)
# One by one: of a list of three SQLite builds a table with each record that is written, only to look whether the index
# takes the record.
RARE_TYPE = " and ".join(f"type <> '{kind}'" for kind in COMMON_TYPES)
# The reason almost every allowed call has; the list of reasons leaves it out.
COMMON_REASON = "scope.granted"
RARE_EFFECT = f"effect <> '{Effect.ALLOW}'"
# As it stood in the format before; all else was the same.
_FORMER_RARE_TYPE = "type not in ('{}', '{}', '{}')".format(*COMMON_TYPES)
_TYPE_INDEX = "create index records_type on records (type) where"

_SCHEMA = f"""
begin;
create table records (
  idx integer primary key,
  id text not null,
  leaf blob not null,
  hash blob not null,
  ts integer not null,
  type text not null,
  run_id text,
  seq_run integer,
  call_id text,
  tool text,
  effect text,
  agent text
) strict;
create unique index records_run on records (run_id, seq_run) where run_id is not null;
create index records_call on records (call_id) where call_id is not null;
{_TYPE_INDEX} {RARE_TYPE};
create index records_tool on records (tool);
create index records_effect on records (effect) where {RARE_EFFECT};
create index records_request on records (agent, ts) where type = '{EventType.TOOL_REQUESTED}';
create index records_agent on records (agent) where agent is not null;
create table payloads (pid integer primary key, sealed blob not null) strict;
create table deks (id text primary key, wrapped blob not null) strict, without rowid;
create table erased (key text primary key, idx integer not null) strict, without rowid;
create table holds (target text primary key, idx integer not null, id text not null) strict, without rowid;
create table nodes (level integer, place integer, hash blob not null, primary key (level, place)) strict, without rowid;
create table checkpoints (
  win integer primary key,
  size integer not null,
  high_us integer not null,
  low_us integer not null,
  note text not null,
  peaks blob not null
) strict;
create table reasons (reason text, idx integer, primary key (reason, idx)) strict, without rowid;
create table intents (call_id text primary key, idx integer not null, replica text not null) strict, without rowid;
create table open_runs (run_id text primary key, binding text unique) strict, without rowid;
create table approvals (
  id text primary key,
  action text not null,
  state text not null,
  idx integer not null,
  at_us integer not null,
  expires_us integer not null,
  call_id text
) strict, without rowid;
create unique index approvals_open on approvals (action) where state in ('pending', 'approved', 'executing');
pragma application_id = {_APPLICATION_ID};
pragma user_version = {_FORMAT};
commit;
"""
_FORMER_SCHEMA = _SCHEMA.replace(RARE_TYPE, _FORMER_RARE_TYPE).replace(
    f"user_version = {_FORMAT}", f"user_version = {_FORMER}"
)
_RENEWAL = f"""
begin immediate;
drop index records_type;
{_TYPE_INDEX} {RARE_TYPE};
pragma user_version = {_FORMAT};
commit;
"""

Standing = list[tuple[int, int]]

_MARKS = ("application_id", "user_version")
# Checkpoints are thinned to the newest of each window of this many records: enough to say where a log was altered.
# With each stand the latest time of any record up to it, and the earliest of those since the one before it: where a
# search by time begins and ends, though clocks are set back.
CHECKPOINT_WINDOW = 256


def take_lock(folder: Path) -> tuple[int, ...]:
    """Hold the folder for this process alone; returns the descriptors that hold it.

    A file can be removed, and a second gateway would lock another one of the same name: the folder itself is held, too.

    Raises:
        StateRefused: another gateway holds it.
    """
    descriptors = (
        os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
        os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600),
    )
    try:
        for descriptor in descriptors:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        release_lock(descriptors)
        raise StateRefused(f"another gateway is using the state folder {folder}: stop it first") from None
    return descriptors


def release_lock(descriptors: Sequence[int]) -> None:
    """Let go of what ``take_lock`` returned."""
    for descriptor in descriptors:
        os.close(descriptor)


def watched(folder: Path) -> tuple[str, ...]:
    """The files a log is written to, as text: a path that is put together takes longer than to look at it."""
    return tuple(str(folder / name) for name in (DATABASE, f"{DATABASE}-wal", JOURNAL))


def standing(paths: Sequence[str]) -> Standing:
    """Which files stand there: device and number, in a tuple each.

    Raises:
        OSError: one is not there.
    """
    return [(state.st_dev, state.st_ino) for state in map(os.stat, paths)]


def stands(paths: Sequence[str], before: Standing) -> bool:
    """Whether the same files stand there as ``before``."""
    try:
        return standing(paths) == before
    except OSError:
        return False


def connect(folder: Path) -> SqliteDatabase:
    """The writer's connection: durable at each commit. Makes the database where there is none.

    Raises:
        StateRefused: the file is no log of this format.
        sqlite3.Error: it cannot be opened.
    """
    path = folder / DATABASE
    # Made here, so that it is never readable by others, not even for a moment.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, factory=SqliteDatabase)
    try:
        db.execute("pragma journal_mode = wal")
        db.execute(f"pragma cache_size = -{_CACHE_KIB}")
        _make_durable(db)
        if is_new(db):
            db.executescript(_SCHEMA)
        else:
            check_format(db, path)
            if _version(db) == _FORMER:
                db.executescript(_RENEWAL)
    except BaseException:
        db.close()
        raise
    return db


def connect_beside(folder: Path) -> SqliteDatabase:
    """Another connection that writes, in the process that has the writer's. No file but SQLite's own is opened.

    Closing one would let go of all locks that this process has on the database.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    url = (folder / DATABASE).absolute().as_uri() + "?mode=rw"
    db = sqlite3.connect(
        url, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True, factory=SqliteDatabase
    )
    _make_durable(db)
    return db


def _make_durable(db: SqliteDatabase) -> None:
    db.execute("pragma synchronous = full")
    # What is deleted is overwritten: a destroyed data key must not be found in the free parts of the file.
    db.execute("pragma secure_delete = on")
    db.execute(f"pragma wal_autocheckpoint = {_WAL_PAGES}")


def connect_readonly(path: Path, *, is_settled: bool = False) -> SqliteDatabase:
    """A connection that cannot change anything; works on a running log, a stopped one and a copy on read-only media.

    It sees what the log's journal holds when it is opened, and what stands in the tables at any time; only the latter
    where the one ``is_settled``: whoever asks has all that matters put there first.

    Raises:
        FAULTS: it cannot be opened.
    """
    url = path.absolute().as_uri() + "?mode=ro"
    # Without a write-ahead log there is nothing to share, and opening one would need a writable folder.
    if not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK):
        url += "&immutable=1"
    db = sqlite3.connect(
        url, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True, factory=SqliteDatabase
    )
    try:
        if not is_settled:
            lay_over(db, path.with_name(JOURNAL))
    except BaseException:
        db.close()
        raise
    return db


def unopened(folder: Path, error: Exception) -> str:
    """Why the log in ``folder`` could not be opened, and what to do."""
    if isinstance(error, OSError):
        return f"the log in {folder} cannot be opened: {error.strerror}: {error.filename}; {_MAKE_WRITABLE}"
    if isinstance(error, DatabaseFault):
        return f"the log cannot be opened: {error}"
    if "readonly" in str(error) or "unable to open" in str(error):
        return f"the log in {folder} cannot be opened: {error}; {_MAKE_WRITABLE}"
    if "full" in str(error) or "disk I/O" in str(error):
        return f"the log in {folder} cannot be opened: {error}; make room on its disk, and look whether it is sound"
    return (
        f"the log in {folder} cannot be opened: {error}; keep a copy, see what `ostiary audit verify` still reads, and "
        f"restore {DATABASE}, {DATABASE}-wal, {JOURNAL} and {GUARD} of one backup"
    )


def schema_problems(db: Database) -> list[str]:
    """How a log's database differs from one this version makes: tables, indexes, triggers, views, format."""
    fresh = sqlite3.connect(":memory:")
    try:
        fresh.executescript(_FORMER_SCHEMA if _version(db) == _FORMER else _SCHEMA)
        expected = _declared(fresh)
    finally:
        fresh.close()
    found = _declared(db)
    problems = [f"{kind} {name} is not part of a log" for kind, name in sorted(found.keys() - expected.keys())]
    problems += [f"{kind} {name} is missing" for kind, name in sorted(expected.keys() - found.keys())]
    problems += [
        f"{kind} {name} was altered"
        for kind, name in sorted(expected.keys() & found.keys())
        if expected[kind, name] != found[kind, name]
    ]
    return problems


def _declared(db: Database | sqlite3.Connection) -> dict[tuple[str, str], tuple[object, ...]]:
    rows = db.execute("select type, name, tbl_name, sql from sqlite_master").fetchall()
    marks = [("format", str(db.execute(f"pragma {name}").fetchone()[0]), name) for name in _MARKS]
    return {(str(row[0]), str(row[1])): tuple(row[2:]) for row in [*rows, *marks]}


def sweep(db: Database) -> bool:
    """Move the write-ahead log into the database and empty it; False where a reader is in the way right now.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    db.execute("pragma busy_timeout = 0")
    try:
        (is_busy, _, _) = db.execute("pragma wal_checkpoint(truncate)").fetchone()
    finally:
        db.execute(f"pragma busy_timeout = {int(_BUSY_S * 1000)}")
    return not is_busy


def read_guard(folder: Path) -> str | None:
    """The last checkpoint noted outside the database, a note to be checked; or None where there is none.

    Raises:
        StateRefused: it cannot be read.
    """
    path = folder / GUARD
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateRefused(
            f"the rollback guard {path} cannot be used: {error}; put {DATABASE}, {GUARD} and keys/ of one gateway back"
        ) from None


def write_guard(folder: Path, note: str) -> None:
    """Replace the guard, atomically.

    Raises:
        OSError: it cannot be written.
    """
    temporary = folder / f"{GUARD}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with contextlib.closing(os.fdopen(descriptor, "wb")) as file:
        file.write(note.encode())
        file.flush()
        os.fsync(descriptor)
    temporary.replace(folder / GUARD)


def free_bytes(folder: str) -> int:
    """Bytes the file system of ``folder`` still has for us."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def is_new(db: Database) -> bool:
    """Whether nothing was ever put into the database: a first start may have been killed before it was made."""
    (found,) = db.execute("select count(*) from sqlite_master").fetchone()
    return bool(_version(db) == 0 and found == 0)


def _version(db: Database) -> int:
    (version,) = db.execute("pragma user_version").fetchone()
    return int(version)


def is_unborn(folder: Path) -> bool:
    """Whether whoever began to make the database was killed before it was one; who may write undoes it on opening it.

    Nothing can be in it: it has one page at most and no write-ahead log. Later there is never a rollback journal.
    """
    path = folder / DATABASE
    return (
        path.with_name(f"{DATABASE}-journal").exists()
        and not path.with_name(f"{DATABASE}-wal").exists()
        and path.stat().st_size <= _PAGE
    )


def check_format(db: Database, path: Path) -> None:
    """Whether this version knows the database in ``path``, in this format or the one before.

    Raises:
        StateRefused: it does not.
    """
    (mark,) = db.execute("pragma application_id").fetchone()
    if mark != _APPLICATION_ID or _version(db) not in {_FORMAT, _FORMER}:
        raise StateRefused(
            f"{path} is not a log this version can read: use another state folder, or the version that wrote it"
        )
