"""The journal before the tables of a SQLite log: durable, seen by all who read, moved in time, and nothing twice."""

import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage import journal
from gateway.adapters.ledger.storage.files import DATABASE, connect_readonly
from gateway.adapters.ledger.storage.journal import CAPACITY, JOURNAL, beyond, frames, reach
from gateway.adapters.ledger.storage.journaled import JournaledDatabase
from gateway.core.call import Intent
from gateway.core.errors import GatewayError, OutcomeUnknown, Unavailable
from gateway.core.records import ENDINGS, EventType, Payload, Role
from tests.clock import StepClock
from tests.ledgers import Books, Walk, check, open_books, read_records

TABLES = ("nodes", "records", "payloads", "intents", "reasons", "checkpoints", "open_runs", "deks", "approvals")


def tables(folder: Path, opened: Callable[[Path], sqlite3.Connection] = connect_readonly) -> dict[str, list[Any]]:
    """All that a log's tables say, as a reader sees them."""
    with closing(opened(folder / DATABASE)) as db:
        return {name: sorted(db.execute(f"select * from {name}").fetchall(), key=repr) for name in TABLES}


def bare(path: Path) -> sqlite3.Connection:
    """The tables themselves."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def image(books: Books, to: Path) -> Path:
    """The folder as a power cut would leave it now."""
    shutil.copytree(books.folder, to)
    return to


def held(folder: Path) -> int:
    """Records that only the journal has."""
    with closing(bare(folder / DATABASE)) as db:
        return len(beyond(frames(folder / JOURNAL), journal.log_size(db)).records)  # type: ignore[arg-type]


def note(scribe: Scribe, *payloads: Payload) -> Any:
    """A record outside any run."""
    return scribe.draft(EventType.ADMIN_CHANGE, Subject(), {"action": "test"}, *payloads)


async def test_what_calls_add_is_in_the_journal_and_seen_by_all_who_read(tmp_path: Path) -> None:
    """Not yet in the tables, but for whoever asks, in this process and in others, there is one log."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        answer = await Walk(books).go()
        assert held(books.folder) > 0
        assert len(tables(books.folder, bare)["records"]) < len(tables(books.folder)["records"])
        before = tables(books.folder)
        assert [one["type"] for one in read_records(books.site)][-1] == "tool.completed"
        assert books.verify().ok
        assert (await books.reader.payload(answer.call_id, "request")) is not None
        assert held(books.folder) == 0
        assert tables(books.folder, bare) == tables(books.folder) == before


async def test_a_crash_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The next start puts what the journal holds into the tables; so does a verifier see it before."""
    async with open_books(tmp_path / "s") as books:
        for _ in range(3):
            await Walk(books).go()
        crashed, here = image(books, tmp_path / "crashed"), books.records()
    assert read_records(crashed) == here
    assert check(crashed).ok
    async with open_books(crashed, StepClock()) as again:
        assert again.records()[: len(here)] == here
        assert held(crashed) == 0
        await Walk(again).go()
    assert check(crashed).ok


async def test_a_crash_while_a_call_is_out_ends_it(tmp_path: Path) -> None:
    """Its intent is in the journal alone: after the start it ends as unknown."""
    kept: list[Path] = []
    async with open_books(tmp_path / "s") as books:

        async def act(intent: Intent) -> None:
            kept.append(image(books, tmp_path / "crashed"))
            assert intent.call.id in {row[0] for row in tables(kept[0])["intents"]}
            assert intent.call.id not in {row[0] for row in tables(kept[0], bare)["intents"]}

        await Walk(books).go()
        answer = await Walk(books, act=act).go()
    async with open_books(kept[0], StepClock()) as again:
        assert again.types(answer.call_id)[-2:] == ["tool.requested", "tool.outcome_unknown"]
        assert not again.verify().open_calls


@pytest.mark.parametrize("cut", ["head", "numbers", "digest", "content", "short", "end"])
async def test_a_frame_that_was_not_written_whole_is_none(tmp_path: Path, cut: str) -> None:
    """Nobody was told of it; what is before it stands."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        crashed = image(books, tmp_path / "crashed")
    path = crashed / JOURNAL
    whole = frames(path)
    data = bytearray(path.read_bytes())
    at = max(place for place in range(0, CAPACITY, 4096) if data[place : place + 8] == b"ostjrnl1")
    if cut in {"short", "end"}:
        path.write_bytes(data[: at + (40 if cut == "short" else 100)])
    else:
        data[at + {"head": 3, "numbers": 9, "digest": 40, "content": 90}[cut]] ^= 1
        path.write_bytes(data)
    assert [one.size for one in frames(path)] == [one.size for one in whole][:-1]
    async with open_books(crashed, StepClock()) as again:
        assert again.records("tool.outcome_unknown")
        await Walk(again).go()
    assert check(crashed).ok


