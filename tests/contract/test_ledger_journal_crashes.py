"""Power cuts at any moment of a SQLite log's life, each with any part of what was being written: nothing is lost."""

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.ledger.database import SqliteDatabase
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.storage.journal import JOURNAL
from gateway.core.errors import GatewayError, OutcomeUnknown
from gateway.core.records import Payload, Role
from tests.clock import StepClock
from tests.contract.test_ledger_journal import note
from tests.ledgers import Books, Walk, check, open_books, read_records

SECTOR = 512


@dataclass
class Cuts:
    """Images of a log's folder as power cuts would have left it, each with how many records had been told of."""

    folder: Path
    to: Path
    chance: random.Random
    told: int = 0
    images: list[tuple[Path, int]] = field(default_factory=list)

    def take(self, at: int = 0, data: bytes = b"") -> None:
        """One, perhaps: with any of the sectors of what is being written to the journal."""
        if len(self.images) > 25 or self.chance.random() > 0.15:
            return
        image = self.to / str(len(self.images))
        shutil.copytree(self.folder, image)
        self.images.append((image, self.told))
        path = image / JOURNAL
        if data and path.exists():
            torn = bytearray(path.read_bytes())
            size, share = self.chance.choice((SECTOR, 4096)), self.chance.choice((0.1, 0.5, 0.9, 1))
            for place in range(0, len(data), size):
                if self.chance.random() < share:
                    torn[at + place : at + place + size] = data[place : place + size]
            path.write_bytes(torn)


@pytest.fixture
def cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cuts:
    """Before and after each write to the journal and each commit of the tables."""
    found = Cuts(tmp_path / "s", tmp_path / "images", random.Random(request.node.name))
    real, commit = os.pwrite, SqliteDatabase.commit

    def pwrite(file: int, data: bytes, at: int) -> int:
        found.take(at, bytes(data))
        done = real(file, data, at)
        found.take()
        return done

    def committed(db: SqliteDatabase) -> None:
        found.take()
        commit(db)
        found.take()

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(SqliteDatabase, "commit", committed)
    return found


async def live(books: Books, cuts: Cuts) -> None:
    """What happens between two starts; whatever returns has been told of."""
    chance = cuts.chance
    for _ in range(chance.randrange(1, 25)):
        await something(books, chance)
        cuts.told = len(read_records(books.site))


async def something(books: Books, chance: random.Random) -> None:
    """One of the things that happen."""
    kind, session = chance.randrange(6), {"session": f"s{chance.randrange(3)}"}
    try:
        if kind == 0:
            payload = Payload(Role.REASONS, chance.randbytes(chance.choice((10, 9000, 200_000))), "text/plain")
            await books.ledger.append([note(Scribe(books.clock, books.keys), payload)])
        elif kind == 1:
            await books.ledger.settle()
        elif kind == 2:
            books.ledger._store.abandon()
            await books.ledger.append([note(Scribe(books.clock, books.keys))])
        elif kind == 3:
            await Walk(books, more=session, act=_gone).go()
        else:
            await Walk(books, more=session).go()
    except GatewayError:
        pass


async def _gone(intent: Any) -> None:
    raise OutcomeUnknown("gone")


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_told_outlasts_any_power_cut(seed: int, cuts: Cuts) -> None:
    """After it the log has all that, as it was, and goes on; a verifier sees it before the start, too."""
    clock = StepClock()
    for _ in range(2 + seed % 2):
        async with open_books(cuts.folder, clock) as books:
            cuts.told = max(cuts.told, len(read_records(books.site)))
            await live(books, cuts)
    whole, images = read_records(cuts.folder), list(cuts.images)
    assert len(images) > 5
    cuts.images += images * 100  # no more of them
    for image, told in images:
        if not (image / "log.db").exists() or told == 0:
            continue
        seen = read_records(image)
        assert len(seen) >= told
        assert seen == whole[: len(seen)]
        assert check(image).ok
        async with open_books(image, clock) as again:
            assert read_records(image)[: len(seen)] == seen
            await Walk(again).go()
        assert check(image).ok
        assert not check(image).open_calls
