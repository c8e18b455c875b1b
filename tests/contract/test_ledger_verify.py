"""Whatever is altered in a log, the offline verifier finds it and names the record."""

import asyncio
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.adapters.ledger.keyring.sealing import PayloadKey
from gateway.adapters.ledger.storage.files import DATABASE, GUARD
from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify import Means, verify
from gateway.cli.root import ostiary
from gateway.core.decision import Effect
from gateway.core.errors import Denied
from gateway.core.tlog import Checkpoint, Signer, leaf_hash
from tests.clock import StepClock
from tests.evidence import make_decision
from tests.ledgers import ORIGIN, Books, Walk, check, open_books
from tests.tiers import tiered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed log: two runs, calls of several endings, one run ended."""
    asyncio.run(write(tmp_path))
    return tmp_path


async def write(tmp_path: Path, *, small: bool = False) -> None:
    """Write the log, or only its first call."""
    async with open_books(tmp_path, StepClock()) as books:
        answer = await Walk(books, counts={"rule": 1}, more={"session": "a"}).go()
        if small:
            return
        await Walk(books, more={"session": "b"}).go()
        await deny(books)
        await Walk(books, more={"session": "a"}).go()
        await books.runs.end(answer.run_id, "operator")


async def deny(books: Books) -> None:
    """A denied call."""
    with pytest.raises(Denied):
        await Walk(books, decision=make_decision(Effect.DENY), more={"session": "b"}).go()


async def out(folder: Path) -> Path:
    """A copy of a log, with its keys, while a call is out."""
    copy = folder / "copy"

    async def act(intent: object) -> None:
        await books.ledger.settle()
        books.ledger._store.tend()
        shutil.copytree(folder / "state", copy)

    async with open_books(folder / "state", StepClock()) as books:
        await Walk(books, act=act).go()
    sqlite3.connect(copy / DATABASE).execute("pragma wal_checkpoint(truncate)").connection.close()
    return copy


def alter(folder: Path, statement: str, *values: object) -> Report:
    """Change the database behind the log's back, verify, and change it back."""
    database = folder / DATABASE
    original = database.read_bytes()
    db = sqlite3.connect(database)
    db.execute(statement, values)
    db.commit()
    db.close()
    report = check(folder)
    database.write_bytes(original)
    return report


def named(report: Report) -> set[int | None]:
    """The records that findings name."""
    return {finding.index for finding in report.findings}


def test_an_untouched_log_verifies(folder: Path) -> None:
    """No findings; all records, payloads and the checkpoint were looked at."""
    report = check(folder)
    assert report.ok
    assert not report.open_calls
    assert report.checkpoint is not None
    assert (report.size, report.checkpoint.size) == (15, 15)
    assert report.payloads > 10


@pytest.mark.requirement("AUDIT-1")
@pytest.mark.parametrize("step", tiered([23], deep=[1]))
def test_every_flipped_byte_of_every_record_is_found(tmp_path: Path, step: int) -> None:
    """One bit anywhere in any leaf of a small log: found, and the record is named; each time in every 23rd byte."""
    asyncio.run(write(tmp_path, small=True))
    db = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    db.execute("pragma synchronous = off")
    leaves = db.execute("select idx, leaf from records").fetchall()
    assert len(leaves) == 6
    missed = []
    for index, leaf in leaves:
        for at in range(index % step, len(leaf), step):
            altered = bytearray(leaf)
            altered[at] ^= 1 << at % 8
            db.execute("update records set leaf = ? where idx = ?", (bytes(altered), index))
            if index not in named(check(tmp_path)):
                missed.append((index, at))
        db.execute("update records set leaf = ? where idx = ?", (leaf, index))
    db.close()
    assert missed == []
    assert check(tmp_path).ok


def test_an_alteration_with_a_fitting_hash_is_found(folder: Path) -> None:
    """Who alters record and stored hash alike is found by the run's chain and by the signed root."""
    db = sqlite3.connect(folder / DATABASE)
    (leaf,) = db.execute("select leaf from records where idx = 3").fetchone()
    db.close()
    from_hash = "update records set leaf = ?, hash = ? where idx = 3"
    altered = leaf.replace(b"up.echo", b"up.ecko")
    problems = " ".join(finding.problem for finding in alter(folder, from_hash, altered, leaf_hash(altered)).findings)
    assert "does not continue record 3" in problems
    assert "records 0 to 14 are not the ones that were signed" in problems


