"""The rollback guard where several gateways write one log: it knows what others wrote, and is there from the start."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.storage.files import GUARD
from gateway.adapters.ledger.storage.guarding import Guard
from gateway.adapters.ledger.storage.postgres_site import REPLICA
from gateway.core.errors import NotFound, Unavailable
from gateway.core.tlog import Checkpoint, split_note
from tests.ledgers import Books, Walk, open_books
from tests.replicas import Sites, both, sites
from tests.waiting import until

__all__ = ["both", "sites"]

LOG = ("records", "payloads", "checkpoints", "nodes", "reasons", "sequencer")


def guarded(books: Books) -> int:
    """Records that the guard of these books' gateway is over."""
    return Checkpoint.parse(split_note((books.folder / GUARD).read_text())[0]).size


def keep(sites: Sites) -> None:
    """Copy the log aside."""
    sites.run("create schema kept")
    for table in LOG:
        sites.run(f"create table kept.{table} as select * from ostiary.{table}")


def put_back(sites: Sites) -> None:
    """The copy in place of the log, as after a fail-over to a standby that lagged."""
    for table in LOG:
        sites.run(f"truncate ostiary.{table}")
        sites.run(f"insert into ostiary.{table} select * from kept.{table}")
    sites.cut_all()


async def test_what_another_gateway_wrote_is_noted_here(both: tuple[Books, Books], sites: Sites) -> None:
    """It is gone together with the server's newest state: the one that is left refuses to go on."""
    keep(sites)
    await Walk(both[0]).go()
    size = len(both[0].records())
    await until(lambda: guarded(both[1]) == size)
    put_back(sites)
    for _ in range(3):
        with pytest.raises((Unavailable, NotFound)):
            await Walk(both[1]).go()
    assert len(both[1].records()) < size
    assert guarded(both[1]) == size


async def test_who_joins_has_a_guard_before_it_is_known(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after its first transaction: its next start is let in."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        await Walk(books).go()
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "begin", killed)
        with pytest.raises(KeyboardInterrupt):
            async with open_books(sites.site("b"), SystemClock()):
                raise AssertionError("it started")
    assert sites.rows("select count(*) from ostiary.replicas where joined") == [(2,)]
    async with open_books(sites.site("b"), SystemClock()) as books:
        assert books.verify().findings == []


def killed(_self: Guard, _note: str) -> None:
    """In the place of what would have come next."""
    raise KeyboardInterrupt


async def test_a_name_is_written_whole_or_not_at_all(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full when a gateway got its name does not keep it out once there is room."""
    place = sites.site("a")
    place.folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            place.take()
        place.release()
    place.take()
    place.release()
    assert (place.folder / REPLICA).read_text().strip() == place.replica


def full(self: Path, _text: str, _encoding: str) -> Sequence[str]:
    """The file is made, and nothing fits into it."""
    self.touch()
    raise OSError(28, "No space left on device")
