"""Where the log ends: read from the database when the gateway starts or recovers, and checked before it is built on."""

from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.files import (
    CHECKPOINT_WINDOW,
    DATABASE,
    GUARD,
    check_format,
    connect_readonly,
    is_new,
    read_guard,
)
from gateway.adapters.ledger.keys import PAYLOAD_KEK, LogKeys, StateRefused
from gateway.adapters.ledger.sealing import SealBroken, unwrap
from gateway.adapters.ledger.site import End
from gateway.adapters.ledger.span import Span
from gateway.core.tlog import Checkpoint, Frontier, NoteError, VerifierKey, leaf_hash, open_checkpoint

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
    """

    frontier: Frontier
    note: str
    open_calls: set[str]
    span: Span


def load(db: Database, key: VerifierKey, replica: str = "") -> Tail:
    """The end of the log, checked: signature, root and the records since the checkpoint before.

    ``db`` is in a snapshot, or nobody else writes. The open calls are those of ``replica``.

    Raises:
        StateRefused: the log was altered, cut short or signed by another key.
        FAULTS: it cannot be read.
    """
    (stored,) = db.execute("select coalesce(max(idx) + 1, 0) from records").fetchone()
    row = db.execute(
        "select size, note, peaks, win, high_us, low_us from checkpoints order by win desc limit 1"
    ).fetchone()
    if row is None:
        if stored:
            raise StateRefused(f"the log has records but no checkpoint: it was altered; {_RESTORE}")
        return Tail(Frontier(), "", set(), Span())
    frontier = _signed_frontier(row[:3], key)
    if frontier.size != stored:
        raise StateRefused(
            f"the log has {stored} records where {frontier.size} were signed: it was altered; {_RESTORE}"
        )
    before = _extended(db, max(0, (frontier.size // CHECKPOINT_WINDOW) * CHECKPOINT_WINDOW - 1), frontier.size, key)
    if before.peaks != frontier.peaks:
        raise StateRefused(f"the newest records are not the signed ones: the log was altered; {_RESTORE}")
    calls = {call_id for (call_id,) in db.execute("select call_id from intents where replica = ?", (replica,))}
    return Tail(frontier, row[1], calls, Span(*row[3:]))


def follow(tail: Tail, end: End, key: VerifierKey) -> None:
    """Go on where another replica ended, by the checkpoint it signed.

    Raises:
        StateRefused: it is not signed, or the log is behind what was written before.
    """
    if end.size < tail.frontier.size:
        raise StateRefused(f"the log has {end.size} records where there were {tail.frontier.size}: it was set back")
    if not end.size:
        return
    tail.frontier = _signed_frontier((end.size, end.note, end.peaks), key)
    tail.note, tail.span = end.note, end.span


def _check_kek(db: Database, kek: bytes) -> None:
    # With another key file nothing of what was sealed could be read. One broken data key is its run's trouble only.
    found = db.execute("select id, wrapped from deks order by id desc limit ?", (_TRIED_KEYS,)).fetchall()
    for dek_id, wrapped in found:
        with suppress(SealBroken):
            unwrap(kek, dek_id, wrapped)
            return
    if found:
        raise StateRefused(f"the key {PAYLOAD_KEK} opens none of the log's data keys: put the one of this log back")


def look(folder: Path, keys: LogKeys) -> None:
    """Check the log in ``folder`` without being able to change it.

    What is refused must stay as it is, for whoever has to find out: a connection that can write moves the write-ahead
    log into the database as it is closed, whatever is wrong with the one or the other.

    Raises:
        StateRefused: it was altered, cut short or set back, or is not of these keys.
        FAULTS: it cannot be read.
    """
    path, key = folder / DATABASE, keys.signer.key
    guard = read_guard(folder, key)
    if not path.exists():
        check_guard(None, Tail(Frontier(), "", set(), Span()), guard, key)
        return
    with closing(connect_readonly(path)) as db:
        if is_new(db):
            check_guard(None, Tail(Frontier(), "", set(), Span()), guard, key)
            return
        check_format(db, path)
        check_guard(db, load(db, key), guard, key)
        _check_kek(db, keys.kek)


def check_guard(db: Database | None, tail: Tail, guard: Checkpoint | None, key: VerifierKey) -> None:
    """Compare the log (None: an empty one) with what was last noted outside it; a log that is ahead is fine.

    Raises:
        StateRefused: the log is behind, or another history; or the guard is gone while the log is not.
    """
    if guard is None:
        if tail.frontier.size:
            raise StateRefused("the rollback guard log.guard is missing: restore it together with the log")
        return
    if tail.frontier.size < guard.size:
        raise StateRefused(
            f"the log has {tail.frontier.size} records but {guard.size} were signed: an older state was put back, or "
            f"{DATABASE}-wal was taken away; put the newest {DATABASE} and {DATABASE}-wal back (in PostgreSQL: the "
            "newest state)"
        )
    if db is not None and _extended(db, guard.size, guard.size, key).root() != guard.root:
        raise StateRefused(
            "the log is not a continuation of what was signed before: another history was put in place; put "
            f"{DATABASE} and {GUARD} of the same log back"
        )


def _extended(db: Database, known: int, size: int, key: VerifierKey) -> Frontier:
    # From the newest signed checkpoint of at most `known` records on, by the stored bytes, up to `size`.
    row = db.execute(
        "select size, note, peaks from checkpoints where size <= ? order by win desc limit 1", (known,)
    ).fetchone()
    frontier = Frontier() if row is None else _signed_frontier(row, key)
    for (entry,) in db.execute(
        "select leaf from records where idx >= ? and idx < ? order by idx", (frontier.size, size)
    ):
        frontier.append(leaf_hash(entry))
    return frontier


def _signed_frontier(row: tuple[int, str, bytes], key: VerifierKey) -> Frontier:
    size, note, peaks = row
    try:
        checkpoint = open_checkpoint(note, key)
        frontier = Frontier.decode(size, peaks)
    except NoteError as error:
        raise StateRefused(
            f"the log's checkpoint at {size} cannot be used: {error}; log and keys do not belong together, or it was "
            f"altered: put {DATABASE}, {GUARD} and keys/ of one gateway back"
        ) from None
    if checkpoint.size != size or checkpoint.root != frontier.root():
        raise StateRefused(f"the log's checkpoint at {size} does not fit its tree: it was altered; {_RESTORE}")
    return frontier
