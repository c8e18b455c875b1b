"""What may not become a record does not, and harms nothing beside it: too long, twice, out of time, of another key."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import LOG_VKEY, PAYLOAD_KEK, create_or_load
from gateway.adapters.ledger.searching import search
from gateway.adapters.ledger.verification.verify import verify
from gateway.core.errors import Unavailable
from gateway.core.inquiry import Query
from gateway.core.records import MAX_LEAF, Draft, EventType
from gateway.core.tiles import Tile, unbundle
from gateway.core.tlog import Signer
from tests.clock import StepClock
from tests.ledgers import ORIGIN, Books, Walk, check, open_books

HOUR_S = 3600.0


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """An open ledger."""
    async with open_books(tmp_path, StepClock()) as books:
        yield books


def change(books: Books, members: int = 0, rest: int = 0) -> Draft:
    """A record with so many members of 200 bytes each in its body, and ``rest`` more bytes."""
    body = {f"k{number:03}": "x" * 190 for number in range(members)} | {"rest": "y" * rest}
    return Scribe(books.clock, books.keys).draft(EventType.ADMIN_CHANGE, Subject(), body)


async def length(books: Books, draft: Draft) -> int:
    """How long the leaf of this draft is, once it is a record."""
    await books.ledger.append([draft])
    checkpoint = await books.tree.checkpoint()
    size = int(checkpoint.split("\n")[1])
    tile = Tile.parse(f"entries/000.p/{size}")
    assert tile is not None
    return len(unbundle(await books.tree.tile(tile))[-1])


async def test_a_record_that_is_too_long_is_refused_alone(books: Books) -> None:
    """65,535 bytes are the most; one more is refused to who wrote it, and its neighbours in the batch are written."""
    room = MAX_LEAF - await length(books, change(books, 325))
    assert await length(books, change(books, 325, room)) == MAX_LEAF
    parts = [change(books), change(books, 325, room + 1), change(books)]
    first, long, last = [books.ledger.submit([draft]) for draft in parts]
    await first
    with pytest.raises(Unavailable, match="the record is too long"):
        await long
    await last
    found = [record.body["id"] for record in await books.reader.search(Query(type="admin.change"))]
    assert found[2:] == [parts[0].id, parts[2].id]
    assert books.verify().ok


async def test_a_body_that_is_no_record_is_refused_alone(books: Books) -> None:
    """One that holds itself, or what is no number: who wrote it is told, its neighbours in the batch are written."""
    endless: dict[str, Any] = {"action": "test"}
    endless["more"] = endless
    bodies = [{"action": "test"}, endless, {"action": "test", "share": float("nan")}, {"action": "test"}]
    scribe = Scribe(books.clock, books.keys)
    drafts = [scribe.draft(EventType.ADMIN_CHANGE, Subject(), body) for body in bodies]
    first, deep, no_number, last = [books.ledger.submit([draft]) for draft in drafts]
    await first
    with pytest.raises(Unavailable, match="the record was refused"):
        await deep
    with pytest.raises(Unavailable, match="a float may not stand in a record"):
        await no_number
    await last
    found = [record.body["id"] for record in await books.reader.search(Query(type="admin.change"))]
    assert found == [drafts[0].id, drafts[3].id]
    assert books.verify().ok


async def test_what_is_there_already_is_refused(books: Books) -> None:
    """A second start of a run, a second intent of a call that is out, a second end of one that has ended."""
    call = Walk(books).call()
    answer = await Walk(books).go(call)
    scribe = Scribe(books.clock, books.keys)
    subject = Subject(scribe.actor(Walk(books).principal), answer.run_id, answer.call_id)
    end = scribe.draft(EventType.TOOL_COMPLETED, subject, {"tool": "up.echo"})
    start = scribe.draft(EventType.RUN_STARTED, subject, {"binding": None})
    before = len(books.records())
    for draft, said in ((end, "an intent ends exactly once"), (start, "a run starts once")):
        with pytest.raises(Unavailable, match=said):
            await books.ledger.append([draft])
    intent = scribe.draft(EventType.TOOL_REQUESTED, Subject(subject.actor, answer.run_id, "twice"), {"tool": "up.echo"})
    with pytest.raises(Unavailable, match="an intent ends exactly once"):
        await books.ledger.append([intent, intent])
    assert len(books.records()) == before
    assert books.verify().ok


async def test_a_clock_that_goes_back_harms_no_record(tmp_path: Path) -> None:
    """Records keep the order they came in, searches by time find them, and the log goes on after a restart."""
    clock = StepClock()
    made, times = [], []
    for step_s in (0.0, -HOUR_S, 2 * HOUR_S, -3 * HOUR_S):
        clock.advance(step_s)
        async with open_books(tmp_path, clock) as books:
            for _ in range(2):
                times.append(clock.now_us())
                made.append((await Walk(books).go()).call_id)
                clock.advance(1.0)
    report = check(tmp_path)
    assert report.ok, report.findings
    async with open_books(tmp_path, clock) as books:
        done = [record["call_id"] for record in books.records("tool.completed")]
        assert done == made
        for call_id, at_us in zip(made, times, strict=True):
            query = Query(type="tool.completed", since_us=at_us, until_us=at_us)
            found = await books.reader.ask(lambda db, query=query: list(search(db, query)))  # type: ignore[misc]
            assert [index for index, _ in found] == [
                index for index, record in enumerate(books.records()) if record["call_id"] == call_id
            ][-1:]


async def test_another_key_opens_nothing(tmp_path: Path) -> None:
    """Another payload key or signing key: refused at the start, said by verification, and the log stays as it was."""
    state, other = tmp_path / "state", tmp_path / "other"
    clock = StepClock()
    async with open_books(state, clock) as books:
        await Walk(books).go()
    stranger = create_or_load(other, ORIGIN)
    kept = (state / "keys" / PAYLOAD_KEK).read_bytes()
    shutil.copy(other / PAYLOAD_KEK, state / "keys" / PAYLOAD_KEK)
    with pytest.raises(StateRefused, match=r"payload\.kek opens none of the log's data keys"):
        await opening(state, clock)
    assert any("payload.kek is another one" in finding.problem for finding in check(state).findings)
    (state / "keys" / PAYLOAD_KEK).write_bytes(kept)
    assert check(state).ok
    renamed = Signer("gateway.west/log", stranger.signer._private).key.text
    for vkey in ((other / LOG_VKEY).read_text(), renamed, "no key"):
        assert not verify(state, vkey).ok
    await opening(state, clock)


async def opening(folder: Path, clock: StepClock) -> None:
    """Open and close."""
    async with open_books(folder, clock):
        pass
