"""Who searched the log, in the real log."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.ledger.books.searches import FOLLOWING_S, SearchLog
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.core.errors import Unavailable
from gateway.core.filters import Field, parse
from gateway.core.inquiry import Query, Searched
from gateway.core.records import Role
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Books, open_books

AUDITOR = make_principal(user="alma", agent=None)
SEARCH = Searched("records", Query(terms=parse('tool:zebra.* -agent:"big clerk"', 0).terms), "tool:zebra.*", 7)
READ_ON = Searched("records", Query(after=3), None, 100)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """An open ledger."""
    async with open_books(tmp_path, StepClock()) as books:
        yield books


def searches(books: Books) -> SearchLog:
    """What is under test."""
    return SearchLog(books.ledger, books.keys, books.clock)


@pytest.mark.requirement("AUDIT-2")
async def test_a_search_is_a_record(books: Books) -> None:
    """The leaf names the fields and the number of results; what was searched for is sealed."""
    await searches(books).record(AUDITOR, SEARCH)
    (record,) = books.records("query")
    assert record["body"] == {"after": -1, "door": "records", "fields": ["agent", "tool"], "results": 7}
    assert record["actor"]["user"] not in {None, "alma"}
    assert record["run_id"] is None
    files = (books.folder / DATABASE).read_bytes() + (books.folder / f"{DATABASE}-wal").read_bytes()
    assert b"zebra" not in files
    assert b"big clerk" not in files
    assert books.verify().ok


async def test_every_page_of_a_search_is_a_record(books: Books) -> None:
    """One for each request, however fast they come; and searches are found by searching."""
    log = searches(books)
    for after in (-1, 6, 13):
        await log.record(AUDITOR, Searched("records", Query(type="decision", after=after), None, 7))
    found = await books.reader.search(Query(type="query"))
    assert [record.body["body"]["after"] for record in found] == [-1, 6, 13]
    assert found[0].body["body"]["fields"] == [Field.TYPE]


async def test_following_the_log_does_not_write_to_it_for_ever(tmp_path: Path) -> None:
    """Reading on without conditions is recorded once in a quarter of an hour, for each reader."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        log = searches(books)
        for _ in range(3):
            await log.record(AUDITOR, READ_ON)
            await log.record(make_principal(user="otto", agent=None), READ_ON)
        assert len(books.records("query")) == 2
        clock.advance(FOLLOWING_S + 1)
        await log.record(AUDITOR, READ_ON)
        assert len(books.records("query")) == 3
        for number in range(1100):
            log._following["reader", str(number)] = clock.monotonic()
        await log.record(make_principal(user="nina", agent=None), READ_ON)
        assert len(log._following) <= 1103


async def test_each_proof_of_a_record_is_a_record(books: Books) -> None:
    """It names the record, by the one before it, and is no following of the log."""
    log = searches(books)
    for index in (4, 5, 5):
        await log.record(AUDITOR, Searched("proof", Query(after=index - 1, limit=1), None, 1))
    await log.record(AUDITOR, READ_ON)
    assert [(record["body"]["door"], record["body"]["after"]) for record in books.records("query")] == [
        *(("proof", 3), ("proof", 4), ("proof", 4)),
        ("records", 3),
    ]


async def test_a_search_that_was_misspelt_is_no_reading_on(books: Books) -> None:
    """Each is recorded, as it was written; the words are sealed."""
    log = searches(books)
    await log.record(AUDITOR, READ_ON)
    for _ in range(2):
        await log.record(AUDITOR, Searched("records", Query(), "colour:zebra", 0, is_malformed=True))
    _, *found = await books.reader.search(Query(type="query"))
    assert [record.body["body"]["results"] for record in found] == [0, 0]
    for record in found:
        assert b"zebra" not in record.leaf
        sealed = await books.reader.ask(lambda db, at=record: books.reader.sealed(db, at.index, at.body, Role.QUERY))  # type: ignore[misc]
        said = json.loads(sealed or b"")
        assert (said["text"], said["malformed"]) == ("colour:zebra", True)


async def test_what_cannot_be_recorded_is_refused(books: Books) -> None:
    """The caller gets no answer, and following is not taken for recorded."""
    log = searches(books)
    store = books.ledger._store
    for searched in (SEARCH, READ_ON):
        await books.log.ping()
        assert store._db is not None
        store._db.execute("pragma query_only = 1")
        with pytest.raises(Unavailable):
            await log.record(AUDITOR, searched)
    await log.record(AUDITOR, READ_ON)
    assert len(books.records("query")) == 1


async def test_on_a_nearly_full_disk_searches_go_on(books: Books) -> None:
    """The reserve that new calls may not touch is open to searches: who looks for what filled the disk can look."""
    books.ledger._store._reserve = 2**62
    await searches(books).record(AUDITOR, SEARCH)
    assert len(books.records("query")) == 1
    with pytest.raises(Unavailable, match="reserve"):
        await books.log.ping()
