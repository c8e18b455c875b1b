"""What is refused may not fill the disk: its payloads are kept as far as the caller's allowance goes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.adapters.ledger.allowance import BURST_BYTES, REFILL_BYTES_S, Allowance
from gateway.adapters.ledger.storage.site import Site
from gateway.core.decision import Effect
from gateway.core.errors import Denied, InvalidArguments
from tests.clock import StepClock
from tests.evidence import make_decision, make_principal
from tests.ledgers import Books, Walk, open_books


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(site, StepClock()) as opened:
        yield opened


async def refused(books: Books, user: str = "alice", *, fault: bool = False) -> dict[str, Any]:
    """The record of a refused call with large arguments."""
    walk = Walk(
        books,
        principal=make_principal(user=user),
        arguments={"a": "x" * 8000},
        decision=make_decision(Effect.DENY),
        fault=InvalidArguments("no") if fault else None,
    )
    with pytest.raises((Denied, InvalidArguments)):
        await walk.go()
    return books.records()[-1]


async def test_refusals_beyond_the_allowance_are_recorded_without_payload(books: Books) -> None:
    """The leaf says who, what and why by id, and that the rest was left out; another caller is not affected."""
    kept = [await refused(books) for _ in range(BURST_BYTES // 9000)]
    assert all(record["payloads"] for record in kept)
    record = [await refused(books) for _ in range(8)][-1]
    body = record["body"]
    assert body["omitted"] is True
    assert body["reasons"]
    assert record["payloads"] == []
    assert (await refused(books, "bob"))["payloads"]
    assert isinstance(books.clock, StepClock)
    books.clock.advance(8200 / REFILL_BYTES_S + 1)
    assert (await refused(books))["payloads"]
    assert books.verify().ok


async def test_a_call_that_is_made_is_recorded_whole(books: Books) -> None:
    """The allowance is for refusals only."""
    for _ in range(40):
        await refused(books)
    answer = await Walk(books, arguments={"a": "x" * 8000}).go()
    payload = await books.reader.payload(answer.call_id, "request")
    assert payload["arguments"] == {"a": "x" * 8000}


def test_a_bucket_is_for_one_caller_and_bounded() -> None:
    """It refills with time up to its size; the table forgets who was not seen for longest."""
    clock = StepClock()
    allowance = Allowance(clock)
    assert allowance.take("a", BURST_BYTES)
    assert not allowance.take("a", 1)
    assert allowance.take("b", 1)
    clock.advance(1)
    assert allowance.take("a", REFILL_BYTES_S)
    assert not allowance.take("a", 1)
    clock.advance(3600)
    assert not allowance.take("a", BURST_BYTES + 1)
    for number in range(5000):
        allowance.take(f"c{number}", 1)
    assert len(allowance._buckets) == 4096
