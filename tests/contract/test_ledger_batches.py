"""How what callers hand in becomes transactions: together, in order, within bounds, and all of it before the end."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from anyio import fail_after

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.store import Outcome, Store
from gateway.core.records import Draft, EventType
from tests.ledgers import open_books, read_records


def change(scribe: Scribe, number: int) -> Draft:
    """A record outside any run."""
    return scribe.draft(EventType.ADMIN_CHANGE, Subject(), {"action": f"test.{number}"})


def numbers(folder: Path) -> list[int]:
    """What ``change`` wrote, in log order."""
    return [
        int(record["body"]["action"].removeprefix("test."))
        for record in read_records(folder)
        if record["type"] == EventType.ADMIN_CHANGE
    ]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many callers' drafts each transaction held."""
    seen: list[int] = []
    inner = Store.write

    def write(store: Store, groups: Sequence[Sequence[Draft]]) -> list[Outcome]:
        seen.append(len(groups))
        return inner(store, groups)

    monkeypatch.setattr(Store, "write", write)
    return seen


async def test_one_turn_of_the_loop_is_one_transaction(tmp_path: Path, sizes: list[int]) -> None:
    """Callers of one turn share a transaction; those that come during it share the next one."""
    async with open_books(tmp_path) as books:
        scribe = Scribe(books.clock, books.keys)
        with fail_after(10):
            first = [books.ledger.submit([change(scribe, number)]) for number in range(3)]
            await first[0]
            assert all(durable.done() for durable in first)
            for durable in [books.ledger.submit([change(scribe, number)]) for number in range(3, 8)]:
                await durable
        assert sizes == [3, 5]
    assert numbers(tmp_path) == list(range(8))


async def test_a_transaction_is_bounded(tmp_path: Path, sizes: list[int]) -> None:
    """A crowd is served in several transactions, in the order of coming."""
    async with open_books(tmp_path) as books:
        scribe = Scribe(books.clock, books.keys)
        with fail_after(30):
            for durable in [books.ledger.submit([change(scribe, number)]) for number in range(1200)]:
                await durable
        assert sizes == [512, 512, 176]
    assert numbers(tmp_path) == list(range(1200))


async def test_what_was_handed_in_is_written_before_the_end(tmp_path: Path) -> None:
    """Closing the log loses nothing: what waits for a transaction gets one, and its callers hear of it."""
    with fail_after(30):
        async with open_books(tmp_path) as books:
            scribe = Scribe(books.clock, books.keys)
            handed_in = [books.ledger.submit([change(scribe, number)]) for number in range(1200)]
        for durable in handed_in:
            await durable
    assert numbers(tmp_path) == list(range(1200))
