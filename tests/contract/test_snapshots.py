"""The states that agents keep of their runs, in the real log."""

from pathlib import Path

import pytest

from gateway.adapters.ledger.books.snapshots import Snapshots
from gateway.core.custody import Target
from gateway.core.desk import RunRequest
from gateway.core.errors import NotFound, Throttled
from tests.evidence import make_principal
from tests.ledgers import Books, content, open_books

PERSON = make_principal(agent=None)
AGENT = make_principal()
STATE = b'{"matched":[1,2],"secret":"zq81"}'


def desk(books: Books) -> Snapshots:
    """What keeps them."""
    return Snapshots(books.ledger, books.reader, books.keys, books.clock)


async def started(books: Books) -> str:
    """A run."""
    return (await books.runs.start(PERSON, RunRequest("pay", "test-agent"))).id


@pytest.mark.requirement("PROV-4")
async def test_the_newest_state_of_a_run_is_found_again_also_by_another_process(tmp_path: Path) -> None:
    """In the run's own chain, under its own key; the leaf tells the label and the size only."""
    async with open_books(tmp_path) as books:
        run, other = await started(books), await started(books)
        assert await desk(books).newest(run) is None
        await desk(books).keep(AGENT, run, "one", b'{"at":1}')
        kept = await desk(books).keep(AGENT, run, "two", STATE)
        await desk(books).keep(AGENT, other, "other", b"{}")
    async with open_books(tmp_path) as books:
        assert await desk(books).newest(run) == kept
        (_, record, _) = books.records("state.snapshot")
        assert (record["run_id"], record["body"]) == (run, {"bytes": len(STATE), "label": "two"})
        assert books.verify().findings == []
    assert b"zq81" not in content(tmp_path)


async def test_a_run_that_has_ended_takes_no_more_and_erasing_it_takes_its_states(tmp_path: Path) -> None:
    """What is left is that there were some."""
    async with open_books(tmp_path) as books:
        run = await started(books)
        await desk(books).keep(AGENT, run, "one", STATE)
        await books.runs.end(run, "closed")
        with pytest.raises(NotFound):
            await desk(books).keep(AGENT, run, "two", STATE)
        await books.custodian.erase(PERSON, Target(run=run), "asked to")
        found = await desk(books).newest(run)
        assert found is not None
        assert (found.label, found.state) == ("one", None)
        assert books.verify().findings == []


async def test_nobody_fills_the_disk_with_states(tmp_path: Path) -> None:
    """What is too much is refused with when to come again, and leaves no record."""
    async with open_books(tmp_path) as books:
        run, one = await started(books), desk(books)
        large = b'{"x":"' + b"x" * 200_000 + b'"}'
        await one.keep(AGENT, run, "a", large)
        with pytest.raises(Throttled) as refusal:
            await one.keep(AGENT, run, "b", large)
        assert refusal.value.retry_after
        assert len(books.records("state.snapshot")) == 1
