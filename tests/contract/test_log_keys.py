"""The log's signing keys change while it is written: no call waits, each tree is signed by the keys of its time."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms, Overlap
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.key_files import StateRefused, pem
from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.adapters.ledger.storage import files
from gateway.adapters.ledger.storage.files import CHECKPOINT_WINDOW
from gateway.adapters.ledger.verification.verify import Means, verify
from gateway.core.errors import Conflict, Unavailable
from gateway.core.log_keys import added_body, retired_body
from gateway.core.records import EventType
from gateway.core.tlog import Checkpoint, Signer, VerifierKey, open_checkpoint, signers_of
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import ORIGIN, Books, Walk, check, open_books

ADMIN = make_principal()


def names(folder: Path) -> list[str]:
    """The files of signing keys."""
    return sorted(path.name for path in (folder / "keys").glob("log*.pem*"))


async def rotated(books: Books) -> VerifierKey:
    """A new key in force beside the old one."""
    return (await books.room.rotate(ADMIN)).key


async def test_a_rotation_is_signed_for_and_overlaps(tmp_path: Path) -> None:
    """One key, then both on every checkpoint, then the new one; each auditor's key opens the whole log."""
    async with open_books(tmp_path) as books:
        first = books.keys.name
        await Walk(books).go()
        before = await books.tree.checkpoint()
        second = await rotated(books)
        await Walk(books).go()
        both = await books.tree.checkpoint()
        with pytest.raises(Conflict, match="two keys"):
            await books.room.rotate(ADMIN)
        await books.room.retire(ADMIN)
        await Walk(books).go()
        after = await books.tree.checkpoint()
        with pytest.raises(Conflict, match="one key"):
            await books.room.retire(ADMIN)
        assert [signers_of(note, (first, second))[1] for note in (before, both, after)] == [
            (first,),
            (first, second),
            (second,),
        ]
        assert names(tmp_path) == [f"log-{second.id.hex()}.pem"]
        records = books.records("key")
        assert [record["body"]["action"] for record in records] == ["added", "added", "retired"]
        assert [record["actor"]["authn"] for record in records] == ["system", ADMIN.auth_method, ADMIN.auth_method]
    for key in (first, second):
        report = verify(tmp_path, key.text, Means(checkpoint=before))
        assert report.findings == []
        assert [(one.vkey, one.retired) for one in report.signers] == [(first.text, True), (second.text, False)]
        assert [one.last for one in report.signers] == [report.signers[0].last, report.size]
        assert report.signed_us is not None


async def test_a_rotation_among_calls_loses_none(tmp_path: Path) -> None:
    """Calls that are under way while a key is added and one retired all end well."""
    async with open_books(tmp_path) as books:
        calls = [asyncio.create_task(Walk(books).go()) for _ in range(20)]
        await rotated(books)
        calls += [asyncio.create_task(Walk(books).go()) for _ in range(20)]
        await books.room.retire(ADMIN)
        answers = await asyncio.gather(*calls)
        assert len({answer.call_id for answer in answers}) == len(calls)
        assert books.verify().ok


async def test_a_log_goes_on_after_each_step(tmp_path: Path) -> None:
    """It is opened anew with one key, with two, and with the new one alone, and rotated again and again."""
    clock = StepClock()
    for _ in range(3):
        async with open_books(tmp_path, clock) as books:
            await rotated(books)
        async with open_books(tmp_path, clock) as books:
            assert len(books.keys.ring.history.in_force) == 2
            await Walk(books).go()
            await books.room.retire(ADMIN)
        async with open_books(tmp_path, clock) as books:
            await Walk(books).go()
            assert books.verify().findings == []
    assert len(names(tmp_path)) == 1
    assert len(check(tmp_path).signers) == 4


