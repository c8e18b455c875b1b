"""How what callers hand in becomes transactions: together, in order, within bounds, and all of it before the end."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint as turn

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.storage.batch import Batch
from gateway.adapters.ledger.storage.outcome import Outcome, Prepared
from gateway.adapters.ledger.storage.store import Store
from gateway.core.errors import Unavailable
from gateway.core.records import Draft, EventType, Payload, Role
from tests.ledgers import check, open_books, read_records


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
    inner = Store.prepare

    def prepare(store: Store, groups: Sequence[Sequence[Draft]]) -> Prepared:
        seen.append(len(groups))
        return inner(store, groups)

    monkeypatch.setattr(Store, "prepare", prepare)
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


async def test_a_transaction_waits_some_turns_for_most_of_who_is_here(tmp_path: Path, sizes: list[int]) -> None:
    """Three of four callers make one, whenever they come; for those who wait elsewhere nobody waits long."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        for _ in range(4):
            ledger.arrive()
        with fail_after(10):
            handed_in = []
            for number in range(3):
                handed_in.append(ledger.submit([change(scribe, number)]))
                await turn()
            for durable in handed_in:
                await durable
            assert sizes == [3]
            await ledger.append([change(scribe, 3)])
        assert sizes == [3, 1]
        for _ in range(4):
            ledger.leave()
    assert numbers(tmp_path) == list(range(4))


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


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """On which thread each transaction was made durable."""
    seen: list[str] = []
    inner = Store.finish

    def finish(store: Store, prepared: Prepared) -> list[Outcome]:
        seen.append(here())
        return inner(store, prepared)

    monkeypatch.setattr(Store, "finish", finish)
    return seen


@pytest.fixture
def preparing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """On which thread each transaction was prepared."""
    seen: list[str] = []
    inner = Store.prepare

    def prepare(store: Store, groups: Sequence[Sequence[Draft]]) -> Prepared:
        seen.append(here())
        return inner(store, groups)

    monkeypatch.setattr(Store, "prepare", prepare)
    return seen


def here() -> str:
    """Which thread this is."""
    return "loop" if threading.current_thread() is threading.main_thread() else "writer"


FAST_S, SLOW_S = 0.0, 1.0


@pytest.mark.parametrize(
    ("house", "thread"),
    [
        ((0, 1, FAST_S), "loop"),
        ((0, 2, FAST_S), "writer"),
        ((1, 1, FAST_S), "loop"),
        ((2, 1, FAST_S), "writer"),
        ((1, 1, SLOW_S), "writer"),
    ],
)
async def test_the_loop_writes_itself_for_one_caller_alone_while_the_disk_is_fast(
    tmp_path: Path, threads: list[str], house: tuple[int, int, float], thread: str
) -> None:
    """Whoever is not alone, or has a slow disk, never keeps the loop waiting: (callers, drafts, a write's seconds)."""
    callers, drafts, takes_s = house
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        ledger._takes_s = takes_s
        for _ in range(callers):
            ledger.arrive()
        with fail_after(10):
            for durable in [ledger.submit([change(scribe, number)]) for number in range(drafts)]:
                await durable
        assert threads == [thread]
        for _ in range(callers):
            ledger.leave()
    assert numbers(tmp_path) == list(range(drafts))


@pytest.mark.parametrize(
    ("load", "thread"),
    [
        ((1, 1_000, FAST_S), "loop"),
        ((64, 1_000, FAST_S), "loop"),
        ((65, 1_000, FAST_S), "writer"),
        ((2, 200_000, FAST_S), "writer"),
        ((2, 1_000, SLOW_S), "writer"),
    ],
)
async def test_the_loop_prepares_what_takes_it_little_and_the_writer_commits(
    tmp_path: Path, threads: list[str], preparing: list[str], load: tuple[int, int, float], thread: str
) -> None:
    """What is much, large or slow is the writer's from the beginning: (drafts, bytes of each, a write's seconds)."""
    drafts, size, takes_s = load
    async with open_books(tmp_path) as books:
        scribe = Scribe(books.clock, books.keys)
        books.ledger._takes_s = takes_s
        books.ledger.arrive()
        books.ledger.arrive()
        content = Payload(Role.CHANGE, bytes(size))
        with fail_after(10):
            for durable in [
                books.ledger.submit([scribe.draft(EventType.ADMIN_CHANGE, Subject(), {"action": f"test.{n}"}, content)])
                for n in range(drafts)
            ]:
                await durable
        assert (preparing, threads) == ([thread], ["writer"])
        books.ledger.leave()
        books.ledger.leave()
    assert numbers(tmp_path) == list(range(drafts))