async def test_a_journal_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    """The guard noted more than the tables have: the start is refused, and changes nothing."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        books.ledger._store._guard.note(await newest(books))
        crashed = image(books, tmp_path / "crashed")
    (crashed / JOURNAL).unlink()
    assert not check(crashed).ok
    with pytest.raises(StateRefused, match="journal"):
        async with open_books(crashed, StepClock()):
            pass
    assert not (crashed / JOURNAL).exists()


async def newest(books: Books) -> str:
    """The checkpoint over all records, with those the journal holds."""
    rows = tables(books.folder)["checkpoints"]
    return str(max(rows, key=lambda row: row[1])[4])


async def test_another_log_s_journal_is_refused(tmp_path: Path) -> None:
    """Frames that would follow by their numbers, of records this log's key never signed."""
    folders = []
    for name in ("a", "b"):
        async with open_books(tmp_path / name) as books:
            await Walk(books).go()
            await books.ledger.settle()
            await Walk(books).go()
            folders.append(image(books, tmp_path / f"{name}-crashed"))
    shutil.copy(folders[1] / JOURNAL, folders[0] / JOURNAL)
    before = (folders[0] / DATABASE).read_bytes()
    assert not check(folders[0]).ok
    with pytest.raises(StateRefused):
        async with open_books(folders[0], StepClock()):
            pass
    assert (folders[0] / DATABASE).read_bytes() == before


async def test_a_clean_end_leaves_an_empty_journal(tmp_path: Path) -> None:
    """All is in the tables, and nothing behind that could be taken for what follows an older state."""
    async with open_books(tmp_path / "s") as books:
        for _ in range(3):
            await Walk(books).go()
        assert frames(books.folder / JOURNAL)
    assert frames(tmp_path / "s" / JOURNAL) == []
    assert tables(tmp_path / "s", bare) == tables(tmp_path / "s")


async def test_a_reader_sees_nothing_twice(tmp_path: Path) -> None:
    """Opened while the journal held something, asked again and again while it moves into the tables and more comes."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        with closing(connect_readonly(books.folder / DATABASE)) as db:
            assert held(books.folder) > 0
            for _ in range(3):
                seen = [index for (index,) in db.execute("select idx from records order by idx")]
                assert seen == list(range(len(seen)))
                assert db.execute("select max(size) from checkpoints").fetchone()[0] == len(seen)
                assert db.execute("select count(*) from intents").fetchone() == (0,)
                pids = [pid for (pid,) in db.execute("select pid from payloads order by pid")]
                assert len(set(pids)) == len(pids)
                await books.ledger.settle()
                await Walk(books).go()
                await books.ledger.settle()


async def test_many_calls_move_into_the_tables_by_themselves(tmp_path: Path) -> None:
    """The journal never holds more than some hundred records, however many come."""
    async with open_books(tmp_path / "s") as books:
        most = 0
        for _ in range(200):
            await Walk(books).go()
            most = max(most, held(books.folder))
        assert 100 < most <= 256
        assert books.verify().ok
        assert len(books.records("tool.completed")) == 200


@pytest.mark.parametrize("size", [100, 4096, 300_000, 1_500_000])
async def test_payloads_of_any_size(tmp_path: Path, size: int) -> None:
    """What has no room in the journal goes to the tables at once, after what it holds."""
    async with open_books(tmp_path / "s") as books:
        scribe = Scribe(books.clock, books.keys)
        await Walk(books).go()
        for _ in range(6):
            await books.ledger.append([note(scribe, Payload(Role.REASONS, b"x" * size, "text/plain"))])
        crashed = image(books, tmp_path / "crashed")
        assert books.verify().ok
    assert len([one for one in read_records(crashed) if one["type"] == "admin.change"]) == 6
    assert check(crashed).ok


async def test_the_writer_reads_what_the_journal_holds(tmp_path: Path) -> None:
    """Whatever it has forgotten it finds in the tables, where the journal has been put first."""
    async with open_books(tmp_path / "s") as books:
        first = await Walk(books).go()
        await Walk(books).go()
        assert held(books.folder) > 0
        store = books.ledger._store
        store._heads.forget()
        store._data_keys.forget()
        await Walk(books).go()
        run = next(one["run_id"] for one in books.records() if one["call_id"] == first.call_id)
        numbers = [one["seq_run"] for one in books.records() if one["run_id"] == run]
        assert numbers == list(range(len(numbers)))
        assert books.verify().ok


async def test_a_journal_that_cannot_be_written_refuses_calls_and_heals(tmp_path: Path) -> None:
    """Nothing is executed, nothing is lost; the next write opens it anew."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        reached: list[str] = []

        async def act(intent: Intent) -> None:
            reached.append(intent.call.id)

        with unwritable(books):
            with pytest.raises(Unavailable):
                await Walk(books, act=act).go()
            assert reached == []
        await books.log.ping()
        await Walk(books, act=act).go()
        assert len(reached) == 1
        report = books.verify()
        assert report.ok, report.findings
        assert not report.open_calls


