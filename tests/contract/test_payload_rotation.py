"""The key of payloads replaced in its file: all stays readable, the old key opens nothing, a kill loses nothing."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, to_thread
from anyio.lowlevel import checkpoint

from gateway.adapters.ledger.books import payload_rotation
from gateway.adapters.ledger.books.payload_rotation import PayloadKeyRotation
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import NEXT_KEK, PAYLOAD_KEK
from gateway.adapters.ledger.keyring.sealing import PayloadKey, SealBroken
from gateway.adapters.ledger.keyring.wrapped_keys import create_or_unwrap
from gateway.adapters.ledger.storage.files import DATABASE, connect_beside
from gateway.core.errors import Unavailable
from tests.contract.test_wrapped_keys import FakeWrapper
from tests.evidence import make_principal
from tests.ledgers import ORIGIN, Books, Walk, check, open_books

RUNS = 7


def rotation(books: Books) -> PayloadKeyRotation:
    """What replaces the key of these books."""
    return PayloadKeyRotation(books.folder, books.keys.kek, books.ledger, books.clock)


def on_disk(folder: Path) -> tuple[set[str], bytes]:
    """The files of payload keys, and what is in the first."""
    keys = folder / "keys"
    return {path.name for path in keys.glob("payload*")}, (keys / PAYLOAD_KEK).read_bytes()


def opened_by(folder: Path, key: bytes) -> int:
    """How many of the stored data keys that key opens."""
    kek, found = PayloadKey(key), 0
    with sqlite3.connect(folder / DATABASE) as db:
        rows = db.execute("select id, wrapped from deks").fetchall()
    db.close()
    for dek_id, wrapped in rows:
        try:
            kek.unwrap(dek_id, wrapped)
        except SealBroken:
            continue
        found += 1
    return found


async def walked(books: Books, calls: int = RUNS) -> list[str]:
    """So many calls, each in a run of its own; their ids."""
    users = [make_principal(user=f"user-{books.clock.uuid()}") for _ in range(calls)]
    return [(await Walk(books, principal=user).go()).call_id for user in users]


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_rotation, "_MOST", 2)


@pytest.mark.requirement("CRED-2")
async def test_everything_stays_readable_and_the_old_key_opens_nothing(tmp_path: Path) -> None:
    """Before, meanwhile and afterwards, and after a restart; twice."""
    calls: list[str] = []
    async with open_books(tmp_path) as books:
        for _ in range(2):
            calls = await walked(books)
            before = on_disk(tmp_path)[1]
            assert opened_by(tmp_path, before) >= RUNS
            await rotation(books).rotate()
            names, now = on_disk(tmp_path)
            assert names == {PAYLOAD_KEK}
            assert now != before
            assert (tmp_path / "keys" / PAYLOAD_KEK).stat().st_mode & 0o777 == 0o600
            assert opened_by(tmp_path, before) == 0
            for call_id in [*calls, *await walked(books, 1)]:
                assert await books.reader.payload(call_id, "request")
            assert books.verify().findings == []
    async with open_books(tmp_path) as books:
        assert await books.reader.payload(calls[0], "request")
        assert rotation(books).kek.is_settled
    report = check(tmp_path)
    assert (report.findings, report.opened) == ([], report.payloads)


async def test_the_loop_does_not_wait_for_the_rotation_s_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one of them takes its time on the disk, the loop serves everybody, and records are written afterwards."""
    holds, let_go, was_let = threading.Event(), threading.Event(), list[bool]()

    def slow(self: PayloadKeyRotation) -> None:
        with closing(connect_beside(self.state)) as db:
            db.begin()
            holds.set()
            was_let.append(let_go.wait(3))
            db.rollback()

    monkeypatch.setattr(PayloadKeyRotation, "_wrap_all", slow)
    async with open_books(tmp_path) as books, create_task_group() as group:
        books.ledger._takes_s = 0.0
        group.start_soon(rotation(books).rotate)
        await to_thread.run_sync(holds.wait)
        written = books.ledger.submit([])
        for _ in range(20):
            await checkpoint()
        let_go.set()
        await written
    assert was_let == [True]


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, step: str) -> Iterator[None]:
    """Whoever gets to the step gets no further."""

    def die(*_: Any, **__: Any) -> Any:
        raise Killed

    def second(pages: Any) -> Any:
        def some(db: Any) -> Any:
            yield next(pages(db))
            raise Killed

        return some

    with monkeypatch.context() as patch:
        if step == "writing":
            patch.setattr(os, "fsync", die)
        elif step == "one page":
            patch.setattr(payload_rotation, "_pages", second(payload_rotation._pages))
        else:
            owner, name = STEPS[step]
            patch.setattr(owner, name, die)
        yield