async def test_the_overlap_ends_in_time(tmp_path: Path) -> None:
    """The older key is retired by the gateway itself once its hours are over, and not before; also after a restart."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        room = KeyRoom(books.ledger, books.keys, clock, KeyTerms(overlap_h=2))
        assert await room.retire_due() is None
        await room.rotate(ADMIN)
        assert await room.retire_due() is None
        async with Overlap(room):
            await asyncio.sleep(0)
        assert len(books.keys.ring.history.in_force) == 2
    clock.advance(2 * 3600)
    async with open_books(tmp_path, clock) as books:
        async with Overlap(KeyRoom(books.ledger, books.keys, clock, KeyTerms(overlap_h=9_999))):
            while len(books.keys.ring.history.in_force) == 2:  # noqa: ASYNC110 - waits for another task's write
                await asyncio.sleep(0.001)
        assert books.records("key")[-1]["actor"]["authn"] == "system"
        assert books.verify().ok


async def test_a_kill_before_the_record_leaves_the_old_key_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The new key's file is there, but no record names it: it signs nothing. One that is half written is removed."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        stray = books.keys.ring.take(Ed25519PrivateKey.generate())
    folder = tmp_path / "keys"
    (folder / "log-00000000.pem.new").write_bytes(b"half a k")
    assert names(tmp_path) == sorted(["log.pem", f"log-{stray.key.id.hex()}.pem", "log-00000000.pem.new"])
    async with open_books(tmp_path) as books:
        assert f"does not name ({stray.key.id.hex()})" in caplog.text
        await Walk(books).go()
        assert books.keys.ring.history.newest.key == books.keys.name
        second = await rotated(books)
        assert second != stray.key
        assert books.verify().ok
    assert names(tmp_path) == sorted(["log.pem", *(f"log-{key.id.hex()}.pem" for key in (stray.key, second))])


async def test_a_kill_after_the_record_completes_the_rotation(tmp_path: Path) -> None:
    """Retired, with the old key's file still there: the next start removes it, and the new key signs alone."""
    async with open_books(tmp_path) as books:
        second = await rotated(books)
        kept = (tmp_path / "keys" / "log.pem").read_bytes()
        await books.room.retire(ADMIN)
    (tmp_path / "keys" / "log.pem").write_bytes(kept)
    (tmp_path / "keys" / "log.pem").chmod(0o600)
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        text = await books.tree.checkpoint()
        assert signers_of(text, (books.keys.name, second))[1] == (second,)
    assert names(tmp_path) == [f"log-{second.id.hex()}.pem"]


async def test_a_lost_key_is_named(tmp_path: Path) -> None:
    """A key in force whose file is gone, damaged or misnamed is refused by name, and nothing is removed or made."""
    async with open_books(tmp_path) as books:
        second = await rotated(books)
    path = tmp_path / "keys" / f"log-{second.id.hex()}.pem"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(StateRefused, match=path.name):
        async with open_books(tmp_path):
            pass
    path.write_bytes(pem(Ed25519PrivateKey.generate()))
    path.chmod(0o600)
    with pytest.raises(StateRefused, match="another one than its name says"):
        create_or_load(tmp_path / "keys", ORIGIN)
    path.write_bytes(b"no key")
    with pytest.raises(StateRefused, match="PEM"):
        create_or_load(tmp_path / "keys", ORIGIN)
    path.write_bytes(kept)
    first = tmp_path / "keys" / "log.pem"
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(StateRefused, match=r"restore .*log\.pem"):
        async with open_books(tmp_path):
            pass
    (tmp_path / "elsewhere").rename(first)
    async with open_books(tmp_path) as books:
        assert books.verify().ok


async def test_a_key_that_cannot_be_stored_is_not_used(tmp_path: Path) -> None:
    """The rotation fails, and the log goes on with the key it has."""
    async with open_books(tmp_path) as books:
        (tmp_path / "keys").rename(tmp_path / "away")
        with pytest.raises(Unavailable, match="cannot be written"):
            await books.room.rotate(ADMIN)
        (tmp_path / "away").rename(tmp_path / "keys")
        await Walk(books).go()
        await rotated(books)
        assert books.verify().ok


async def test_the_writer_lets_no_odd_key_record_in(tmp_path: Path) -> None:
    """A key whose secret half is not here, or that the key in force has not signed for, is refused; others go on."""
    async with open_books(tmp_path) as books:
        stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
        scribe = Scribe(books.clock, books.keys)
        for signer, refusal in ((books.keys.signer, Unavailable), (stranger, Conflict)):
            body = added_body(books.keys.name, signer, stranger.key, 5)
            draft = scribe.draft(EventType.KEY, Subject(), body)
            with pytest.raises(refusal):
                await books.ledger.append([draft])
        await Walk(books).go()
        assert len(books.records("key")) == 1


