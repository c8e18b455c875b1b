"""The journal's file by itself: frames that follow each other, written past the cache where that can be done."""

import os
import random
from pathlib import Path

import pytest

from deploy.campaigns.kill.commits import count
from gateway.adapters.ledger.additions import Additions
from gateway.adapters.ledger.database import DatabaseFault
from gateway.adapters.ledger.storage import journal
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.journal import JOURNAL, Journal, beyond, frames
from tests.ledgers import Walk, open_books

SHARED_MEMORY = Path("/dev/shm")


def test_a_file_system_without_direct_writes(tmp_path: Path) -> None:
    """Where nothing is written past a cache the journal is synced by it."""
    if not SHARED_MEMORY.is_dir():
        pytest.skip("there is no /dev/shm here")
    path = SHARED_MEMORY / f"ostiary-{os.getpid()}-{JOURNAL}"
    try:
        kept = Journal(path)
        rows = Additions.none(3)
        rows.size, rows.reasons = 4, [("a", 3)]
        assert kept.hold(rows)
        kept.append()
        kept.close()
        assert frames(path) == [rows]
    finally:
        path.unlink(missing_ok=True)


def test_a_journal_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """A folder in its place, or a pipe that nobody writes to; a frame whose content is no addition."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(DatabaseFault):
            frames(tmp_path / name)
    content = b"\xc1"
    numbers = journal._NUMBERS.pack(1, 0, 1, len(content))
    (tmp_path / "odd").write_bytes(b"ostjrnl1" + numbers + journal._digest(numbers, content) + content)
    with pytest.raises(DatabaseFault):
        frames(tmp_path / "odd")
    assert frames(tmp_path / "none") == []


def rows(first: int, count: int, chance: random.Random) -> Additions:
    """Some additions."""
    more = Additions.none(first)
    more.size = first + count
    more.payloads = [(index, chance.randbytes(chance.randrange(5000))) for index in range(first, first + count)]
    return more


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_gives_back_what_follows(tmp_path: Path, seed: int) -> None:
    """Random frames and new beginnings: what is beyond the tables is what came since the last one, always."""
    chance, path = random.Random(seed), tmp_path / JOURNAL
    kept, size, moved = Journal(path), 1, 1
    for _ in range(chance.randrange(1, 200)):
        if chance.random() < 0.1:
            kept.restart()
            moved = size
        if chance.random() < 0.05:  # it grew by another way meanwhile
            kept.restart()
            size += chance.randrange(1, 5)
            moved = size
        more = rows(size, chance.randrange(1, 12), chance)
        if not kept.hold(more):
            kept.restart()
            moved = size
            assert kept.hold(more)
        kept.append()
        size = more.size
        found = beyond(frames(path), moved)
        assert (found.first, found.size, len(found.payloads)) == (moved, size, size - moved)
        assert beyond(frames(path), size).payloads == []
    kept.close()


async def test_commits_of_a_call_are_counted_in_the_files(tmp_path: Path) -> None:
    """Two for each call, whether they went to the journal or to the tables."""
    async with open_books(tmp_path / "s") as books:
        await Walk(books).go()
        for calls in (1, 20, 150):
            before = count(books.folder / DATABASE)
            for _ in range(calls):
                await Walk(books).go()
            assert count(books.folder / DATABASE).since(before) == 2 * calls
