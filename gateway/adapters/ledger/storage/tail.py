"""Where the log ends: read from the database when the gateway starts or recovers, and checked before it is built on."""

from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import PAYLOAD_KEK, PSEUDONYM_KEY, LogKeys
from gateway.adapters.ledger.keyring.sealing import PayloadKey, SealBroken, unwrap
from gateway.adapters.ledger.storage import kill_records
from gateway.adapters.ledger.storage.files import (
    CHECKPOINT_WINDOW,
    DATABASE,
    GUARD,
    check_format,
    connect_readonly,
    is_new,
    is_unborn,
    read_guard,
)
from gateway.adapters.ledger.storage.journal import JOURNAL, log_size
from gateway.adapters.ledger.storage.key_records import history_of
from gateway.adapters.ledger.storage.site import End
from gateway.adapters.ledger.storage.span import Span
from gateway.core.log_keys import KeyHistory, KeyRefused
from gateway.core.tlog import Checkpoint, Frontier, NoteError, VerifierKey, leaf_hash, split_note

_RESTORE = "see what `ostiary audit verify` says, and restore it from a backup"
_TRIED_KEYS = 8


@dataclass(slots=True)
class Tail:
    """What the next record builds on.

    Attributes:
        frontier: the tree's right edge.
        note: the newest signed checkpoint; empty for an empty log.
        open_calls: calls of this replica whose intent has not ended.
        span: the times of the records.
        history: the keys that signed, and those that sign.
        kills: what is stopped.
    """

    frontier: Frontier
    note: str
    open_calls: set[str]
    span: Span
    history: KeyHistory
    kills: kill_records.Stands = field(default_factory=dict)


