"""Searches of a real log: the same records as comparing each one by hand gives, found without walking the log."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.servers.postgres import Postgres
from gateway.adapters.ledger import searching
from gateway.adapters.ledger.database import SQLITE, Database, SqliteDatabase
from gateway.adapters.ledger.searching import search
from gateway.adapters.ledger.storage.files import COMMON_REASON
from gateway.adapters.ledger.storage.postgres_site import PostgresSite
from gateway.adapters.ledger.storage.site import Folder, Site
from gateway.core.errors import InvalidArguments
from gateway.core.filters import Field, Term, holds, parse, term
from gateway.core.inquiry import Query
from gateway.core.records import SALT_SIZE, Actor, Draft, EventType
from tests.clock import StepClock
from tests.ledgers import Books, aside, asked, check, open_books
from tests.stores import KINDS, log_database

RECORDS = 900
TOOLS = ("pay.refund", "pay.transfer", "erp.find", "erp.find_order", "up.[x]", "up.?", None)
AGENTS = ("clerk", "clerk-2", "buyer", None)
USERS = ("00ff", "ff00", None)
REASONS = (COMMON_REASON, "scope.not_granted", "limits.sum", "limits.calls")
TYPES = (
    EventType.DECISION,
    EventType.DECISION,
    EventType.REQUEST_REFUSED,
    EventType.ADMIN_CHANGE,
    EventType.CREDENTIAL_REVOKED,
)
START_US = 1_000_000_000


def some_draft(books: Books, chance: random.Random, at_us: int) -> Draft:
    """A record of any kind that needs no run."""
    kind = chance.choice(TYPES)
    body: dict[str, Any] = {"tool": chance.choice(TOOLS)}
    if kind is EventType.DECISION:
        body["effect"] = chance.choice(("allow", "allow", "deny", "needs_approval"))
        body["reasons"] = chance.choices(REASONS, k=chance.randint(0, 3))
    actor = Actor(chance.choice(AGENTS), "local", chance.choice(USERS))
    call = None if kind is EventType.ADMIN_CHANGE else f"c-{chance.randint(0, 200)}"
    return Draft(books.clock.uuid(), kind, at_us, bytes(SALT_SIZE), actor, None, call, body)


async def written(site: Site) -> None:
    """A log of several windows whose clock is set back now and then."""
    chance = random.Random(7)
    at_us = START_US
    async with open_books(site, StepClock()) as books:
        written_so_far = 0
        while written_so_far < RECORDS:
            drafts = []
            for _ in range(chance.randint(1, 40)):
                at_us += chance.randint(0, 100) if chance.random() < 0.97 else -chance.randint(0, 2000)
                drafts.append(some_draft(books, chance, at_us))
            await books.ledger.append(drafts)
            written_so_far += len(drafts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A closed log in a folder."""
    site = Folder(tmp_path_factory.mktemp("log"))
    asyncio.run(written(site))
    return site


@pytest.fixture(scope="module")
def server_log(tmp_path_factory: pytest.TempPathFactory, real_postgres: Postgres) -> PostgresSite:
    """A closed log in PostgreSQL."""
    site = PostgresSite(tmp_path_factory.mktemp("log"), log_database(real_postgres, "searched"))
    asyncio.run(written(site))
    return site


@pytest.fixture(scope="module", params=KINDS)
def log(request: pytest.FixtureRequest) -> Site:
    """A closed log in either store."""
    found: Site = request.getfixturevalue("folder" if request.param == "sqlite" else "server_log")
    return found


@pytest.fixture(scope="module")
def db(log: Site) -> Iterator[Database]:
    """Its database."""
    with closing(log.reader()) as db:
        yield db


@pytest.fixture(scope="module")
def lite(folder: Folder) -> Iterator[SqliteDatabase]:
    """The database of the one in a folder."""
    with closing(folder.reader()) as db:
        yield db


@pytest.fixture(scope="module")
def records(db: Database) -> list[dict[str, Any]]:
    """Its records, decoded."""
    return [msgspec.json.decode(leaf) for (leaf,) in db.execute("select leaf from records order by idx")]


def said(record: dict[str, Any], field: Field) -> list[str]:
    """What a record says of a field."""
    body = record["body"]
    of = {
        Field.AGENT: record["actor"]["agent"],
        Field.CALL: record["call_id"],
        Field.EFFECT: body.get("effect"),
        Field.RUN: record["run_id"],
        Field.TOOL: body.get("tool"),
        Field.TYPE: record["type"],
        Field.USER: record["actor"]["user"],
    }
    if field is Field.REASON:
        return list(body.get("reasons", ()))
    return [] if of[field] is None else [of[field]]