@pytest.mark.requirement("AUDIT-1")
@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("update records set hash = zeroblob(32) where idx = 2", 2),
        ("update records set tool = 'up.other' where idx = 2", 2),
        ("update records set type = 'decision' where idx = 3", 3),
        ("update records set ts = ts + 1 where idx = 5", 5),
        ("update records set id = 'x' where idx = 5", 5),
        ("update records set effect = 'allow' where effect = 'deny'", 10),
        ("update records set agent = null where idx = 5", 5),
        ("delete from records where idx = 4", 4),
        ("delete from records where idx = 14", None),
        ("update payloads set sealed = zeroblob(64) where pid = 2 * 8", 2),
        ("delete from payloads where pid = 3 * 8", 3),
        ("insert into payloads values (0, x'00')", 0),
        ("insert into payloads values (99 * 8, x'00')", 99),
        ("update checkpoints set note = replace(note, '15', '14')", 14),
        ("update checkpoints set size = 14", 13),
        ("update checkpoints set win = 7", 14),
        ("update checkpoints set peaks = zeroblob(32)", 14),
        ("update checkpoints set high_us = high_us + 1", 14),
        ("update checkpoints set low_us = low_us - 1", 14),
        ("delete from checkpoints", 0),
        ("delete from reasons where idx = 10", 10),
        ("insert into reasons values ('x', 1)", None),
        ("insert into intents values ('x', 1, '')", None),
        ("delete from open_runs", None),
        ("update open_runs set binding = 'x'", None),
        ("update open_runs set binding = null", None),
        ("delete from deks", 1),
        ("update deks set wrapped = zeroblob(60)", 1),
        ("update deks set wrapped = x'00'", 1),
        ("create trigger t after insert on records begin delete from payloads; end", None),
        ("create view v as select 1", None),
        ("create table t (x)", None),
        ("create index i on records (id)", None),
        ("drop index records_tool", None),
        ("pragma user_version = 1", None),
        ("pragma application_id = 1", None),
        ("update records set leaf = x'ff' where idx = 6", 6),
        ("update records set leaf = cast('{}' as blob) where idx = 6", 6),
    ],
)
def test_every_kind_of_alteration_is_found(folder: Path, statement: str, index: int | None) -> None:
    """Columns, hashes, payloads, checkpoints, missing and added rows: each is a finding that names the place."""
    assert index in named(alter(folder, statement))


@pytest.mark.requirement("AUDIT-1")
def test_every_flipped_byte_of_a_payload_and_of_the_checkpoint_is_found(folder: Path) -> None:
    """One bit in any sealed payload or in the signed checkpoint."""
    db = sqlite3.connect(folder / DATABASE, isolation_level=None)
    (pid, sealed) = db.execute("select pid, sealed from payloads order by length(sealed) limit 1").fetchone()
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1
        db.execute("update payloads set sealed = ? where pid = ?", (bytes(altered), pid))
        assert pid // 8 in named(check(folder)), at
    db.execute("update payloads set sealed = ? where pid = ?", (sealed, pid))
    (note,) = db.execute("select note from checkpoints").fetchone()
    for at in range(len(note)):
        altered_note = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
        db.execute("update checkpoints set note = ?", (altered_note,))
        assert 14 in named(check(folder)), at
    db.close()


def test_progress_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, as the number of records read and the number there are."""
    monkeypatch.setattr("gateway.adapters.ledger.verification.verify._STEP", 5)
    told: list[tuple[int, int]] = []
    vkey = (folder / "keys/log.vkey").read_text()
    assert verify(folder, vkey, progress=lambda done, total: told.append((done, total))).ok
    assert told == [(5, 15), (10, 15), (15, 15)]


def test_progress_is_shown_on_a_terminal_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person sees it and it is wiped off at the end; a file or a pipe gets none of it."""
    monkeypatch.setattr("gateway.adapters.ledger.verification.verify._STEP", 15)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with pytest.raises(SystemExit) as left:
            ostiary(["audit", "verify", "--state", str(folder)])
        assert left.value.code == 0
        said = capsys.readouterr().err
        assert ("15 of 15 records, " in said) is is_terminal
        assert said.endswith("\r\x1b[K") is is_terminal


def test_another_key_does_not_verify(folder: Path, tmp_path: Path) -> None:
    """A log signed by somebody else is not this log."""
    keys = create_or_load(tmp_path / "others", ORIGIN)
    assert "no signature by a known key" in verify(folder, keys.signer.key.text).findings[0].problem
    renamed = Signer("gateway.west/log", create_or_load(folder / "keys", ORIGIN).signer._private)
    assert not verify(folder, renamed.key.text).ok
    assert "public key" in verify(folder, "garbage").findings[0].problem


def test_garbage_is_a_finding(folder: Path, tmp_path: Path) -> None:
    """No file, no database, a damaged page: a finding, never an exception."""
    vkey = (folder / "keys/log.vkey").read_text()
    assert not verify(tmp_path / "nowhere" / DATABASE, vkey).ok
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(os.urandom(10_000))
    assert not verify(garbage, vkey).ok
    garbage.write_bytes(b"")
    assert not verify(garbage, vkey).ok


def test_damaged_pages_never_raise(folder: Path) -> None:
    """Bytes of the file are overwritten here and there: either it does not matter or it is found."""
    database = folder / DATABASE
    original = database.read_bytes()
    found = 0
    for at in range(0, len(original), 509):
        database.write_bytes(original[:at] + b"\xa5" * 16 + original[at + 16 :])
        found += not check(folder).ok
    assert found > 20
    database.write_bytes(original)
    assert check(folder).ok


def test_the_list_of_open_calls_is_checked(tmp_path: Path) -> None:
    """A call that is out stands in it, with its place."""
    folder = asyncio.run(out(tmp_path))
    assert check(folder).ok
    assert len(check(folder).open_calls) == 1
    for change in ("delete from intents", "update intents set idx = idx - 1", "update intents set call_id = 'x'"):
        (finding,) = alter(folder, change).findings
        assert finding.problem == "the list of open calls is not what the records say"


