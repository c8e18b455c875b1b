"""The database's own format: what each record costs it, and logs of the format before."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage.files import DATABASE, connect
from tests.clock import StepClock
from tests.ledgers import Walk, check, open_books

FORMER_INDEX = (
    "create index records_type on records (type) where type not in ('decision', 'tool.requested', 'tool.completed')"
)


async def walk(folder: Path) -> None:
    """One call."""
    async with open_books(folder, StepClock()) as books:
        await Walk(books).go()


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A closed log as the format before this one left it."""
    asyncio.run(walk(tmp_path))
    db = sqlite3.connect(tmp_path / DATABASE)
    db.executescript(f"begin; drop index records_type; {FORMER_INDEX}; pragma user_version = 5; commit;")
    db.close()
    return tmp_path


def marks(folder: Path) -> tuple[int, str]:
    """The database's format and its index of rare types."""
    db = sqlite3.connect(folder / DATABASE)
    (version,) = db.execute("pragma user_version").fetchone()
    (index,) = db.execute("select sql from sqlite_master where name = 'records_type'").fetchone()
    db.close()
    return version, index


def test_a_record_is_written_without_a_table_of_its_own(tmp_path: Path) -> None:
    """No condition of an index makes SQLite build a table with each record: that would take longer than the record."""
    db = connect(tmp_path)
    for statement in (
        "insert into records values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "insert into payloads values (?, ?)",
        "insert into intents values (?, ?, ?)",
        "delete from intents where call_id = ?",
    ):
        steps = [row[1] for row in db.execute(f"explain {statement}", (None,) * statement.count("?"))]
        assert "OpenEphemeral" not in steps, statement
        assert "OpenWrite" in steps, statement
    db.close()


def test_a_log_of_the_format_before_is_sound_and_left_as_it_is(former: Path) -> None:
    """Whoever verifies an old copy finds nothing wrong, and changes nothing."""
    before = marks(former)
    assert check(former).ok
    assert marks(former) == before == (5, FORMER_INDEX.replace("create index", "CREATE INDEX"))


async def test_a_log_of_the_format_before_is_gone_on_with(former: Path) -> None:
    """Opened for writing it takes on this format, keeps its records, and is sound with new ones."""
    size = check(former).size
    await walk(former)
    version, index = marks(former)
    report = check(former)
    assert (version, report.ok) == (6, True)
    assert report.size > size
    assert index == FORMER_INDEX.replace("create index", "CREATE INDEX").replace(
        "type not in ('decision', 'tool.requested', 'tool.completed')",
        "type <> 'decision' and type <> 'tool.requested' and type <> 'tool.completed'",
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("pragma user_version = 6", "index records_type was altered"),
        ("drop index records_type", "index records_type is missing"),
        ("drop index records_tool", "index records_tool is missing"),
        ("create view v as select 1", "view v is not part of a log"),
    ],
)
def test_an_altered_log_of_the_format_before_is_found(former: Path, change: str, problem: str) -> None:
    """Its own tables and indexes are what it is held against."""
    db = sqlite3.connect(former / DATABASE)
    db.execute(change)
    db.commit()
    db.close()
    assert any(problem in finding.problem for finding in check(former).findings)


async def test_an_altered_log_of_the_format_before_stays_as_it_is(former: Path) -> None:
    """It is refused before it is renewed: for whoever has to find out what happened."""
    db = sqlite3.connect(former / DATABASE)
    db.execute("update records set leaf = cast(replace(cast(leaf as text), 'up.', 'uq.') as blob) where idx = 3")
    db.commit()
    db.close()
    before = (former / DATABASE).read_bytes()
    with pytest.raises(StateRefused):
        await walk(former)
    assert (former / DATABASE).read_bytes() == before
