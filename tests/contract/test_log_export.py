"""The log on its way out, on a real ledger: pages under one tree, bounded, and what is not handed out."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.exporting import LogExport
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.site import Site
from gateway.core.errors import NotFound, Unavailable
from gateway.core.extract import Depth, Extracted
from gateway.core.inquiry import Query
from gateway.core.records import EventType, Payload, Role
from gateway.core.tiles import check_inclusion
from gateway.core.tlog import VerifierKey, leaf_hash, open_checkpoint
from tests.ledgers import Walk, open_books

OPENED = Depth(payloads=True)


async def test_each_record_is_proven_under_one_tree_while_the_log_grows(site: Site) -> None:
    """Across tiles, from the first record to the last one of that tree, each exactly once."""
    async with open_books(site) as books:
        for _ in range(150):
            await Walk(books).go()
        export = LogExport(books.reader, books.keys)
        page = await export.page(Query(limit=64), Depth())
        checkpoint = open_checkpoint(page.checkpoint, VerifierKey.parse(page.vkey))
        seen = list(page.records)
        while page.next is not None:
            await Walk(books).go()
            page = await export.page(Query(limit=64, after=page.next), Depth(checkpoint.size))
            seen += page.records
    assert [record.index for record in seen] == list(range(checkpoint.size))
    assert checkpoint.size > 256
    for record in seen:
        check_inclusion(leaf_hash(record.leaf), record.index, checkpoint.size, record.proof, checkpoint.root)


async def test_a_page_with_payloads_ends_early(site: Site) -> None:
    """What is held in memory is bounded, and nothing is left out or told twice."""
    async with open_books(site) as books:
        await Walk(books).go()
        export = LogExport(books.reader, books.keys, page_bytes=1)
        seen: list[Extracted] = []
        after = -1
        while True:
            page = await export.page(Query(after=after), OPENED)
            seen += page.records
            assert sum(bool(record.payloads) for record in page.records) <= 1
            if page.next is None:
                break
            after = page.next
        assert [record.index for record in seen] == list(range(page.size))


async def test_what_was_erased_does_not_come_back(tmp_path: Path) -> None:
    """Without its data key a payload is left out, and nothing else."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        export = LogExport(books.reader, books.keys)
        assert any(record.payloads for record in (await export.page(Query(), OPENED)).records)
        with closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
            database.execute("delete from deks")
        page = await export.page(Query(), OPENED)
        assert len(page.records) == page.size
        assert not any(record.payloads for record in page.records)


async def test_handles_of_credentials_stay_here(site: Site) -> None:
    """With a token's accessor somebody could end or look up what the gateway has minted."""
    async with open_books(site) as books:
        scribe = Scribe(books.clock, books.keys)
        said = Payload(Role.LEASE, b'{"accessor": "accessor-1"}'), Payload(Role.CHANGE, b'{"a": 1}')
        await books.ledger.append([scribe.draft(EventType.CREDENTIAL_LEASED, Subject(), {"kind": "token"}, *said)])
        page = await LogExport(books.reader, books.keys).page(Query(type=EventType.CREDENTIAL_LEASED), OPENED)
    assert [payload.role for record in page.records for payload in record.payloads] == [Role.CHANGE]


async def test_what_there_is_not(tmp_path: Path) -> None:
    """A tree larger than the log, and payloads that were altered: refused."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        export = LogExport(books.reader, books.keys)
        with pytest.raises(NotFound):
            await export.page(Query(), Depth(10**9))
        with closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
            database.execute("update payloads set sealed = zeroblob(64)")
        with pytest.raises(Unavailable):
            await export.page(Query(), OPENED)
