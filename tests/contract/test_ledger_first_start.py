"""A first start that is killed between any two of its files is taken up again by the next one."""

import struct
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters.ledger.database import FAULTS
from gateway.adapters.ledger.keyring.key_files import LOG_KEY, StateRefused
from gateway.adapters.ledger.keyring.keys import LOG_VKEY, PAYLOAD_KEK, PSEUDONYM_KEY, create_or_load
from gateway.adapters.ledger.storage import files
from gateway.core.tlog import EMPTY_ROOT, Checkpoint
from tests.clock import StepClock
from tests.ledgers import ORIGIN, Walk, open_books

NAMES = (LOG_KEY, PAYLOAD_KEK, PSEUDONYM_KEY, LOG_VKEY)


def unplace(folder: Path, *names: str) -> None:
    """Set keys back to the state before they were put in place."""
    for name in names:
        (folder / name).rename(folder / f"{name}.new")


@pytest.mark.parametrize("made", range(1, len(NAMES) + 1))
def test_keys_that_were_not_all_made_are_made_anew(tmp_path: Path, made: int) -> None:
    """Nothing was signed or sealed with them yet; the last one may be cut short."""
    before = create_or_load(tmp_path, ORIGIN)
    unplace(tmp_path, *NAMES)
    for name in NAMES[made:]:
        (tmp_path / f"{name}.new").unlink()
    (tmp_path / f"{NAMES[made - 1]}.new").write_bytes(b"")
    keys = create_or_load(tmp_path, ORIGIN)
    assert keys.signer.key.text != before.signer.key.text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("placed", range(1, len(NAMES)))
def test_keys_that_were_all_made_are_put_in_place(tmp_path: Path, placed: int) -> None:
    """The same keys, not new ones."""
    before = create_or_load(tmp_path, ORIGIN)
    unplace(tmp_path, *NAMES[placed:])
    keys = create_or_load(tmp_path, ORIGIN)
    assert (keys.signer.key.text, keys.kek) == (before.signer.key.text, before.kek)


@pytest.mark.parametrize("lost", NAMES)
def test_a_lost_key_is_never_replaced(tmp_path: Path, lost: str) -> None:
    """One that is gone without a trace was not being made: it is refused, and stays gone."""
    create_or_load(tmp_path, ORIGIN)
    (tmp_path / lost).unlink()
    with pytest.raises(StateRefused):
        create_or_load(tmp_path, ORIGIN)
    assert not (tmp_path / lost).exists()


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_log_killed_before_its_guard_was_renewed_starts(tmp_path: Path, recorded: bool) -> None:
    """The guard says that nothing was signed yet; whether the first record is there or not, the log goes on."""
    clock = StepClock()
    async with open_books(tmp_path, clock):
        pass
    keys = create_or_load(tmp_path / "keys", ORIGIN)
    files.write_guard(tmp_path, keys.signer.sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text))
    if not recorded:
        (tmp_path / files.DATABASE).unlink()
    async with open_books(tmp_path, clock) as books:
        await Walk(books).go()
        assert books.verify().ok


def killed_in_the_first_moment(folder: Path) -> None:
    """The database's first page as it is written under a rollback journal, and that journal: what SIGKILL leaves."""
    header = struct.pack(">8s5I", bytes.fromhex("d9d505f920a163d7"), 0, 0x6731ED5F, 0, 512, 4096)
    (folder / f"{files.DATABASE}-journal").write_bytes(header.ljust(512, b"\0"))
    page = b"SQLite format 3\0" + bytes.fromhex("10000202004020200000000100000001")
    page = page.ljust(95, b"\0") + bytes.fromhex("01002e63010d00000000100000")
    (folder / files.DATABASE).write_bytes(page.ljust(4096, b"\0"))


def contents(folder: Path) -> dict[str, bytes]:
    """Its files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def test_a_database_killed_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    """Nothing was in it, so the next start goes on as the first."""
    clock = StepClock()
    create_or_load(tmp_path / "keys", ORIGIN)
    killed_in_the_first_moment(tmp_path)
    with closing(files.connect_readonly(tmp_path / files.DATABASE)) as db, pytest.raises(FAULTS, match="readonly"):
        files.is_new(db)
    async with open_books(tmp_path, clock) as books:
        await Walk(books).go()
        assert books.verify().ok


async def test_a_log_is_not_taken_for_one_that_was_never_made(tmp_path: Path) -> None:
    """A rollback journal beside a log that has records, or whose guard knows of some: refused, and left as it is."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        await Walk(books).go()
    killed_in_the_first_moment(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(StateRefused):
        async with open_books(tmp_path, clock):
            pass
    assert contents(tmp_path) == before
