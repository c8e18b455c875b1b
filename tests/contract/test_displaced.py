"""A SQLite log whose files are taken away, or whose folder is entered twice, while a gateway runs on it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import PSEUDONYM_KEY
from gateway.adapters.ledger.storage.files import DATABASE, GUARD, LOCK
from gateway.core.call import Intent
from gateway.core.errors import Unavailable
from gateway.core.tlog import Checkpoint, split_note
from tests.ledgers import Walk, open_books
from tests.waiting import until

WAL = f"{DATABASE}-wal"


def removed(folder: Path) -> None:
    """The write-ahead log is deleted: the newest records are in no file that has a name."""
    (folder / WAL).unlink()


def replaced(folder: Path) -> None:
    """Another file stands where the database was."""
    shutil.copy(folder / DATABASE, folder / "other")
    (folder / DATABASE).rename(folder / "aside")
    (folder / "other").rename(folder / DATABASE)


def nothing(folder: Path) -> None:
    """Nothing to put back."""


def back(folder: Path) -> None:
    """The database is put back."""
    (folder / "aside").rename(folder / DATABASE)


@pytest.mark.parametrize(("act", "undo"), [(removed, nothing), (replaced, back)])
async def test_what_nobody_would_find_is_not_written(
    tmp_path: Path, act: Callable[[Path], None], undo: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are refused before anything is sent, it is said once, and all that was acknowledged is in the log again."""
    sent: list[str] = []

    async def reached(intent: Intent) -> None:
        sent.append(intent.call.id)

    async with open_books(tmp_path) as books:
        for _ in range(3):
            await Walk(books).go()
        size = len(books.records())
        act(tmp_path)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await Walk(books, act=reached).go()
        with pytest.raises(Unavailable, match="not in its place"):
            await books.ledger.ping()
    undo(tmp_path)
    assert sent == []
    assert sum("moved away, removed or replaced" in line for line in caplog.messages) == 1
    async with open_books(tmp_path) as books:
        assert len(books.records()) == size
        await Walk(books).go()
        assert books.verify().findings == []


async def test_removing_the_lock_lets_nobody_in(tmp_path: Path) -> None:
    """A second gateway would end the calls of the first as if it were dead."""
    async with open_books(tmp_path):
        (tmp_path / LOCK).unlink()
        with pytest.raises(StateRefused, match="another gateway"):
            async with open_books(tmp_path):
                raise AssertionError("it started")


async def test_the_pseudonym_key_of_another_log_is_refused(tmp_path: Path) -> None:
    """By it a stopped user would have another name, and not be stopped."""
    async with open_books(tmp_path / "one") as books:
        await Walk(books).go()
    async with open_books(tmp_path / "other"):
        pass
    own = tmp_path / "one" / "keys" / PSEUDONYM_KEY
    kept = own.read_bytes()
    shutil.copy(tmp_path / "other" / "keys" / PSEUDONYM_KEY, own)
    with pytest.raises(StateRefused, match="is not the one of this log"):
        async with open_books(tmp_path / "one"):
            raise AssertionError("it started")
    own.write_bytes(kept)
    async with open_books(tmp_path / "one") as books:
        await Walk(books).go()
        assert books.verify().findings == []


async def test_the_last_record_before_a_rest_is_guarded(tmp_path: Path) -> None:
    """Within a second or two, though nothing more is written."""
    async with open_books(tmp_path, SystemClock()) as books:
        await Walk(books).go()
        await Walk(books).go()
        size = len(books.records())
        await until(lambda: Checkpoint.parse(split_note((tmp_path / GUARD).read_text())[0]).size == size)


async def test_a_log_that_is_gone_all_but_its_keys_is_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guard and database are away: that a log is begun by the old name is said, and not where the keys are new."""
    async with open_books(tmp_path):
        pass
    assert caplog.messages == []
    async with open_books(tmp_path):
        pass
    assert caplog.messages == []
    for name in (DATABASE, GUARD):
        (tmp_path / name).unlink()
    async with open_books(tmp_path):
        pass
    assert sum("begun with keys that were here before" in line for line in caplog.messages) == 1
