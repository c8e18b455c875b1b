"""What a witness's word in the log is worth: nothing is signed for its sake, and none counts that is not there."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from gateway.adapters.ledger.ledger import Ledger
from gateway.core.errors import Unavailable
from gateway.core.tlog import Checkpoint
from tests.contract.test_witnessing import named, watched
from tests.ledgers import Walk, open_books
from tests.liars import Liar, line, lying, vkey


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A witness that does as it is told."""
    with lying() as one:
        yield one


class Refusing:
    """A ledger that cannot be written."""

    async def append(self, _drafts: object) -> None:
        """Refuse."""
        raise Unavailable("the disk is full", cause_code="log")


async def test_a_word_that_could_not_be_recorded_is_asked_for_again(tmp_path: Path, liar: Liar) -> None:
    """Nothing counts that the log does not hold: the next round asks, though nothing was logged since."""
    async with watched(tmp_path, named((vkey(), liar.url))) as room:
        log = room.asking._log
        room.asking._log = replace(log, ledger=cast("Ledger", Refusing()))
        with pytest.raises(Unavailable):
            await room.round()
        room.asking._log = log
        assert room.asking.standing().size == 0
        assert room.asking._asked[0].word is None
        await room.asking.once()
        assert room.states() == ["ok"]
        assert len(room.books.records("checkpoint.witnessed")) == 1
        assert room.asking.witnessed() is not None


@pytest.mark.parametrize("is_signed", [True, False])
async def test_no_tree_is_signed_because_a_row_says_so(tmp_path: Path, *, is_signed: bool) -> None:
    """A row that somebody wrote into the database gets no signature of the log, whoever's witness it is by."""
    async with open_books(tmp_path) as books:
        await Walk(books).go()
        origin = books.keys.name.name
    root = b"\7" * 32
    blob = base64.b64decode(line(Checkpoint(origin, 3, root).text, 1_700_000_000).split(" ")[2])[12:]
    body = {"root": root.hex(), "size": 3, "time_s": 1_700_000_000, "witness": vkey()}
    leaf = json.dumps({"body": body | {"signature": (blob if is_signed else bytes(64)).hex()}}).encode()
    with closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute("create temp table forged as select * from records where idx = 1")
        db.execute("update forged set idx = -1, id = 'x', run_id = null, seq_run = null, leaf = ?", (leaf,))
        db.execute("update forged set type = 'checkpoint.witnessed'")
        db.execute("insert into records select * from forged")
    async with watched(tmp_path, named((vkey(), "http://127.0.0.1:9/w"))) as room:
        assert room.asking.witnessed() is None
        assert room.asking.standing().size == 0
        assert room.asking._asked[0].word is None
        assert room.asking._asked[0].seen == 0
