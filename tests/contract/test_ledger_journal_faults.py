"""The journal of a SQLite log where something is out of the ordinary: company, failures, backups, what others left."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from gateway.adapters.ledger.additions import CHECKPOINT, Additions
from gateway.adapters.ledger.database import SqliteDatabase
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage.files import DATABASE, connect_readonly
from gateway.adapters.ledger.storage.journal import JOURNAL, Journal, frames, log_size
from gateway.core.errors import Unavailable
from gateway.core.records import EventType
from tests.clock import StepClock
from tests.contract.test_ledger_journal import held, image, note, writer
from tests.ledgers import Books, Walk, check, open_books, read_records


async def noted(books: Books) -> int:
    """Where a record stands that the journal alone has."""
    await books.ledger.append([note(Scribe(books.clock, books.keys))])
    assert held(books.folder) > 0
    return len(read_records(books.site)) - 1


async def test_the_tables_catch_up_in_company(tmp_path: Path) -> None:
    """Whoever is about to look into them shares a transaction with one that could go to the journal."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await noted(books)
        other = books.ledger.submit([note(Scribe(books.clock, books.keys))])
        await books.ledger.settle()
        assert other.done()
        assert held(books.folder) == 0


async def test_what_is_durable_is_found_after_a_failure(tmp_path: Path) -> None:
    """The writer has let go of the log: a reader that has been open for long is not content with the tables."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        assert await books.reader.newest(EventType.ADMIN_CHANGE) is None
        place = await noted(books)
        books.ledger._store.abandon()
        found = await books.reader.newest(EventType.ADMIN_CHANGE)
        assert found is not None
        assert found.index == place


async def test_what_the_tables_cannot_take_is_found_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a connection that looks into the journal, too, as long as it lasts; afterwards into the tables alone again."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        place = await noted(books)

        async def unsettled() -> None:
            raise Unavailable("full")

        with monkeypatch.context() as patch:
            patch.setattr(books.ledger, "settle", unsettled)
            found = await books.reader.newest(EventType.ADMIN_CHANGE)
            assert found is not None
            assert found.index == place
            assert await books.reader.ask(lambda db: len(db.execute("select name from temp.sqlite_master").fetchall()))
        found = await books.reader.newest(EventType.ADMIN_CHANGE)
        assert found is not None
        assert found.index == place
        # A search through both takes so much longer that it would be refused.
        names = await books.reader.ask(lambda db: db.execute("select name from temp.sqlite_master").fetchall())
        assert names == []


async def test_a_reader_opened_in_passing_looks_into_the_tables_alone(tmp_path: Path) -> None:
    """Also where calls went on between the tables' catching up and its opening."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await noted(books)
        with closing(books.site.reader(is_settled=True)) as db:
            assert db.execute("select name from temp.sqlite_master").fetchall() == []
        with closing(books.site.reader()) as db:
            assert db.execute("select name from temp.sqlite_master").fetchall() != []


async def test_a_backup_beside_a_newer_journal(tmp_path: Path) -> None:
    """Frames of what came after the backup then never follow what comes after it now."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
    shutil.copytree(tmp_path / "s", tmp_path / "backup")
    async with open_books(tmp_path / "s", StepClock()) as books:
        for _ in range(4):
            await Walk(books).go()
        shutil.copy(books.folder / JOURNAL, tmp_path / "backup" / JOURNAL)
    later = StepClock()
    later.advance(60)
    async with open_books(tmp_path / "backup", later) as books:
        for _ in range(2):
            await Walk(books).go()
        here, crashed = books.reader, image(books, tmp_path / "crashed")
        assert len(read_records(crashed)) == await here.ask(
            lambda db: int(db.execute("select max(idx) + 1 from records").fetchone()[0])
        )
    assert check(crashed).ok
    async with open_books(crashed, later) as books:
        assert books.verify().ok


async def test_a_new_log_beside_another_one_s_journal(tmp_path: Path) -> None:
    """It begins with its own first record."""
    async with open_books(tmp_path / "s") as books:
        db = books.site.reader()
        first = Additions.none()
        first.size = 1
        first.records = db.execute("select * from records where idx = 0").fetchall()
        first.checkpoints = {0: db.execute(f"select {CHECKPOINT} from checkpoints").fetchone()}
        db.close()
    (tmp_path / "new").mkdir()
    other = Journal(tmp_path / "new" / JOURNAL)
    assert other.hold(first)
    other.append()
    other.close()
    assert frames(tmp_path / "new" / JOURNAL)
    async with open_books(tmp_path / "new") as books:
        await Walk(books).go()
        assert books.verify().ok


async def test_the_first_record_of_a_log_is_in_the_tables(tmp_path: Path) -> None:
    """What stands in a journal from the very beginning on is another log's."""
    async with open_books(tmp_path / "s") as books:
        assert all(one.first > 0 for one in frames(books.folder / JOURNAL))


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fails", [1, 2])
async def test_a_device_that_refuses_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    """It is written through the cache, and nothing old is left in it either."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        crashed = image(books, tmp_path / "crashed")
    assert frames(crashed / JOURNAL)
    real, count = os.pwrite, [0]

    def pwrite(file: int, data: bytes, at: int) -> int:
        count[0] += 1
        if count[0] <= fails:
            raise OSError(22, "not aligned as this device wants it")
        return real(file, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    if fails == 1:
        Journal(crashed / JOURNAL).close()
        assert frames(crashed / JOURNAL) == []
        assert set((crashed / JOURNAL).read_bytes()) == {0}
    else:
        before = descriptors()
        with pytest.raises(OSError, match="aligned"):
            Journal(crashed / JOURNAL)
        assert descriptors() == before


async def test_calls_now_and_then_leave_the_journal_at_rest_empty(tmp_path: Path) -> None:
    """Each of them notes the guard at once, and a second later its records are in the tables all the same."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        clock = stepped(books)
        for _ in range(2):
            clock.advance(2)
            await noted(books)
            with anyio.fail_after(5):
                while held(books.folder) or books.ledger._reminder is not None:
                    clock.advance(2)
                    await anyio.sleep(0.05)
        assert not books.ledger._store.is_behind