async def test_the_guard_knows_the_keys(tmp_path: Path) -> None:
    """A guard by the old key from before a rotation is good; one that only the retired key signed afterwards is not."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        old = books.keys.signer
        early = await books.tree.checkpoint()
        await rotated(books)
        await books.room.retire(ADMIN)
        await Walk(books).go()
        late = Checkpoint.parse((await books.tree.checkpoint()).rpartition("\n\n")[0] + "\n")
    files.write_guard(tmp_path, early)
    async with open_books(tmp_path) as books:
        assert books.verify().ok
    files.write_guard(tmp_path, old.sign(late.text))
    assert any("retired before" in found.problem for found in check(tmp_path).findings)
    with pytest.raises(StateRefused, match="retired before"):
        async with open_books(tmp_path):
            pass


async def test_a_log_set_back_before_its_rotation_is_refused(tmp_path: Path) -> None:
    """The guard was signed by a key that the older log does not know: it is named for what it is."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
    older = (tmp_path / files.DATABASE).read_bytes()
    async with open_books(tmp_path) as books:
        second = await rotated(books)
        await books.room.retire(ADMIN)
        await Walk(books).go()
        kept = await books.tree.checkpoint()
    set_back(tmp_path, older)
    with pytest.raises(StateRefused, match="an older state was put back"):
        async with open_books(tmp_path):
            pass
    assert names(tmp_path) == [f"log-{second.id.hex()}.pem"]
    report = verify(tmp_path, (tmp_path / "keys/log.vkey").read_text(), Means(checkpoint=kept))
    assert len(report.findings) == 2


async def test_a_thief_of_a_retired_key_cannot_go_on(tmp_path: Path) -> None:
    """A checkpoint signed by the retired key alone, and records of keys that were altered or made up, are found."""
    async with open_books(tmp_path) as books:
        old = books.keys.signer
        second = await rotated(books)
        await books.room.retire(ADMIN)
        await Walk(books).go()
        text = Checkpoint.parse((await books.tree.checkpoint()).rpartition("\n\n")[0] + "\n").text
        assert open_checkpoint(await books.tree.checkpoint(), second).size
    vkey = (tmp_path / "keys/log.vkey").read_text()
    change(tmp_path, "update checkpoints set note = ?", old.sign(text))
    problems = [found.problem for found in verify(tmp_path, vkey).findings]
    assert any("retired before" in problem for problem in problems), problems
    with pytest.raises(StateRefused, match="retired before"):
        async with open_books(tmp_path):
            pass


async def test_a_made_up_retirement_removes_no_key(tmp_path: Path) -> None:
    """A row far from the end that says so is given the lie by the newest checkpoint, before a file is removed."""
    async with open_books(tmp_path) as books:
        second = await rotated(books)
        while len(books.records()) < 2 * CHECKPOINT_WINDOW:
            await Walk(books).go()
        body = retired_body(books.keys.name)
    kept, leaf = names(tmp_path), json.dumps({"ts": 5, "body": body}).encode()
    change(tmp_path, "update records set type = 'key', leaf = ? where idx = 5", leaf)
    with pytest.raises(StateRefused, match="retired before"):
        async with open_books(tmp_path):
            pass
    assert names(tmp_path) == kept == sorted(["log.pem", f"log-{second.id.hex()}.pem"])
    assert not check(tmp_path).ok


@pytest.mark.parametrize(
    "act", ["delete from records where idx = 1", "update records set leaf = x'7b7d' where idx = 1"]
)
async def test_a_record_of_a_key_that_is_gone_or_altered_is_found(tmp_path: Path, act: str) -> None:
    """Then nobody knows who may sign: the log is refused, and verification says so."""
    async with open_books(tmp_path) as books:
        await rotated(books)
        await Walk(books).go()
        assert books.records()[1]["type"] == "key"
    change(tmp_path, act)
    report = verify(tmp_path, (tmp_path / "keys/log.vkey").read_text())
    assert not report.ok
    with pytest.raises(StateRefused):
        async with open_books(tmp_path):
            pass


def set_back(folder: Path, database: bytes) -> None:
    """Put an older copy of the database in place."""
    for path in folder.glob(f"{files.DATABASE}*"):
        path.unlink()
    (folder / files.DATABASE).write_bytes(database)


def change(folder: Path, statement: str, *values: object) -> None:
    """Alter the database behind the log's back."""
    db = sqlite3.connect(folder / files.DATABASE)
    try:
        db.execute(statement, values)
        db.commit()
    finally:
        db.close()
