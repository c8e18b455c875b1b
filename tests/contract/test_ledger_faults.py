"""When the disk, the process or a second gateway gets in the way: nothing half done, nothing lost, nothing set back."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.keyring.key_files import LOG_KEY, StateRefused
from gateway.adapters.ledger.keyring.keys import PAYLOAD_KEK, create_or_load
from gateway.adapters.ledger.storage.files import DATABASE, GUARD
from gateway.core.call import Intent
from gateway.core.decision import Effect
from gateway.core.errors import Denied, GatewayError, OutcomeUnknown, Unavailable
from tests.clock import StepClock
from tests.evidence import make_decision
from tests.ledgers import ORIGIN, Books, Walk, check, open_books, read_records

ROOT = Path(__file__).parents[2]
ENDINGS = {"tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown"}


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(tmp_path) as opened:
        yield opened


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No file of this process can grow past what the log has now."""
    size = max(path.stat().st_size for path in folder.glob("log.db*"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def fill(books: Books) -> None:
    """Make calls until the disk is full."""
    for _ in range(200):
        try:
            await Walk(books, arguments={"a": "x" * 100_000}).go()
        except GatewayError:
            return
    pytest.fail("the disk never filled")


async def test_a_full_disk_stops_new_calls_and_heals(books: Books) -> None:
    """Full: 503 with nothing executed and readiness gone; room again: all is well, and the log verifies."""
    await Walk(books).go()
    reached: list[str] = []

    async def act(intent: Intent) -> None:
        reached.append(intent.call.id)

    with full_disk(books.folder):
        await fill(books)
        with pytest.raises(Unavailable):
            await Walk(books, act=act).go()
        with pytest.raises(Unavailable):
            await books.log.ping()
    assert reached == []
    await books.log.ping()
    await Walk(books, act=act).go()
    report = books.verify()
    assert report.ok, report.findings
    assert not report.open_calls


async def test_a_denial_that_cannot_be_recorded_is_no_denial(books: Books) -> None:
    """Nothing was executed anyway, so the caller hears 503."""
    with full_disk(books.folder):
        await fill(books)
        with pytest.raises(Unavailable):
            await Walk(books, decision=make_decision(Effect.DENY), more={"session": "s"}).go()
    with pytest.raises(Denied):
        await Walk(books, decision=make_decision(Effect.DENY)).go()


async def test_a_completion_that_cannot_be_written_withholds_the_answer(books: Books) -> None:
    """The effect happened: the caller hears OutcomeUnknown, and the log says so as soon as it can be written."""
    await Walk(books).go()
    walk = Walk(books, act=lambda _: fill(books), more={"session": "s"}, value={"content": ["x" * 3_000_000]})
    call = walk.call()
    with full_disk_while(books, walk):
        with pytest.raises(OutcomeUnknown):
            await walk.go(call)
        assert books.types(call.id)[-1] == "tool.requested"
    await books.log.ping()
    assert books.types(call.id)[-1] == "tool.outcome_unknown"
    report = books.verify()
    assert report.ok, report.findings
    assert not report.open_calls


@contextmanager
def full_disk_while(books: Books, walk: Walk) -> Iterator[None]:
    """The disk fills up while the call is out."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def act(intent: Intent) -> None:
        size = max(path.stat().st_size for path in books.folder.glob("log.db*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        await fill(books)

    walk.act = act
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_log_that_refuses_writes_heals(books: Books) -> None:
    """A connection that may only read: what cannot do without the tables is refused, then they are opened anew."""
    await Walk(books).go()
    store = books.ledger._store
    assert store._db is not None
    store._db.execute("pragma query_only = 1")
    with pytest.raises(Unavailable):
        await books.ledger.settle()
    await books.log.ping()
    await Walk(books).go()
    assert books.verify().ok


async def test_a_commit_that_only_seemed_to_fail_is_ended(books: Books) -> None:
    """The intent is on disk though its caller was told it is not: on recovery it ends as not sent."""
    await Walk(books).go()
    store = books.ledger._store
    answer = await Walk(books).go()
    db = sqlite3.connect(books.folder / DATABASE)
    db.execute("insert into intents values (?, ?, '')", (answer.call_id, 0))
    db.commit()
    db.close()
    store.abandon()
    await books.log.ping()
    assert answer.call_id in {r["call_id"] for r in books.records("tool.not_sent")}


async def test_below_the_reserve_only_endings_are_written(tmp_path: Path) -> None:
    """A nearly full disk: new calls are refused, a call that is out still completes."""
    async with open_books(tmp_path) as books:

        async def act(intent: Intent) -> None:
            books.ledger._store._reserve = 2**62

        answer = await Walk(books, act=act).go()
        assert books.types(answer.call_id)[-1] == "tool.completed"
        with pytest.raises(Unavailable, match="reserve"):
            await Walk(books).go()
        with pytest.raises(Unavailable, match="reserve"):
            await books.log.ping()
        books.ledger._store._reserve = 0
        await books.log.ping()
        await Walk(books).go()
        assert books.verify().ok


async def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """After its end the ledger refuses instead of waiting for ever."""
    async with open_books(tmp_path) as books:
        pass
    with pytest.raises(Unavailable):
        await books.log.ping()


async def test_a_writers_bug_fails_its_callers_only(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error in the writer's thread answers who waits, and the next call works."""
    with monkeypatch.context() as patch:
        patch.setattr("gateway.adapters.ledger.storage.batch.Batch.store", lambda *_: 1 / 0)
        with pytest.raises(Unavailable):
            await Walk(books).go()
    await Walk(books).go()
    assert books.verify().ok


async def test_a_second_gateway_is_refused(books: Books) -> None:
    """One folder, one gateway; when the first is gone the next may come."""
    with pytest.raises(StateRefused, match="another gateway"):
        async with open_books(books.folder):
            pytest.fail("two gateways on one log")


async def test_an_older_state_is_refused(tmp_path: Path) -> None:
    """A database that was set back does not start, nor does one whose guard is gone, nor another history."""
    state, copy, clock = tmp_path / "state", tmp_path / "copy", StepClock()
    async with open_books(state, clock) as books:
        await Walk(books).go()
    shutil.copytree(state, copy)
    async with open_books(state, clock) as books:
        await Walk(books).go()
    newer = (state / GUARD).read_text()
    (copy / GUARD).write_text(newer)
    for _ in range(2):  # being refused must not make the state acceptable
        with pytest.raises(StateRefused, match="older state"):
            await start(copy, clock)
    (copy / GUARD).unlink()
    with pytest.raises(StateRefused, match="missing"):
        await start(copy, clock)
    (copy / GUARD).write_text(newer.replace("gateway.test/log\n", "gateway.west/log\n", 1))
    with pytest.raises(StateRefused, match="guard"):
        await start(copy, clock)
    (copy / GUARD).write_text(newer)
    (finding,) = check(copy).findings
    assert finding.problem == "8 records were signed by the guard log.guard and only 5 are here: cut short or set back"


async def start(folder: Path, clock: StepClock) -> None:
    """Open and close."""
    async with open_books(folder, clock):
        pass


async def test_another_history_is_refused(tmp_path: Path) -> None:
    """A log with as many records, signed by the same key, that is not a continuation of what was signed."""
    one, other, clock = tmp_path / "one", tmp_path / "other", StepClock()
    async with open_books(one, clock) as books:
        guard = (one / GUARD).read_text()
        await Walk(books).go()
    shutil.copytree(one / "keys", other / "keys")
    async with open_books(other, clock) as books:
        await Walk(books).go()
    (other / GUARD).write_text(guard)
    with pytest.raises(StateRefused, match="another history"):
        await start(other, clock)


@pytest.mark.parametrize(
    "change",
    [
        "update records set leaf = cast(replace(cast(leaf as text), 'up.echo', 'up.ecko') as blob) where idx = 3",
        "delete from records where idx = 4",
        "update checkpoints set note = replace(note, '5', '6')",
        "update checkpoints set peaks = x'00'",
        "delete from checkpoints",
        "pragma user_version = 9",
        "pragma application_id = 9",
    ],
)
async def test_an_altered_end_is_not_built_upon(tmp_path: Path, change: str) -> None:
    """The newest records, the checkpoint and the tree must fit before anything is added."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        await Walk(books).go()
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute(change)
    db.commit()
    db.close()
    with pytest.raises(StateRefused):
        await start(tmp_path, clock)


async def test_garbage_in_place_of_the_log_is_refused(tmp_path: Path) -> None:
    """A file that is no database, or a folder in its place: a clear refusal."""
    (tmp_path / DATABASE).write_bytes(os.urandom(8192))
    with pytest.raises(StateRefused):
        await start(tmp_path, StepClock())
    (tmp_path / DATABASE).unlink()
    (tmp_path / DATABASE).mkdir()
    with pytest.raises(StateRefused):
        await start(tmp_path, StepClock())


@pytest.mark.parametrize("acknowledged", [1, 25, 70])
async def test_a_killed_gateway_loses_nothing_it_answered(tmp_path: Path, acknowledged: int) -> None:
    """Killed in mid-load: each answered call is complete in the log, each other intent is swept, the log verifies."""
    answered = await anyio.to_thread.run_sync(kill_after, tmp_path, acknowledged)
    completed = {record["call_id"] for record in read_records(tmp_path) if record["type"] == "tool.completed"}
    assert set(answered) <= completed
    before = check(tmp_path)
    async with open_books(tmp_path, SystemClock()) as books:
        swept = [r["call_id"] for r in books.records("tool.outcome_unknown") if r["body"]["cause"] == "swept"]
        assert sorted(swept) == sorted(before.open_calls)
        assert not books.verify().open_calls
        await Walk(books).go()
        assert books.verify().ok
    assert before.ok, before.findings


def kill_after(folder: Path, acknowledged: int) -> list[str]:
    """Run the writer, kill it after so many answers, return all it answered."""
    command = [sys.executable, "-m", "tests.fixtures.ledger_writer", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [writer.stdout.readline().strip() for _ in range(acknowledged)]
        writer.kill()
        answered += [line.strip() for line in writer.stdout if line.endswith("\n")]
    return answered


async def test_a_sweep_is_written_once(tmp_path: Path) -> None:
    """Intents of a dead process end as unknown on the first start, and not again on the second."""
    clock = StepClock()
    out = asyncio.Event()

    async def act(intent: Intent) -> None:
        out.set()
        await anyio.sleep_forever()

    async with open_books(tmp_path / "state", clock) as books:
        task = asyncio.create_task(Walk(books, act=act).go())
        await out.wait()
        books.ledger._store.tend()
        shutil.copytree(tmp_path / "state", tmp_path / "dead")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for _ in range(2):
        async with open_books(tmp_path / "dead", clock) as books:
            (record,) = books.records("tool.outcome_unknown")
            assert record["body"] == {"cause": "swept", "code": "outcome_unknown", "tool": "up.echo"}
            assert books.verify().ok


async def test_a_broken_data_key_stops_its_run_only(tmp_path: Path) -> None:
    """Payloads under it cannot be opened nor written; other runs go on."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        answer = await Walk(books, more={"session": "a"}).go()
        await Walk(books, more={"session": "c"}).go()
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("update deks set wrapped = zeroblob(60) where id = ?", (answer.run_id,))
    db.commit()
    db.close()
    async with open_books(tmp_path, clock) as books:
        with pytest.raises(Unavailable, match="read"):
            await books.reader.payload(answer.call_id, "result")
        with pytest.raises(Unavailable):
            await Walk(books, more={"session": "a"}).go()
        await Walk(books, more={"session": "b"}).go()
        (finding,) = books.verify().findings
        assert "data key" in finding.problem


async def test_a_swapped_payload_does_not_open(tmp_path: Path) -> None:
    """Sealed bytes belong to their record and role."""
    async with open_books(tmp_path) as books:
        answer = await Walk(books).go()
        await books.ledger.settle()
        db = sqlite3.connect(tmp_path / DATABASE)
        db.execute("update payloads set sealed = (select sealed from payloads where pid = 16) where pid = 24")
        db.commit()
        db.close()
        with pytest.raises(Unavailable, match="read"):
            await books.reader.payload(answer.call_id, "request")


def test_keys_are_made_once_and_guarded(tmp_path: Path) -> None:
    """Keys are private files; loaded again they are the same; readable, lost, damaged or renamed they are refused."""
    keys = create_or_load(tmp_path, ORIGIN)
    again = create_or_load(tmp_path, ORIGIN)
    assert (keys.kek, keys.mark("a", "b"), keys.signer.key.text) == (
        again.kek,
        again.mark("a", "b"),
        again.signer.key.text,
    )
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "log.pem": 0o600,
        "log.vkey": 0o644,
        "payload.kek": 0o600,
        "pseudonym.key": 0o600,
    }
    with pytest.raises(StateRefused, match="origin"):
        create_or_load(tmp_path, "gateway.other/log")
    with pytest.raises(StateRefused, match="origin"):
        create_or_load(tmp_path / "new", "white space")
    (tmp_path / PAYLOAD_KEK).chmod(0o640)
    with pytest.raises(StateRefused, match="chmod 600"):
        create_or_load(tmp_path, ORIGIN)
    (tmp_path / PAYLOAD_KEK).chmod(0o600)
    (tmp_path / PAYLOAD_KEK).write_bytes(b"short")
    with pytest.raises(StateRefused, match="32 bytes"):
        create_or_load(tmp_path, ORIGIN)
    (tmp_path / PAYLOAD_KEK).unlink()
    with pytest.raises(StateRefused, match="restore"):
        create_or_load(tmp_path, ORIGIN)
    (tmp_path / LOG_KEY).write_bytes(b"no key")
    with pytest.raises(StateRefused, match="PEM"):
        create_or_load(tmp_path, ORIGIN)
