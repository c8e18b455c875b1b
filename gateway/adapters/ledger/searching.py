"""Searches of the log as SQL: the words are literals of this file, what is searched for is bound, never written.

What a search is found by is chosen here where the database would choose badly: a pattern becomes the few values that
match it, each walked in log order and merged, so an answer costs what it holds and not what the log holds.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from gateway.adapters.ledger.database import Database, Dialect, TooCostly
from gateway.adapters.ledger.storage.files import COMMON_REASON, COMMON_TYPES, RARE_EFFECT, RARE_TYPE
from gateway.core.decision import Effect
from gateway.core.errors import InvalidArguments
from gateway.core.filters import Field, Term, holds
from gateway.core.inquiry import Query
from gateway.core.records import EventType

_MAX_LIMIT = 1000
# Values a pattern may become; beyond it, the log is walked in order and held against the pattern.
_MAX_STREAMS = 64
# Instructions of the database in one search: ten million records looked at by a simple term; some seconds.
_MOST_STEPS = 30_000_000
_TOO_WIDE = (
    "the search would look at too much of the log: name a run, a tool, an agent or a time (since:, until:), or leave "
    "out patterns and -reason:"
)
_COLUMNS = {
    Field.AGENT: "agent",
    Field.CALL: "call_id",
    Field.EFFECT: "effect",
    Field.RUN: "run_id",
    Field.TOOL: "tool",
    Field.TYPE: "type",
    # By no index, as it would be another page to write with each commit: name a time, too.
    Field.USER: None,
}
# Reasons stand in the leaf; the list beside it is for finding them and does not know the most common one.
_SAYS = (
    f"type = '{EventType.DECISION}' and exists "  # noqa: S608 - literals only
    "(select 1 from {} where value {} ?)"
)
# Each value once, by one step of an index from each to the next.
_EACH = """
with recursive each(value) as (
  select min({0}) from {1} where {0} is not null
  union all
  select (select min({0}) from {1} where {0} is not null and {0} > each.value) from each where each.value is not null
) select value from each where value {2} ?
"""
_LISTS = {Field.REASON: ("reason", "reasons"), Field.TOOL: ("tool", "records"), Field.AGENT: ("agent", "records")}


@dataclass(slots=True)
class _Where:
    """Conditions and what is bound to them, in the same order, in the words of a database."""

    dialect: Dialect
    words: list[str]
    values: list[Any]

    def add(self, words: str, *values: Any) -> None:
        self.words.append(words)
        self.values += values


def search(db: Database, query: Query, most_steps: int = _MOST_STEPS) -> list[tuple[int, bytes]]:
    """Index and leaf of the records that match, in log order, from one snapshot.

    Raises:
        InvalidArguments: it would take more than about ``most_steps`` of the database's instructions.
    """
    db.snapshot()
    try:
        # Who asks for what nothing is found by must not keep the machine busy for everybody else.
        with db.bounded(most_steps):
            streams = [db.execute(statement, values) for statement, values in _statements(db, query)]
            found = _once(heapq.merge(*streams, key=itemgetter(0)))
            return list(islice(found, _most(query)))
    except TooCostly:
        raise InvalidArguments(_TOO_WIDE, cause_code="query_cost") from None
    finally:
        db.rollback()


def _once(rows: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    last = -1
    for row in rows:
        if row[0] != last:
            last = row[0]
            yield row


def _statements(db: Database, query: Query) -> Iterator[tuple[str, list[Any]]]:
    leading, values = _leading(db, query.conditions)
    where = _Where(db.dialect, [], [])
    _bound(db, query, where)
    for term in query.conditions:
        if term is not leading:
            _hold(term, where)
    if leading is None:
        yield _select("records", where, query)
    for value in values:
        source, one = _lead(leading, value, db.dialect)
        whole = _Where(db.dialect, [*where.words, *one.words], [*where.values, *one.values])
        yield _select(source, whole, query)


def _select(source: str, where: _Where, query: Query) -> tuple[str, list[Any]]:
    order = "reasons.idx" if source != "records" else "records.idx"
    held = " and ".join(words.replace("{idx}", order) for words in where.words)
    statement = f"select records.idx, leaf from {source} where {held} order by {order} limit ?"  # noqa: S608 - literals only
    return statement, [*where.values, _most(query)]


def _most(query: Query) -> int:
    return max(1, min(query.limit, _MAX_LIMIT))


def _leading(db: Database, terms: Sequence[Term]) -> tuple[Term | None, Sequence[str]]:
    # What the records are found by, and the values it stands for; None leaves it to the database.
    for field in (Field.REASON, Field.TOOL, Field.AGENT, Field.TYPE):
        for term in terms:
            if term.field is not field or term.negated:
                continue
            values = _values(db, term)
            if values is not None:
                return term, values
    return None, ()


def _values(db: Database, term: Term) -> Sequence[str] | None:
    if term.field is Field.REASON and holds(term, COMMON_REASON):
        return None
    if not term.is_pattern:
        return [term.value] if term.field is Field.REASON else None
    if term.field is Field.TYPE:
        types = [kind for kind in EventType if holds(term, kind)]
        return None if any(kind in COMMON_TYPES for kind in types) else types
    found = db.execute(_each(term.field, db.dialect), [db.dialect.pattern(term.value)]).fetchmany(_MAX_STREAMS + 1)
    return [value for (value,) in found] if len(found) <= _MAX_STREAMS else None


def _each(field: Field, dialect: Dialect) -> str:
    return _EACH.format(*_LISTS[field], dialect.like)


def _lead(term: Term | None, value: str, dialect: Dialect) -> tuple[str, _Where]:
    where = _Where(dialect, [], [])
    if term is not None and term.field is Field.REASON:
        where.add("records.idx = reasons.idx")
        where.add("reasons.reason = ?", value)
        return "reasons cross join records", where
    if term is not None:
        _hold(Term(term.field, value), where)
    return "records", where


def _hold(term: Term, where: _Where) -> None:
    like = where.dialect.like
    bound = where.dialect.pattern(term.value) if term.is_pattern else term.value
    if term.field is Field.REASON:
        says = _SAYS.format(where.dialect.reasons, like if term.is_pattern else "=")
        where.add(f"not ({says})" if term.negated else says, bound)
        return
    column = _COLUMNS[term.field] or where.dialect.text("actor.user")
    if term.negated:
        unlike = f"not {like}" if term.is_pattern else "<>"
        where.add(f"({column} is null or {column} {unlike} ?)", bound)
        return
    # The plus: an index would give the order of values, not that of the log.
    where.add(f"+{column} {like} ?" if term.is_pattern else f"{column} = ?", bound)
    # In words that the partial indexes understand.
    if term.field is Field.TYPE and not term.is_pattern and term.value not in COMMON_TYPES:
        where.add(RARE_TYPE)
    if term.field is Field.EFFECT and term.value != Effect.ALLOW:
        where.add(RARE_EFFECT)


def _bound(db: Database, query: Query, where: _Where) -> None:
    after = query.after
    if query.since_us is not None:
        after = max(after, size_before(db, query.since_us) - 1)
        where.add("ts >= ?", query.since_us)
    if query.until_us is not None:
        where.add("ts <= ?", query.until_us)
        where.add("{idx} < ?", _size_until(db, query.until_us))
    where.add("{idx} > ?", after)


def size_before(db: Database, since_us: int) -> int:
    """So many records from the log's beginning on have times before ``since_us``, rounded down to a checkpoint."""
    # The latest time up to each checkpoint never falls, however the clock was set: the place is found by halving.
    size, low = 0, 0
    (high,) = db.execute("select coalesce(max(win), -1) from checkpoints").fetchone()
    while low <= high:
        middle = (low + high) // 2
        win, there, high_us = db.execute(
            "select win, size, high_us from checkpoints where win >= ? order by win limit 1", (middle,)
        ).fetchone()
        if high_us < since_us:
            size, low = there, win + 1
        else:
            high = middle - 1
    return int(size)


def _size_until(db: Database, until_us: int) -> int:
    # The earliest time since the checkpoint before may do anything: back from the end of the log, to one early enough.
    row = db.execute("select size from checkpoints where low_us <= ? order by win desc limit 1", (until_us,)).fetchone()
    return 0 if row is None else int(row[0])