def load(db: Database, first: VerifierKey, replica: str = "") -> Tail:
    """The end of the log that ``first`` names, checked: signatures, root and the records since the checkpoint before.

    ``db`` is in a snapshot, or nobody else writes. The open calls are those of ``replica``.

    Raises:
        StateRefused: the log was altered, cut short or signed by another key.
        FAULTS: it cannot be read.
    """
    stored = log_size(db)
    row = db.execute(
        "select size, note, peaks, win, high_us, low_us from checkpoints order by win desc limit 1"
    ).fetchone()
    if row is None:
        if stored:
            raise StateRefused(f"the log has records but no checkpoint: it was altered; {_RESTORE}")
        return Tail(Frontier(), "", set(), Span(), KeyHistory.begun(first))
    history = keys_of(db, first)
    frontier = _signed_frontier(row[:3], history)
    if frontier.size != stored:
        raise StateRefused(
            f"the log has {stored} records where {frontier.size} were signed: it was altered; {_RESTORE}"
        )
    before = _extended(db, max(0, (frontier.size // CHECKPOINT_WINDOW) * CHECKPOINT_WINDOW - 1), frontier.size, history)
    if before.peaks != frontier.peaks:
        raise StateRefused(f"the newest records are not the signed ones: the log was altered; {_RESTORE}")
    calls = {call_id for (call_id,) in db.execute("select call_id from intents where replica = ?", (replica,))}
    return Tail(frontier, row[1], calls, Span(*row[3:]), history, kill_records.load(db))


def keys_of(db: Database, first: VerifierKey) -> KeyHistory:
    """The keys of the log that ``first`` names, as its records tell.

    Raises:
        StateRefused: they cannot be used.
    """
    try:
        return history_of(db, first)
    except KeyRefused as error:
        raise StateRefused(
            f"the log's records of its keys cannot be used: {error}; put {DATABASE}, {GUARD} and keys/ of one gateway "
            f"back, or {_RESTORE}"
        ) from None


def follow(tail: Tail, end: End) -> None:
    """Go on where another replica ended, by the checkpoint it signed; ``tail.history`` knows its keys already.

    Raises:
        StateRefused: it is not signed, or the log is behind what was written before.
    """
    if end.size < tail.frontier.size:
        raise StateRefused(f"the log has {end.size} records where there were {tail.frontier.size}: it was set back")
    if not end.size:
        return
    tail.frontier = _signed_frontier((end.size, end.note, end.peaks), tail.history)
    tail.note, tail.span = end.note, end.span


def _check_kek(db: Database, kek: PayloadKey) -> None:
    # With another key file nothing of what was sealed could be read. One broken data key is its run's trouble only.
    found = db.execute("select id, wrapped from deks order by id desc limit ?", (_TRIED_KEYS,)).fetchall()
    for dek_id, wrapped in found:
        with suppress(SealBroken):
            unwrap(kek, dek_id, wrapped)
            return
    if found:
        raise StateRefused(f"the key {PAYLOAD_KEK} opens none of the log's data keys: put the one of this log back")


def _check_others(db: Database, keys: LogKeys) -> None:
    # With another one, names would become other pseudonyms: what is stopped, held or bound by one would be so no more.
    row = db.execute("select leaf from records where idx = 0").fetchone()
    said = None if row is None else msgspec.json.decode(row[0])["body"].get("others")
    if said not in {None, keys.lasting}:
        raise StateRefused(f"the key {PSEUDONYM_KEY} is not the one of this log: put the one of this log back")


def look(folder: Path, keys: LogKeys) -> None:
    """Check the log in ``folder`` without being able to change it.

    What is refused must stay as it is, for whoever has to find out: a connection that can write moves the write-ahead
    log into the database as it is closed, whatever is wrong with the one or the other.

    Raises:
        StateRefused: it was altered, cut short or set back, or is not of these keys.
        FAULTS: it cannot be read.
    """
    path = folder / DATABASE
    guard, nothing = read_guard(folder), Tail(Frontier(), "", set(), Span(), KeyHistory.begun(keys.name))
    if not path.exists() or is_unborn(folder):
        check_guard(None, nothing, guard)
        return
    with closing(connect_readonly(path)) as db:
        if is_new(db):
            check_guard(None, nothing, guard)
            return
        check_format(db, path)
        end = load(db, keys.name)
        check_guard(db, end, guard)
        keys.ring.settle(end.history)
        _check_kek(db, keys.kek)
        _check_others(db, keys)


def check_guard(db: Database | None, tail: Tail, note: str | None) -> None:
    """Compare the log (None: an empty one) with what was last noted outside it, by the keys that signed then.

    A log that is ahead is fine.

    Raises:
        StateRefused: the log is behind, or another history; or the guard is gone while the log is not.
    """
    if note is None:
        if tail.frontier.size:
            raise StateRefused("the rollback guard log.guard is missing: restore it together with the log")
        return
    guard = _guard(note, tail)
    if tail.frontier.size < guard.size:
        raise StateRefused(
            f"the log has {tail.frontier.size} records but {guard.size} were signed: an older state was put back, or "
            f"{DATABASE}-wal or {JOURNAL} was taken away; put the newest {DATABASE}, {DATABASE}-wal and {JOURNAL} back "
            "(in PostgreSQL: the newest state)"
        )
    if db is not None and _extended(db, guard.size, guard.size, tail.history).root() != guard.root:
        raise StateRefused(
            "the log is not a continuation of what was signed before: another history was put in place; put "
            f"{DATABASE} and {GUARD} of the same log back"
        )


def _guard(note: str, tail: Tail) -> Checkpoint:
    try:
        unproven = Checkpoint.parse(split_note(note)[0])
        # A log that was set back to before a new key was added does not know who signed this: it is behind all the
        # same, and refused for that.
        is_behind = unproven.origin == tail.history.first.name and unproven.size > tail.frontier.size
        return unproven if is_behind else tail.history.open(note)
    except NoteError as error:
        raise StateRefused(
            f"the rollback guard {GUARD} cannot be used: {error}; put {DATABASE}, {GUARD} and keys/ of one gateway back"
        ) from None


def _extended(db: Database, known: int, size: int, history: KeyHistory) -> Frontier:
    # From the newest signed checkpoint of at most `known` records on, by the stored bytes, up to `size`.
    row = db.execute(
        "select size, note, peaks from checkpoints where size <= ? order by win desc limit 1", (known,)
    ).fetchone()
    frontier = Frontier() if row is None else _signed_frontier(row, history)
    for (entry,) in db.execute(
        "select leaf from records where idx >= ? and idx < ? order by idx", (frontier.size, size)
    ):
        frontier.append(leaf_hash(entry))
    return frontier


def _signed_frontier(row: tuple[int, str, bytes], history: KeyHistory) -> Frontier:
    size, note, peaks = row
    try:
        checkpoint = history.open(note)
        frontier = Frontier.decode(size, peaks)
    except NoteError as error:
        raise StateRefused(
            f"the log's checkpoint at {size} cannot be used: {error}; log and keys do not belong together, or it was "
            f"altered: put {DATABASE}, {GUARD} and keys/ of one gateway back"
        ) from None
    if checkpoint.size != size or checkpoint.root != frontier.root():
        raise StateRefused(f"the log's checkpoint at {size} does not fit its tree: it was altered; {_RESTORE}")
    return frontier