STEPS: dict[str, tuple[Any, str]] = {
    "written beside": (Path, "rename"),
    "named": (payload_rotation, "sync_folder"),
    "nothing is wrapped yet": (PayloadKeyRotation, "_wrap_all"),
    "all is wrapped": (PayloadKeyRotation, "_end"),
}


@pytest.mark.requirement("CRED-2")
@pytest.mark.parametrize("step", ["writing", "one page", *STEPS])
async def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The log can be read and checked as it was left; the next start goes on, and the old key opens nothing then."""
    async with open_books(tmp_path) as books:
        calls, before = await walked(books), on_disk(tmp_path)[1]
        with killed_at(monkeypatch, step), pytest.raises(Killed):
            await rotation(books).rotate()
        calls += await walked(books, 1)  # those that were under way
    assert check(tmp_path).findings == []
    async with open_books(tmp_path) as books:
        for call_id in calls:
            assert await books.reader.payload(call_id, "request")
        await rotation(books).settle()
        was_begun = opened_by(tmp_path, before) == 0
        assert was_begun is (step not in {"writing", "written beside"})
        await rotation(books).rotate()
        assert opened_by(tmp_path, before) == 0
        assert on_disk(tmp_path)[0] == {PAYLOAD_KEK}
        for call_id in calls:
            assert await books.reader.payload(call_id, "request")
    assert check(tmp_path).findings == []


async def test_what_is_destroyed_meanwhile_stays_destroyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure between the look at a data key and its wrapping: the key does not come back."""
    async with open_books(tmp_path) as books:
        await walked(books)
        pages = payload_rotation._pages

        def erasing(db: Any) -> Iterator[Any]:
            for rows in pages(db):
                with sqlite3.connect(tmp_path / DATABASE) as other:
                    other.execute("delete from deks where id = ?", (rows[0][0],))
                other.close()
                yield rows

        monkeypatch.setattr(payload_rotation, "_pages", erasing)
        with sqlite3.connect(tmp_path / DATABASE) as db:
            (before,) = db.execute("select count(*) from deks").fetchone()
        await rotation(books).rotate()
        (after,) = db.execute("select count(*) from deks").fetchone()
        db.close()
        assert after == before - (before + 1) // 2


async def test_what_cannot_be_written_is_said_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a broken database: Unavailable without any key in its words; the same call ends it afterwards."""

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with open_books(tmp_path) as books:
        await walked(books)
        for owner, name, error in ((os, "fsync", refuse), (payload_rotation, "_pages", fail)):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, error)
                with pytest.raises(Unavailable) as caught:
                    await rotation(books).rotate()
            assert caught.value.cause_code == "payload_key"
        await rotation(books).rotate()
        assert on_disk(tmp_path)[0] == {PAYLOAD_KEK}
        assert books.verify().findings == []


async def test_a_vault_does_not_take_over_in_the_middle(tmp_path: Path) -> None:
    """Wrapping one of two keys would lose what the other has wrapped: refused, and nothing is removed."""
    async with open_books(tmp_path):
        pass
    (tmp_path / "keys" / NEXT_KEK).write_bytes(bytes(32))
    with pytest.raises(StateRefused, match="being replaced"):
        await create_or_unwrap(tmp_path / "keys", ORIGIN, FakeWrapper())
    assert on_disk(tmp_path)[0] == {PAYLOAD_KEK, NEXT_KEK}
