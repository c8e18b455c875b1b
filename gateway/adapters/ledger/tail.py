"""Where the log ends: read from the database when the gateway starts or recovers, and checked before it is built on."""

import sqlite3
from dataclasses import dataclass

from gateway.adapters.ledger.files import CHECKPOINT_WINDOW
from gateway.adapters.ledger.keys import StateRefused
from gateway.adapters.ledger.span import Span
from gateway.core.tlog import Checkpoint, Frontier, NoteError, VerifierKey, leaf_hash, open_checkpoint


@dataclass(slots=True)
class Tail:
    """What the next record builds on.

    Attributes:
        frontier: the tree's right edge.
        note: the newest signed checkpoint; empty for an empty log.
        open_calls: calls whose intent has not ended.
        span: the times of the records.
    """

    frontier: Frontier
    note: str
    open_calls: set[str]
    span: Span


def load(db: sqlite3.Connection, key: VerifierKey) -> Tail:
    """The end of the log, checked: signature, root and the records since the checkpoint before.

    Raises:
        StateRefused: the log was altered, cut short or signed by another key.
        sqlite3.Error: it cannot be read.
    """
    (stored,) = db.execute("select coalesce(max(idx) + 1, 0) from records").fetchone()
    row = db.execute(
        "select size, note, peaks, win, high_us, low_us from checkpoints order by win desc limit 1"
    ).fetchone()
    if row is None:
        if stored:
            raise StateRefused("the log has records but no checkpoint: it was altered; restore it from a backup")
        return Tail(Frontier(), "", set(), Span())
    frontier = _signed_frontier(row[:3], key)
    if frontier.size != stored:
        raise StateRefused(f"the log has {stored} records where {frontier.size} were signed: it was altered")
    before = _extended(db, max(0, (frontier.size // CHECKPOINT_WINDOW) * CHECKPOINT_WINDOW - 1), frontier.size, key)
    if before.peaks != frontier.peaks:
        raise StateRefused("the newest records are not the signed ones: run `ostiary audit verify`")
    calls = {call_id for (call_id,) in db.execute("select call_id from intents")}
    return Tail(frontier, row[1], calls, Span(*row[3:]))


def check_guard(db: sqlite3.Connection, tail: Tail, guard: Checkpoint | None, key: VerifierKey) -> None:
    """Compare the log with what was last noted outside it; a log that is ahead is fine.

    Raises:
        StateRefused: the log is behind, or another history; or the guard is gone while the log is not.
    """
    if guard is None:
        if tail.frontier.size:
            raise StateRefused("the rollback guard log.guard is missing: restore it together with the log")
        return
    if tail.frontier.size < guard.size:
        raise StateRefused(
            f"the log has {tail.frontier.size} records but {guard.size} were signed: an older state was put back"
        )
    if _extended(db, guard.size, guard.size, key).root() != guard.root:
        raise StateRefused("the log is not a continuation of what was signed before: another history was put in place")


def _extended(db: sqlite3.Connection, known: int, size: int, key: VerifierKey) -> Frontier:
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
        raise StateRefused(f"the log's checkpoint at {size} cannot be used: {error}") from None
    if checkpoint.size != size or checkpoint.root != frontier.root():
        raise StateRefused(f"the log's checkpoint at {size} does not fit its tree: it was altered")
    return frontier