async def test_who_is_reminded_too_early_is_reminded_again(tmp_path: Path) -> None:
    """The guard was noted a moment ago, and there are records since."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        stepped(books).advance(2)
        await noted(books)
        await noted(books)
        ledger = books.ledger
        assert ledger._reminder is not None
        ledger._reminder.cancel()
        assert not ledger._store.is_due
        ledger._tend()
        assert ledger._reminder is not None


def stepped(books: Books) -> StepClock:
    """The clock of the books."""
    assert isinstance(books.clock, StepClock)
    return books.clock


async def test_a_journal_that_cannot_even_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: who could not be written hears of it, and the next is."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()

        def failed(journal: Journal, *_: object) -> None:
            os.close(journal._file)
            raise OSError(5, "the device gave up")

        with monkeypatch.context() as patch, anyio.fail_after(5):
            patch.setattr(Journal, "append", lambda _: failed_write())
            patch.setattr(Journal, "close", failed)
            with pytest.raises(Unavailable):
                await noted(books)
        await Walk(books).go()
        assert books.verify().ok


def failed_write() -> None:
    """A device that takes nothing."""
    raise OSError(5, "the device gave up")


async def test_frames_of_rows_that_no_table_takes(tmp_path: Path) -> None:
    """Whoever writes the file can make some: a finding of the verifier, and a start that is refused, never a crash."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
    size = len(read_records(tmp_path / "s"))
    for row in ((1 << 63, b"x"), (8, b"x"), (-(1 << 63), b"x")):
        path = Journal(tmp_path / "s" / JOURNAL)
        more = Additions.none(size)
        more.size, more.payloads = size + 1, [row, row]
        more.records = [(1 << 63, "x", b"", b"", 1, "x", None, None, None, None, None, None)]
        assert path.hold(more)
        path.append()
        path.close()
        assert not check(tmp_path / "s").ok
        with pytest.raises(StateRefused):
            async with open_books(tmp_path / "s"):
                pass


async def test_a_call_that_ends_and_begins_again_in_the_journal(tmp_path: Path) -> None:
    """Of several transactions that move together the order counts: what was under way before ends first."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await books.ledger.settle()
        db = writer(books)
        size = log_size(db)
        for opened, closed in (({"x": (size, "")}, []), ({}, ["x"]), ({"x": (size + 2, "")}, [])):
            if closed:
                db.settle()
            added = Additions.none(size)
            added.size, added.opened, added.closed = size + 1, opened, closed
            size += 1
            db.begin()
            db.add(added)
            db.commit()
        db.settle()
        assert db.execute("select call_id, idx from intents").fetchall() == [("x", size - 1)]
        db.begin()
        db.execute("delete from intents")
        db.commit()


@pytest.mark.parametrize("name", [JOURNAL, DATABASE])
async def test_what_stands_elsewhere_is_not_passed_over(tmp_path: Path, name: str) -> None:
    """The journal, or the database, was moved away: a question is refused rather than answered from what is left."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await books.reader.newest(EventType.ADMIN_CHANGE)
        place = await noted(books)
        (books.folder / name).rename(tmp_path / "elsewhere")
        if name == DATABASE:
            shutil.copy(tmp_path / "elsewhere", books.folder / DATABASE)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await books.reader.newest(EventType.ADMIN_CHANGE)
        (tmp_path / "elsewhere").rename(books.folder / name)
    async with open_books(tmp_path / "s") as books:
        found = await books.reader.newest(EventType.ADMIN_CHANGE)
        assert found is not None
        assert found.index == place


async def test_what_a_reader_has_seen_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that only seemed to fail was there for a moment: it is a record, and no other takes its place."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await books.ledger.settle()
        seen: list[SqliteDatabase] = []
        real = os.pwrite

        def pwrite(file: int, data: bytes, at: int) -> int:
            done = real(file, data, at)
            if not seen:
                seen.append(connect_readonly(books.folder / DATABASE))
                raise OSError(5, "the device gave up")
            return done

        monkeypatch.setattr(os, "pwrite", pwrite)
        scribe = Scribe(books.clock, books.keys)
        with pytest.raises(Unavailable):
            await books.ledger.append([note(scribe), note(scribe)])
        with closing(seen[0]) as db:
            before = db.execute("select idx, leaf from records order by idx").fetchall()
            await noted(books)
            await books.ledger.settle()
            assert db.execute("select idx, leaf from records order by idx").fetchall()[: len(before)] == before
        assert books.verify().ok
