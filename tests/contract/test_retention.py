"""Retention on the real log while clocks are set: what is younger than the floor stays, whatever its own time says."""

from dataclasses import dataclass, field
from pathlib import Path

from gateway.adapters.ledger.books.retention import Retention
from gateway.core.records import EventType
from tests.clock import StepClock
from tests.ledgers import Books, Walk, open_books
from tests.ledgers import check as verified

DAY_S = 86_400
YEAR_S = 365 * DAY_S
DAYS = 183


@dataclass(slots=True)
class SetClock(StepClock):
    """A clock that somebody sets.

    Attributes:
        set_s: by how much, so far.
    """

    set_s: int = 0

    def now_us(self) -> int:
        """What the clock on the wall says."""
        return self.us + self.set_s * 1_000_000


@dataclass(slots=True)
class Old:
    """Counts the rounds."""

    rounds: list[int] = field(default_factory=list)

    async def retire(self, older_us: int) -> int:
        """Note the round."""
        self.rounds.append(older_us)
        return 1


async def lived(books: Books, session: str) -> str:
    """A run with one call, ended, and a query of the day."""
    answer = await Walk(books, more={"session": session}).go()
    await books.runs.end(answer.run_id, "closed")
    return answer.run_id


def keys(books: Books) -> set[str]:
    """The data keys that there are."""
    gone = {key for record in books.records(EventType.ERASURE) for key in record["body"]["keys"]}
    named = {ref["dek"] for record in books.records() for ref in record["payloads"]}
    return named - gone


async def retired(books: Books) -> int:
    """A round of retention, with the clock as it is."""
    return await books.custodian.retire(books.clock.now_us() - DAYS * DAY_S * 1_000_000)


async def test_what_was_written_while_the_clock_was_set_back_is_not_taken_for_old(tmp_path: Path) -> None:
    """Runs and days bear times of years ago, yet stand behind records of today."""
    clock = SetClock()
    async with open_books(tmp_path, clock) as books:
        before = await lived(books, "before")
        clock.set_s = -2 * YEAR_S
        back = await lived(books, "back")
        assert {before, back} <= keys(books)
        clock.set_s = 0
        everything = keys(books)
        assert await retired(books) == 0
        clock.advance((DAYS - 1) * DAY_S)
        after = await lived(books, "after")
        assert await retired(books) == 0
        assert keys(books) == everything | {after}
        clock.advance(2 * DAY_S)
        assert await retired(books) == len(everything)
        assert keys(books) == {after}
    assert verified(tmp_path).ok


async def test_a_time_far_ahead_does_not_keep_what_stands_behind_it_for_ever(tmp_path: Path) -> None:
    """It says nothing of the age of others; what bears it itself stays until it is over."""
    clock = SetClock()
    async with open_books(tmp_path, clock) as books:
        clock.set_s = 20 * YEAR_S
        ahead = await lived(books, "ahead")
        clock.set_s = 0
        normal = await lived(books, "normal")
        clock.advance((DAYS + 2) * DAY_S)
        young = await lived(books, "young")
        await retired(books)
        assert normal not in keys(books)
        assert {ahead, young} <= keys(books)


async def test_nothing_is_let_go_of_in_the_first_hour_nor_while_the_clock_jumps() -> None:
    """A wrong year destroys nothing at once; a day of even time, and it goes on."""
    clock, old = SetClock(), Old()
    retention = Retention(old, clock, DAYS)
    assert await retention.once() == 0
    clock.advance(3600)
    assert await retention.once() == 1
    clock.set_s = YEAR_S
    clock.advance(3600)
    assert await retention.once() == 0
    clock.set_s = 0
    clock.advance(3600)
    assert await retention.once() == 0
    clock.advance(DAY_S - 1)
    assert await retention.once() == 0
    clock.advance(1)
    assert await retention.once() == 1
    assert old.rounds[-1] == clock.now_us() - DAYS * DAY_S * 1_000_000


async def test_the_floor_holds_to_the_microsecond(tmp_path: Path) -> None:
    """A run whose last record is exactly as old as the floor stays."""
    clock = SetClock()
    async with open_books(tmp_path, clock) as books:
        run = await lived(books, "s")
        last = max(record["ts"] for record in books.records() if record["run_id"] == run)
        assert await books.custodian.retire(last) == 0
        clock.advance(2 * DAY_S)
        assert await books.custodian.retire(last + 1) == 1
        assert run not in keys(books)