def unwritable(books: Books) -> Any:
    """The journal's file is open for reading only, until it is opened anew."""
    inner = writer(books)
    file = os.open(books.folder / JOURNAL, os.O_RDONLY)
    os.dup2(file, inner._journal._file)
    return closing(Closing(file))


class Closing:
    """A descriptor to be closed."""

    def __init__(self, file: int) -> None:
        self._file = file

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


def writer(books: Books) -> JournaledDatabase:
    """The writer's connection."""
    db = books.ledger._store._db
    assert isinstance(db, JournaledDatabase)
    return db


@pytest.mark.parametrize(
    ("which", "heard", "ends"), [(1, Unavailable, "tool.not_sent"), (2, OutcomeUnknown, "tool.completed")]
)
async def test_a_frame_that_only_seemed_to_fail_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, heard: type[GatewayError], ends: str
) -> None:
    """It is on disk though its caller was told that it may not be: an intent ends as not sent, an ending stands."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        real, count = os.pwrite, [0]

        def pwrite(file: int, data: memoryview, at: int) -> int:
            done = real(file, data, at)
            count[0] += 1
            if count[0] == which:
                raise OSError(5, "the device gave up")
            return done

        monkeypatch.setattr(os, "pwrite", pwrite)
        call = Walk(books).call()
        with pytest.raises(heard):
            await Walk(books).go(call)
        monkeypatch.undo()
        await books.log.ping()
        assert [kind for kind in books.types(call.id) if kind in ENDINGS] == [ends]
        report = books.verify()
        assert report.ok, report.findings
        assert not report.open_calls


async def test_a_journal_that_is_moved_away_is_noticed(tmp_path: Path) -> None:
    """Nobody would find what is written to it: calls are refused until it is back and the gateway starts again."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        await Walk(books).go()
        (books.folder / JOURNAL).rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="place"):
            await Walk(books).go()
        (tmp_path / "elsewhere").rename(books.folder / JOURNAL)
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        assert books.verify().ok


@pytest.mark.parametrize("seed", range(8))
async def test_the_tables_are_the_same_however_they_came_about(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same calls, by the journal and without it: the same rows in every table, and a reader never sees others."""
    found = []
    for name, most in (("journal", 256), ("few", 7), ("none", 0)):
        monkeypatch.setattr("gateway.adapters.ledger.storage.journaled._MOST", most)
        chance = random.Random(seed)
        async with open_books(tmp_path / name, StepClock()) as books:
            for _ in range(30):
                await some(books, chance)
                if chance.random() < 0.2:
                    await books.ledger.settle()
            kinds = [(one["type"], one["seq_run"]) for one in books.records()]
            found.append((kinds, {table: len(lines) for table, lines in tables(books.folder).items()}))
            assert books.verify().ok
        assert {table: len(lines) for table, lines in tables(tmp_path / name, bare).items()} == found[-1][1]
    assert found[0] == found[1] == found[2]


async def some(books: Books, chance: random.Random) -> None:
    """One of the things that happen."""
    session = {"session": f"s{chance.randrange(3)}"}
    kind = chance.randrange(4)
    try:
        if kind == 0:
            await Walk(books, more=session, refusal=Unavailable("busy")).go()
        elif kind == 1:

            async def act(intent: Intent) -> None:
                raise OutcomeUnknown("gone")

            await Walk(books, more=session, act=act).go()
        else:
            await Walk(books, more=session, arguments={"a": "x" * chance.randrange(3000)}).go()
    except GatewayError:
        pass


async def test_a_reader_in_another_thread_meets_a_busy_writer(tmp_path: Path) -> None:
    """Opened again and again while calls go on: never a hole, never a record twice, never fewer than before."""
    stop, seen, wrong = threading.Event(), [0], []

    def read(folder: Path) -> None:
        while not stop.is_set():
            with closing(connect_readonly(folder / DATABASE)) as db:
                db.snapshot()
                found = [index for (index,) in db.execute("select idx from records order by idx")]
            if found != list(range(len(found))) or len(found) < seen[-1]:
                wrong.append(found[-3:])
            seen.append(len(found))

    async with open_books(tmp_path / "s") as books:
        thread = threading.Thread(target=read, args=(books.folder,))
        thread.start()
        try:
            for turn in range(300):
                await Walk(books).go()
                if turn % 50 == 0:
                    await anyio.sleep(0.01)
        finally:
            stop.set()
            await anyio.to_thread.run_sync(thread.join)
        with closing(bare(books.folder / DATABASE)) as db:
            assert reach(db, books.folder / JOURNAL) == len(books.records())  # type: ignore[arg-type]
    assert wrong == []
    assert len(seen) > 5
