"""Killed in the middle of erasing: all of an erasure is there or nothing, and the next start ends what was left."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.core.records import EventType
from tests.ledgers import check, content, open_books, read_records
from tests.waiting import until

ROOT = Path(__file__).parents[2]


def erasing(folder: Path) -> "subprocess.Popen[str]":
    """A process that erases runs for ever."""
    command = [sys.executable, "-m", "tests.fixtures.ledger_eraser", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def named(folder: Path) -> set[str]:
    """The data keys that records say were destroyed."""
    records = read_records(folder)
    return {key for record in records if record["type"] == EventType.ERASURE for key in record["body"]["keys"]}


def keys(folder: Path) -> dict[str, bytes]:
    """The wrapped data keys that are there."""
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        return dict(db.execute("select id, wrapped from deks"))


@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_a_killed_erasure_is_whole_or_was_not_begun(tmp_path: Path, acknowledged: int) -> None:
    """Each answered one is on record; a key is gone where a record says so and only there; the log verifies."""
    with erasing(tmp_path) as process:
        assert process.stdout is not None
        answered = {process.stdout.readline().strip() for _ in range(acknowledged)}
        process.kill()
    report = check(tmp_path)
    assert report.ok, report.findings
    gone = named(tmp_path)
    assert answered <= gone
    assert not gone & keys(tmp_path).keys()
    runs = {record["run_id"] for record in read_records(tmp_path) if record["run_id"] is not None}
    assert runs - gone <= keys(tmp_path).keys()

    async def again() -> None:
        async with open_books(tmp_path, SystemClock()) as books:
            assert books.ledger.swept

    anyio.run(again)
    report = check(tmp_path)
    assert report.ok, report.findings


def test_what_a_killed_erasure_left_in_the_write_ahead_log_is_gone_after_the_next_start(tmp_path: Path) -> None:
    """Recorded but not yet moved, as somebody was reading: the copies of the key are there, and then they are not."""
    with erasing(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as reader:
            reader.execute("begin")
            before = dict(reader.execute("select id, wrapped from deks"))
            seen = named(tmp_path)
            anyio.run(until, lambda: bool(named(tmp_path) - seen))
            process.kill()
            process.wait()
    doomed = [before[key] for key in named(tmp_path) & before.keys()]

    async def again() -> None:
        async with open_books(tmp_path, SystemClock()) as books:
            assert books.ledger.swept

    anyio.run(again)
    everything = content(tmp_path)
    assert not [key for key in doomed if key in everything]
    assert (tmp_path / f"{DATABASE}-wal").exists() is False or (tmp_path / f"{DATABASE}-wal").stat().st_size == 0
