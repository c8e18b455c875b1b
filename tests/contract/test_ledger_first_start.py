"""A first start that is killed between any two of its files is taken up again by the next one."""

from pathlib import Path

import pytest

from gateway.adapters.ledger import files
from gateway.adapters.ledger.key_files import LOG_KEY, StateRefused
from gateway.adapters.ledger.keys import LOG_VKEY, PAYLOAD_KEK, PSEUDONYM_KEY, create_or_load
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
