"""Damage inside the log, and a disk without room: nothing is executed unrecorded, and verification finds damage."""

import json
import random
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage.files import DATABASE, GUARD
from gateway.core.call import Intent
from gateway.core.errors import OutcomeUnknown, Unavailable
from gateway.core.inquiry import Query
from gateway.core.tlog import open_checkpoint
from tests.clock import StepClock
from tests.ledgers import Books, Walk, check, open_books
from tests.waiting import until_asked

ROOT = Path(__file__).parents[2]
PAGE = 4096
START_US, LATER_US = 1_750_000_000_000_000, 1_750_000_100_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some calls in three runs."""
    folder = tmp_path_factory.mktemp("log") / "state"

    async def make() -> None:
        async with open_books(folder, StepClock(START_US)) as books:
            for number in range(30):
                await Walk(books, arguments={"a": "x" * 300}, more={"session": f"s{number % 3}"}).go()

    anyio.run(make)
    return folder


async def lived(folder: Path) -> str:
    """How a gateway fared on this log with one call and one search."""
    async with AsyncExitStack() as stack:
        try:
            books = await stack.enter_async_context(open_books(folder, StepClock(LATER_US)))
        except (StateRefused, Unavailable):
            return "refused"
        fared = await called(books)
        try:
            await books.reader.search(Query(limit=1000))
        except Unavailable:
            fared = "a search refused"
        return fared


async def called(books: Books) -> str:
    """How one call fared; what was refused did not reach its tool."""
    reached: list[str] = []

    async def act(intent: Intent) -> None:
        reached.append(intent.call.id)

    try:
        answer = await Walk(books, act=act).go()
    except OutcomeUnknown:
        return "outcome unknown"
    except Unavailable:
        assert reached == []
        return "a call refused"
    assert reached == [answer.call_id]
    return "went on"


async def test_every_damaged_page_is_found_and_nothing_happens_unrecorded(log: Path, tmp_path: Path) -> None:
    """Every page in turn: refused at the start, or by the call that meets it; found before and after."""
    data = (log / DATABASE).read_bytes()
    fared = set()
    for at in range(0, len(data), PAGE):
        folder = tmp_path / str(at)
        shutil.copytree(log, folder)
        (folder / DATABASE).write_bytes(data[:at] + random.Random(at).randbytes(PAGE) + data[at + PAGE :])
        assert not check(folder).ok, f"page {at // PAGE + 1}"
        fared.add(await lived(folder))
        assert not check(folder).ok, f"page {at // PAGE + 1}, after a gateway was there"
        shutil.rmtree(folder)
    assert {"refused", "a call refused", "went on"} <= fared


async def test_a_damaged_log_is_written_no_more(log: Path, tmp_path: Path) -> None:
    """After the first sign of damage all is refused, readiness too, until somebody has looked and started it again."""
    folder = tmp_path / "state"
    shutil.copytree(log, folder)
    async with open_books(folder, StepClock(LATER_US)) as books:
        store = books.ledger._store
        assert store._db is not None
        (root,) = store._db.execute("select rootpage from sqlite_master where name = 'records_tool'").fetchone()
        await Walk(books).go()
        store._db.execute("pragma wal_checkpoint(truncate)")
        store._drop()
        data = (folder / DATABASE).read_bytes()
        at = (root - 1) * PAGE
        (folder / DATABASE).write_bytes(data[:at] + bytes(PAGE) + data[at + PAGE :])
        size = (folder / DATABASE).stat().st_size
        for _ in range(3):
            assert await called(books) == "a call refused"
            with pytest.raises(Unavailable, match="damaged"):
                await books.ledger.ping()
    assert (folder / DATABASE).stat().st_size == size
    assert not check(folder).ok


async def test_a_guard_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Calls go on, as the log itself is sound; readiness says what is wrong until it is mended."""
    clock = StepClock(START_US)
    async with open_books(tmp_path, clock) as books:
        in_the_way = tmp_path / f"{GUARD}.new"
        in_the_way.mkdir()
        clock.advance(2.0)
        assert await called(books) == "went on"
        await until_asked(lambda: pings(books, "the rollback guard cannot be written"))
        assert await called(books) == "went on"
        assert await pings(books, "the rollback guard cannot be written")
        in_the_way.rmdir()
        await until_asked(lambda: pings(books, "ready"))
        assert open_checkpoint((tmp_path / GUARD).read_text(), books.keys.signer.key).size >= 5


async def pings(books: Books, said: str) -> bool:
    """Whether readiness says this."""
    try:
        await books.ledger.ping()
    except Unavailable as error:
        return error.detail == said
    return said == "ready"


def test_a_disk_without_room(tmp_path: Path) -> None:
    """A file system of 8 MiB: what does not fit is refused and not executed; with room again calls go on."""
    alone = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    mount = 'mount -t tmpfs -o size=8m none "$1"'
    try:
        subprocess.run([*alone, mount, "sh", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of its own can be made here: {error}")
    command = [*alone, f'{mount} && exec "$0" -m tests.fixtures.full_disk "$1"', sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("completed") > 5
    assert said == {"full": ["unavailable"] * 3, "executed": 0, "healed": "completed", "findings": [], "open": []}