def by_hand(records: Sequence[dict[str, Any]], query: Query) -> list[int]:
    """Indexes of the records that match, by looking at each."""

    def matches(index: int, record: dict[str, Any]) -> bool:
        if index <= query.after or record["ts"] < (query.since_us or 0):
            return False
        if query.until_us is not None and record["ts"] > query.until_us:
            return False
        return all(
            any(holds(each, word) for word in said(record, each.field)) is not each.negated for each in query.terms
        )

    return [index for index, record in enumerate(records) if matches(index, record)][: query.limit]


_WORDS = {
    Field.AGENT: ("clerk", "clerk*", "*", "nobody", "*e*"),
    Field.CALL: ("c-7", "c-100", "x"),
    Field.EFFECT: ("allow", "deny", "needs_approval"),
    Field.REASON: (*REASONS, "limits.*", "scope.*", "*", "x", "x*"),
    Field.RUN: ("r-1",),
    Field.TOOL: ("pay.*", "pay.refund", "erp.find", "erp.find*", "*", "up.[x]*", "up.?*", "[u]p*", "u?.*", "x"),
    Field.TYPE: ("decision", "key", "admin.change", "re*", "*", "*e*", "credential.*"),
    Field.USER: ("00ff", "ff00", "x"),
}
_FIELDS = st.sampled_from(sorted(_WORDS))
_TERMS = st.tuples(_FIELDS, st.integers(0, 9), st.booleans()).map(
    lambda drawn: Term(drawn[0], _WORDS[drawn[0]][drawn[1] % len(_WORDS[drawn[0]])], drawn[2])
)
_TIMES = st.none() | st.integers(START_US - 5000, START_US + RECORDS * 60)


_QUERIES = st.builds(
    Query,
    terms=st.lists(_TERMS, max_size=3).map(tuple),
    since_us=_TIMES,
    until_us=_TIMES,
    after=st.sampled_from([-1, 0, 3, 255, 256, 700, 10_000]),
    limit=st.sampled_from([1, 5, 1000]),
)


@given(query=_QUERIES)
@pytest.mark.requirement("AUDIT-2")
def test_a_search_finds_what_looking_at_each_record_finds(
    db: Database, records: list[dict[str, Any]], query: Query
) -> None:
    """Any terms, times and cursor: the same records in the same order, though the clock was set back."""
    assert [index for index, _ in search(db, query)] == by_hand(records, query)


def test_more_values_than_are_walked_apart_make_no_difference(
    db: Database, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that very many tools match is held against each record instead."""
    monkeypatch.setattr(searching, "_MAX_STREAMS", 2)
    for text in ("tool:*", "tool:pay.*", "agent:*", "reason:*", "reason:limits.*"):
        query = Query(terms=parse(text, 0).terms, limit=1000)
        assert [index for index, _ in search(db, query)] == by_hand(records, query), text


@pytest.mark.parametrize(
    "value",
    [
        "x' or 1=1 --",
        "'; drop table records; --",
        'x" or ""="',
        "?1",
        ":name",
        "x') union select 0, leaf from records --",
        "%",
        "\\",
    ],
)
@pytest.mark.parametrize("field", [Field.AGENT, Field.CALL, Field.REASON, Field.RUN, Field.TOOL, Field.USER])
@pytest.mark.parametrize("negated", [False, True])
def test_sql_in_a_value_is_a_value(db: Database, field: Field, value: str, negated: bool) -> None:
    """It is compared and never carried out: nothing has it, everything lacks it."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    query = Query(terms=parse(f'{"-" if negated else ""}{field}:"{quoted}"', 0).terms, limit=1000)
    assert query.terms == (term(field, value, negated=negated),)
    (size,) = db.execute("select count(*) from records").fetchone()
    assert len(search(db, query)) == (size if negated else 0)


def test_no_statement_holds_what_was_asked_for(db: Database) -> None:
    """What reaches the database as SQL is the same whatever values are searched for."""

    def statements(word: str) -> list[str]:
        terms = tuple(Term(field, word, negated) for field in _WORDS for negated in (False, True))
        query = Query(terms=terms, since_us=len(word), until_us=len(word))
        return [statement for statement, _ in searching._statements(db, query)]

    assert statements("clerk") == statements("'; drop table records; --")
    assert statements("clerk")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tool:pay.refund", "records_tool"),
        ("tool:pay.*", "records_tool"),
        ("agent:clerk", "records_agent"),
        ("agent:clerk*", "records_agent"),
        ("effect:deny", "records_effect"),
        ("call:c-7", "records_call"),
        ("run:r-1", "records_run"),
        ("type:admin.change", "records_type"),
        ("type:credential.*", "records_type"),
        ("reason:limits.sum", "USING PRIMARY KEY"),
        ("reason:limits.*", "USING PRIMARY KEY"),
        ("", "INTEGER PRIMARY KEY"),
    ],
)
def test_what_is_asked_for_is_looked_up(lite: SqliteDatabase, text: str, index: str) -> None:
    """Each kind of term has an index, in log order: nothing is sorted but the records of one run."""
    statements = list(searching._statements(lite, Query(terms=parse(text, 0).terms)))
    assert statements
    for statement, values in statements:
        plan = [row[3] for row in lite.execute(f"explain query plan {statement}", values)]
        assert index in plan[0], plan
        assert text.startswith("run:") or not [step for step in plan if "TEMP B-TREE" in step], plan