def test_a_key_swapped_for_another_is_found(folder: Path) -> None:
    """Only with the key file at hand; without it the report says what it could not look at."""
    db = sqlite3.connect(folder / DATABASE)
    db.execute("update deks set wrapped = zeroblob(60)")
    db.commit()
    db.close()
    report = verify(folder, (folder / "keys/log.vkey").read_text())
    assert report.ok
    assert any("payload.kek is not at hand" in part for part in report.unchecked)
    assert not check(folder).ok


def test_what_a_payload_says_is_held_against_its_commitment(folder: Path) -> None:
    """All payloads are opened with the key file at hand, and no more than was asked for without."""
    report = check(folder)
    assert report.opened == report.payloads > 10
    vkey, kek = (folder / "keys/log.vkey").read_text(), PayloadKey((folder / "keys/payload.kek").read_bytes())
    assert verify(folder, vkey, Means(kek=kek)).opened == 0
    assert not verify(folder, vkey, Means(kek=PayloadKey(bytes(32)))).ok


def test_a_missing_or_foreign_guard_is_found(folder: Path) -> None:
    """Gone, damaged, or a checkpoint of another history."""
    guard = folder / GUARD
    text = guard.read_text()
    guard.unlink()
    assert "log.guard is missing" in check(folder).findings[0].problem
    guard.write_text(text.replace("15", "14"))
    assert "cannot be used" in check(folder).findings[0].problem
    signer = create_or_load(folder / "keys", ORIGIN).signer
    guard.write_text(signer.sign(Checkpoint(ORIGIN, 7, bytes(32)).text))
    assert "another history" in check(folder).findings[0].problem
    guard.write_text(text)
    assert check(folder).ok


async def test_a_log_cut_back_to_a_signed_state_is_found_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    """Who cuts the records, the lists and the guard alike leaves a log that is sound in itself."""
    async with open_books(tmp_path, StepClock()) as books:
        for _ in range(84):
            await Walk(books, more={"session": "s"}).go()
        kept = await books.tree.checkpoint()
        await Walk(books, more={"session": "s"}).go()
        newest = await books.tree.checkpoint()
    vkey = (tmp_path / "keys/log.vkey").read_text()
    assert verify(tmp_path, vkey, Means(kept)).ok
    assert verify(tmp_path, vkey, Means(newest)).ok
    cut_back(tmp_path)
    report = verify(tmp_path, vkey)
    assert [finding.problem[:25] for finding in report.findings] == ["the rollback guard log.gu"]
    (tmp_path / GUARD).write_text(stored_checkpoint(tmp_path))
    report = verify(tmp_path, vkey)
    assert report.ok
    assert any("checkpoint kept elsewhere" in part for part in report.unchecked)
    assert verify(tmp_path, vkey, Means(kept)).ok
    (finding,) = verify(tmp_path, vkey, Means(newest)).findings
    assert finding.problem.endswith("only 254 are here: cut short or set back")
    assert "kept elsewhere cannot be used" in verify(tmp_path, vkey, Means("x")).findings[0].problem


def cut_back(folder: Path) -> None:
    """Take away what came after the checkpoint before the newest, and the guard."""
    db = sqlite3.connect(folder / DATABASE)
    db.execute("delete from checkpoints where win = 1")
    (size,) = db.execute("select size from checkpoints").fetchone()
    db.execute("delete from records where idx >= ?", (size,))
    db.execute("delete from payloads where pid >= ? * 8", (size,))
    db.execute("delete from nodes where (place + 1) << level > ?", (size,))
    db.execute("delete from reasons where idx >= ?", (size,))
    db.commit()
    db.close()
    (folder / GUARD).unlink()


def stored_checkpoint(folder: Path) -> str:
    """The newest one in the database."""
    db = sqlite3.connect(folder / DATABASE)
    (note,) = db.execute("select note from checkpoints order by win desc").fetchone()
    db.close()
    return str(note)


async def test_a_log_is_verified_while_it_is_written(tmp_path: Path) -> None:
    """Calls that are out are listed, and are no finding."""
    async with open_books(tmp_path) as books:
        seen: list[Report] = []

        async def act(intent: object) -> None:
            seen.append(books.verify())

        answer = await Walk(books, act=act).go()
        assert seen[0].ok
        assert seen[0].open_calls == (answer.call_id,)


async def test_checkpoints_are_thinned_and_still_locate(tmp_path: Path) -> None:
    """One checkpoint for each 256 records; an alteration is located to its window by the roots alone."""
    async with open_books(tmp_path) as books:
        for _ in range(100):
            await Walk(books, more={"session": "s"}).go()
        assert books.verify().ok
    db = sqlite3.connect(tmp_path / DATABASE)
    assert db.execute("select count(*) from checkpoints").fetchone() == (2,)
    db.close()
    assert {300} <= named(alter(tmp_path, "update records set leaf = cast(leaf || ' ' as blob) where idx = 300"))