@pytest.mark.parametrize("callers", [1, 2])
async def test_what_is_not_committed_is_told_and_gone(tmp_path: Path, callers: int) -> None:
    """A commit that fails after all was prepared is refused, and the next one builds on what was there before."""
    async with open_books(tmp_path) as books:
        scribe, store = Scribe(books.clock, books.keys), books.ledger._store
        books.ledger._takes_s = FAST_S
        for _ in range(callers):
            books.ledger.arrive()
        commit = store._commit

        def fails(_prepared: Prepared, _batch: Batch) -> None:
            raise ValueError("unheard of")

        store._commit = fails  # type: ignore[method-assign, assignment]
        with fail_after(10):
            with pytest.raises(Unavailable):
                await books.ledger.submit([change(scribe, 0)])
            store._commit = commit  # type: ignore[method-assign]
            await books.ledger.submit([change(scribe, 1)])
        for _ in range(callers):
            books.ledger.leave()
    assert numbers(tmp_path) == [1]
    assert check(tmp_path).ok


async def test_what_was_thrown_away_is_not_taken_for_written(tmp_path: Path) -> None:
    """A transaction that was prepared and then abandoned is refused, whatever has been written since."""
    async with open_books(tmp_path) as books:
        scribe, store = Scribe(books.clock, books.keys), books.ledger._store
        prepared = store.prepare([[change(scribe, 0)]])
        store.abandon()
        (outcome,) = store.finish(prepared)
        assert isinstance(outcome, Unavailable)
        prepared = store.prepare([[change(scribe, 1)]])
        store.abandon()
        assert store.write([[change(scribe, 2)]]) == [None]
        (outcome,) = store.finish(prepared)
        assert isinstance(outcome, Unavailable)
    assert numbers(tmp_path) == [2]
    assert check(tmp_path).ok


async def test_what_the_only_caller_hands_in_is_on_disk_at_once(tmp_path: Path, sizes: list[int]) -> None:
    """Nobody else is there to wait for; whoever is not the only one waits for the end of the turn."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        ledger._takes_s = FAST_S
        ledger.arrive()
        alone = ledger.submit([change(scribe, 0)])
        assert (alone.done(), sizes) == (True, [1])
        ledger.arrive()
        together = ledger.submit([change(scribe, 1)])
        assert (together.done(), sizes) == (False, [1])
        with fail_after(10):
            await alone
            await together
        ledger.leave()
        ledger.leave()
    assert numbers(tmp_path) == [0, 1]


async def test_a_disk_that_turned_slow_goes_back_to_the_writer(tmp_path: Path, threads: list[str]) -> None:
    """And each transaction is made whole before the next, on whichever thread, the guard's turns in between."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        with fail_after(60):
            for number in range(200):
                ledger._takes_s = FAST_S if number % 3 else SLOW_S
                if number % 20 == 0:
                    ledger._store._guard._at = float("-inf")  # the guard is due
                await ledger.append([change(scribe, number)])
        assert threads == ["loop" if number % 3 else "writer" for number in range(200)]
    assert numbers(tmp_path) == list(range(200))


async def test_the_loop_s_own_write_fails_as_the_writer_s_does(tmp_path: Path, threads: list[str]) -> None:
    """The caller is refused, and what it owes is written as soon as writing works again."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        ledger._takes_s = FAST_S
        books.ledger._store._reserve = 1 << 62
        with fail_after(10), pytest.raises(Unavailable):
            await ledger.append([change(scribe, 1)])
        books.ledger._store._reserve = 0
        ledger._takes_s = FAST_S
        with fail_after(10):
            await ledger.append([change(scribe, 2)])
    assert threads == ["loop", "writer"]  # after trouble, the writer
    assert numbers(tmp_path) == [2]


@pytest.mark.parametrize(("size", "thread"), [(1000, "loop"), (1_000_000, "writer")])
async def test_what_is_big_is_written_by_the_writer(tmp_path: Path, threads: list[str], size: int, thread: str) -> None:
    """Sealing and writing megabytes takes the loop away from everybody, however fast the disk is."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        ledger._takes_s = FAST_S
        payload = Payload(Role.CHANGE, b"x" * size)
        with fail_after(10):
            await ledger.submit([scribe.draft(EventType.ADMIN_CHANGE, Subject(), {"action": "test.1"}, payload)])
        assert threads == [thread]


async def test_a_log_in_trouble_is_opened_anew_by_the_writer(tmp_path: Path, threads: list[str]) -> None:
    """What was thrown away is read and checked anew, and on a sick disk that may take long."""
    async with open_books(tmp_path) as books:
        scribe, ledger = Scribe(books.clock, books.keys), books.ledger
        ledger._store.abandon()
        for number in range(2):
            ledger._takes_s = FAST_S
            with fail_after(10):
                await ledger.submit([change(scribe, number)])
        assert threads == ["writer", "loop"]
    assert numbers(tmp_path) == [0, 1]