@pytest.mark.parametrize("field", [Field.AGENT, Field.REASON, Field.TOOL])
def test_the_values_a_pattern_stands_for_are_looked_up(lite: SqliteDatabase, field: Field) -> None:
    """Each by one step of an index to the next one; the records are not read for it."""
    plan = [row[3] for row in lite.execute(f"explain query plan {searching._each(field, SQLITE)}", ["*"])]
    assert [step for step in plan if "SEARCH" in step]
    assert not [step for step in plan if step.startswith("SCAN") and "each" not in step], plan


def test_a_time_is_found_without_walking_the_log(db: Database, records: list[dict[str, Any]]) -> None:
    """A search from a time on begins at most a window before the first record of that time or later."""
    for since_us in range(START_US, START_US + 50_000, 500):
        first = next((index for index, record in enumerate(records) if record["ts"] >= since_us), len(records))
        begin = searching.size_before(db, since_us)
        assert begin <= first
        later = [row[0] for row in db.execute("select size from checkpoints where size > ? order by size", (begin,))]
        assert not later or first < later[0]


def test_a_search_that_looks_at_too_much_is_refused_and_harms_no_other(lite: SqliteDatabase) -> None:
    """Walking the log for what is found by nothing has a bound; the connection is as good as before."""
    wide = Query(terms=parse(" ".join(f"-reason:*a*{n}*{n}" for n in range(20)), 0).terms, limit=1000)
    with pytest.raises(InvalidArguments, match="too much of the log"):
        search(lite, wide, most_steps=50_000)
    assert search(lite, Query(limit=1), most_steps=50_000)
    assert not lite.in_transaction
    assert search(lite, wide) == search(lite, wide)


def test_a_search_that_takes_too_long_is_refused_and_harms_no_other(server_log: PostgresSite) -> None:
    """The same by the server's own clock."""
    wide = Query(terms=parse(" ".join(f"-reason:*a*{n}*{n}" for n in range(20)), 0).terms, limit=1000)
    with closing(server_log.reader()) as db:
        with pytest.raises(InvalidArguments, match="too much of the log"):
            search(db, wide, most_steps=10_000)
        assert search(db, Query(limit=1))
        assert search(db, wide) == search(db, wide)


def test_the_log_is_sound_by_its_own_check(log: Site) -> None:
    """What searches go by is what the verifier computes from the records."""
    assert check(log).findings == []


async def test_times_go_on_where_they_were_after_a_restart(site: Site) -> None:
    """A log that is closed and opened keeps its latest time, also where the clock was set back meanwhile."""
    for at_us in (5000, 3000, 4000):
        async with open_books(site, StepClock()) as books:
            await books.ledger.append([some_draft(books, random.Random(1), at_us)])
    times = [ts for (ts,) in asked(site, "select ts from records order by idx")]
    found = aside(lambda: _found(site, Query(since_us=4000, until_us=5000)))
    assert found == [index for index, ts in enumerate(times) if 4000 <= ts <= 5000]
    assert check(site).ok


def _found(site: Site, query: Query) -> list[int]:
    with closing(site.reader()) as db:
        return [index for index, _ in search(db, query)]
