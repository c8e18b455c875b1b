"""The kill switch on the real log: what it covers, two gateways on one log, votes, a slow and a broken disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.ledger.books.kills import KillRegistry
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.storage import kill_records
from gateway.core.call import Intent
from gateway.core.errors import Conflict, Forbidden, Killed, NotFound, Unavailable
from gateway.core.kills import Kill, Kind, target
from gateway.core.leasing import Holder
from gateway.core.records import SYSTEM, EventType
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Books, Walk, open_books
from tests.replicas import Sites

ADA = make_principal(user="ada", agent=None, scopes=frozenset({"admin"}))
VERA = replace(ADA, user="vera")
HOLDER = Holder("run-1", "call-1", "Test-Agent", "Dora", "up.echo", "issuer", ("inner-agent",))


def registry(books: Books, quorum: int = 2) -> KillRegistry:
    """The kills of these books; alone on the log."""
    return KillRegistry(books.ledger, books.reader, books.keys, books.clock, quorum).among(None, books.reviewers)


async def engaged(kills: KillRegistry, kind: Kind, name: str) -> Kill:
    """A kill that is on disk."""
    kill, written = kills.engage(ADA, target(kind, name), name, "a test")
    await written
    return kill


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    ("kind", "name", "covered"),
    [
        (Kind.AGENT, "TEST-AGENT", True),
        (Kind.AGENT, "inner-agent", True),
        (Kind.AGENT, "test-agent-2", False),
        (Kind.USER, " dora ", True),
        (Kind.USER, "\uff44\uff4f\uff52\uff41", True),
        (Kind.USER, "issuer", False),
        (Kind.TOOL, "UP.Echo", True),
        (Kind.TOOL, "up.*", True),
        (Kind.TOOL, "up.ech", False),
        (Kind.RUN, "RUN-1", True),
        (Kind.RUN, "run-10", False),
        (Kind.ALL, "", True),
    ],
)
async def test_what_a_kill_covers(tmp_path: Path, kind: Kind, name: str, covered: bool) -> None:
    """A whole principal whatever the spelling, also an agent that acts through another; nobody else."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books) as kills:
        kill = await engaged(kills, kind, name)
        assert (kills.covering(HOLDER) is not None) is covered
        assert kills.covers(kill, HOLDER) is covered


async def test_the_marks_of_one_call_are_not_taken_for_anothers(tmp_path: Path) -> None:
    """They are kept by all that a kill can name: another user, agent, run or tool has marks of its own at once."""
    one = Holder(run_id="r", call_id="c", agent="a", user="u", tool="up.t", delegation=("d",))
    others: list[dict[str, Any]] = [{name: "other"} for name in ("run_id", "agent", "user", "tool")]
    async with open_books(tmp_path / "s", StepClock()) as books:
        marks = kill_records.Marks(books.keys)
        told = marks.stopping(one)
        assert told == marks.stopping(structs.replace(one, call_id="d", issuer="i"))
        for other in [*others, {"tool": None}, {"delegation": ("other",)}]:
            assert marks.stopping(structs.replace(one, **other)) != told
        assert marks.stopping(one) == told


@pytest.mark.requirement("INC-1")
async def test_no_intent_slips_past(tmp_path: Path) -> None:
    """A kill between decision and intent: the writer refuses the intent, and does so after a restart."""
    clock = StepClock()
    async with open_books(tmp_path / "s", clock) as books, registry(books) as kills:
        walk = Walk(books, meanwhile=lambda: _engage_now(kills))
        with pytest.raises(Killed) as caught:
            await walk.go()
        assert caught.value.cause_code == "kill.all"
    async with open_books(tmp_path / "s", clock) as books, registry(books) as kills:
        (kill,) = kills.all()
        assert (kill.kind, kill.reason, kill.by) == (Kind.ALL, "a test", "ada")
        with pytest.raises(Killed):
            await Walk(books).go()
        for person in (ADA, VERA):
            await kills.lift(person, kill.id, "over")
        await Walk(books).go()


def _engage_now(kills: KillRegistry) -> None:
    kills.engage(ADA, target(Kind.ALL, ""), "", "a test")


@pytest.mark.requirement("INC-1")
async def test_a_quorum_is_of_different_persons(tmp_path: Path) -> None:
    """One person asks once, who is stopped does not ask, and two of two lift it; nothing is lifted twice."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books) as kills:
        kill = await engaged(kills, Kind.USER, "Mallory")
        assert (await kills.lift(ADA, kill.id, "over")).lifted_us is None
        with pytest.raises(Conflict):
            await kills.lift(ADA, kill.id, "over")
        with pytest.raises(Forbidden):
            await kills.lift(replace(ADA, user="MALLORY"), kill.id, "it is me")
        with pytest.raises(NotFound):
            await kills.lift(VERA, "0197a000-0000-7000-8000-000000000009", "over")
        assert (await kills.lift(VERA, kill.id, "over")).lifted_us is not None
        with pytest.raises(NotFound):
            await kills.lift(replace(ADA, user="third"), kill.id, "over")


@pytest.mark.requirement("INC-1")
async def test_the_verifier_counts_the_voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lift by a quorum is fine; one that a forger's own writer lets through with one voice of two is found."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books) as kills:
        for kill in (await engaged(kills, Kind.ALL, ""), await engaged(kills, Kind.AGENT, "a")):
            await kills.lift(ADA, kill.id, "over")
        await kills.lift(VERA, kills.all()[0].id, "over")
        assert books.verify().findings == []
        body = {"kill": kills.all()[1].id, "needed": 2, "votes": 1}
        draft = Scribe(books.clock, books.keys).draft(EventType.KILL_LIFTED, Subject(SYSTEM), body)
        with pytest.raises(Conflict):
            await books.ledger.append([draft])
        monkeypatch.setattr(kill_records, "follow", lambda stands, _: stands)
        await books.ledger.append([draft])
        (finding,) = books.verify().findings
        assert finding.problem == "a kill is lifted by 1 persons where 2 are needed"


@pytest.mark.requirement("INC-1")
async def test_two_gateways_on_one_log(both: tuple[Books, Books]) -> None:
    """What one engages the other's next intent is refused for, at once; it hears of it, and lifts together with it."""
    one, other = both
    async with _shared(one) as first, _shared(other) as second:
        heard: list[Kill] = []
        second.on_kill(heard.append)
        walk = Walk(other, act=_never)
        kill = await engaged(first, Kind.AGENT, "test-agent")
        with pytest.raises(Killed):
            await walk.go()
        await second.fresh()
        assert [found.id for found in heard] == [kill.id]
        assert second.covering(HOLDER) is not None
        await first.lift(ADA, kill.id, "over")
        assert (await second.lift(VERA, kill.id, "over")).lifted_us is not None
        await first.fresh()
        assert first.covering(HOLDER) is None
        await Walk(other).go()


async def test_a_gateway_that_cannot_read_lets_nobody_in(sites: Sites, both: tuple[Books, Books]) -> None:
    """Where the log cannot be read nobody can say what is stopped: a fresh look is Unavailable."""
    async with _shared(both[1]) as second:
        sites.run("alter table ostiary.records rename to hidden")
        with pytest.raises(Unavailable):
            await second.fresh()
        sites.run("alter table ostiary.hidden rename to records")
        await second.fresh()


def _shared(books: Books) -> KillRegistry:
    return KillRegistry(books.ledger, books.reader, books.keys, books.clock, 2).among(books.places, books.reviewers)


async def _never(intent: Intent) -> None:
    raise AssertionError(f"{intent.record_id} got through")
