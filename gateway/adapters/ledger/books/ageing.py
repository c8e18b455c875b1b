"""How old what is sealed is: by the order of the records, and not by the clock alone.

A record cannot be older than one that stands before it. So what was written while the clock was set back is as young as
its place in the log says; by its own time it would be let go of far too early.
"""

from dataclasses import dataclass

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.sealing import DAY_US, LIVE, scope_of
from gateway.adapters.ledger.searching import size_before
from gateway.adapters.ledger.storage.custody import held
from gateway.adapters.ledger.storage.journal import log_size

_STEP = 200  # data keys looked at in one question: other readers of the log wait for it
# Times after now are of a clock that was set forward, and say nothing of what stands behind them.
_FIRST = "select idx from records where idx >= ? and ts between ? and ? order by idx limit 1"
# The windows of checkpoints that hold a time before the horizon are few: those in which the clock was set back.
_BACK = """
select distinct r.ts / ? from checkpoints c cross join records r
where c.size > ? and c.low_us < ?
  and r.idx < c.size and r.ts < ? and r.idx >= {}(
    ?, coalesce((select size from checkpoints p where p.win < c.win order by p.win desc limit 1), 0)
  )
"""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Where the log begins to be young.

    Attributes:
        older_us: times before it are old.
        size: so many records are surely old, as far as their own times are.
        days: days (since the epoch) that records behind them name, though they are over by ``older_us``.
    """

    older_us: int
    size: int
    days: frozenset[int]


def horizon(db: Database, older_us: int, now_us: int) -> Horizon:
    """The place of ``older_us`` in a log that is read at ``now_us``."""
    row = db.execute(_FIRST, (size_before(db, older_us), older_us, now_us)).fetchone()
    size = log_size(db) if row is None else int(row[0])
    days = db.execute(_BACK.format(db.dialect.greatest), (DAY_US, size, older_us, older_us, size))
    return Horizon(older_us, size, frozenset(int(day) for (day,) in days))


def due(db: Database, after: str, horizon: Horizon) -> tuple[str | None, list[str]]:
    """The data keys whose time is over, of those behind ``after``; and the last one looked at, None at the end."""
    keys = [key for (key,) in db.execute(f"{LIVE} and id > ? order by id limit ?", (after, _STEP))]
    now = held(db)
    in_force = {record_id for (record_id,) in db.execute("select id from holds")}
    over = [key for key in keys if _is_over(db, key, horizon, in_force) and not now.cover(key)]
    return (keys[-1] if len(keys) == _STEP else None), over


def _is_over(db: Database, key: str, horizon: Horizon, in_force: set[str]) -> bool:
    scope = scope_of(key)
    if scope.run is None:
        if scope.over_us is None or scope.over_us > horizon.older_us or scope.hold in in_force:
            return False
        return scope.over_us // DAY_US - 1 not in horizon.days
    if db.execute("select 1 from open_runs where run_id = ?", (scope.run,)).fetchone() is not None:
        return False
    last = db.execute(
        "select idx, ts from records where run_id = ? order by seq_run desc limit 1", (scope.run,)
    ).fetchone()
    return last is not None and last[0] < horizon.size and last[1] < horizon.older_us
