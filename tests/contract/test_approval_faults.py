"""Approvals when the world does not hold still: time, revocations, a log that fails, attempts that get nowhere."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from anyio import Event, create_task_group, fail_after, sleep
from msgspec import structs

from gateway.adapters.ledger.books.approvals import Terms
from gateway.adapters.ledger.books.filing import Filing
from gateway.adapters.ledger.storage.batch import Batch
from gateway.adapters.ledger.storage.outcome import Prepared
from gateway.core import pipeline
from gateway.core.approval import Action, State, Verdict
from gateway.core.call import Lease, Raw, Resumed
from gateway.core.errors import Conflict, Denied, GatewayError, NotFound, NotSent, Pending, Throttled, Unavailable
from gateway.core.records import Draft, EventType
from tests.approval_world import OPERATOR, Door, Person, open_door
from tests.clock import StepClock
from tests.fakes import World
from tests.fakes.rules import ALLOW, DENY
from tests.fakes.upstream import FakeConnector

VERA, PAUL = Person("vera"), Person("paul")
Groups = Sequence[Sequence[Draft]]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door where payments need a person; Vera and Paul may approve."""
    async with open_door(tmp_path) as opened:
        await opened.enrol(VERA, PAUL)
        yield opened


@contextmanager
def failing(door: Door, fails: Callable[[Groups], bool], *, afterwards: bool = False) -> Iterator[None]:
    """Transactions for which ``fails`` says so are refused by the disk, or (``afterwards``) reported as refused."""
    store = door.books.ledger._store
    prepare, commit = store._prepared, store._commit
    doomed: list[Batch] = []

    def prepared(groups: Groups) -> Prepared:
        if fails(groups) and not afterwards:
            raise sqlite3.OperationalError("disk I/O error")
        made = prepare(groups)
        if fails(groups) and made.batch is not None:
            doomed.append(made.batch)
        return made

    def committed(made: Prepared, batch: Batch) -> None:
        commit(made, batch)
        if any(batch is one for one in doomed):
            raise sqlite3.OperationalError("disk I/O error")

    store._prepared = prepared  # type: ignore[method-assign]
    store._commit = committed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        store._prepared, store._commit = prepare, commit  # type: ignore[method-assign]


def holds(*kinds: EventType) -> Callable[[Groups], bool]:
    """Whether a transaction holds a record of one of the kinds."""
    return lambda groups: any(draft.type in kinds for group in groups for draft in group)


def raising(error: GatewayError) -> Callable[[], None]:
    """A trap that raises."""

    def trap() -> None:
        raise error

    return trap


async def until(door: Door, look: Callable[[], bool]) -> None:
    """Wait until it is true."""
    with fail_after(20):
        while not look():  # noqa: ASYNC110 - what is looked at tells nobody
            await sleep(0.01)


@pytest.mark.requirement("GATE-1")
async def test_what_was_approved_and_not_used_in_time_is_used_for_nothing(tmp_path: Path) -> None:
    """A gateway that comes back after the approval's time lets it lapse, and the agent hears so."""
    world = World()
    async with open_door(tmp_path, world=world, resuming=False) as door:
        await door.enrol(VERA)
        action = await door.parked()
        await door.approve(action, VERA)
    world.clock.advance(5 * 3600)
    async with open_door(tmp_path, world=world) as door:
        await door.reaches(action, State.EXPIRED)
        with pytest.raises(Denied) as caught:
            await door.knock()
        assert (caught.value.cause_code, door.paid()) == ("approval_expired", 0)
        assert door.books.verify().findings == []


async def test_time_that_runs_out_between_attempts_ends_them(door: Door) -> None:
    """An upstream that is not reached is tried until the approval lapses, and not once more."""
    door.world.journal.traps["connector.invoke"] = raising(NotSent("refused"))
    action = await door.parked()
    await door.approve(action, VERA)
    await until(door, lambda: "tool.not_sent" in door.books.types())
    door.world.clock.advance(3601)
    del door.world.journal.traps["connector.invoke"]
    await door.reaches(action, State.EXPIRED)
    assert door.paid() == 0
    assert door.books.verify().findings == []


async def test_limits_do_not_burn_an_approval(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often there is no room, the approval stays good until its time is over."""
    monkeypatch.setattr("gateway.edge.resuming._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("gateway.edge.resuming._LONGEST_PAUSE_S", 0.001)
    refused = 0

    def trap() -> None:
        nonlocal refused
        refused += 1
        if refused <= 30:
            raise Throttled("busy")

    door.world.journal.traps["limits.spend"] = trap
    action = await door.parked()
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    assert (refused, door.paid()) == (31, 1)


async def test_a_wait_that_is_asked_for_is_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt comes no sooner than the limit says."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("gateway.edge.resuming.sleep", pause)
    errors = iter([Throttled("busy", retry_after=42.0)])

    def trap() -> None:
        for error in errors:
            raise error

    door.world.journal.traps["limits.spend"] = trap
    action = await door.parked()
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    assert pauses == [42.0]


@pytest.mark.requirement("GATE-1")
async def test_a_revoked_keys_signature_counts_no_more(door: Door) -> None:
    """Signed before it was revoked, it completes no quorum afterwards; the log is sound."""
    need = {"id": "test.approval", "msg": "two must agree", "quorum": 2}
    door.world.policy.words[("call", "bank.pay")] = ALLOW | {"require": {"test": [need]}}
    action = await door.parked()
    await door.approve(action, PAUL)
    await door.books.reviewers.revoke(OPERATOR, PAUL.key_id)
    assert (await door.approve(action, VERA)).state is State.PENDING
    assert door.paid() == 0
    assert door.books.verify().findings == []


async def test_deciding_and_revoking_at_once_are_one_after_the_other(door: Door) -> None:
    """Whichever comes first, no word of a revoked key is in the log."""
    for amount in range(10):
        person = Person(f"person-{amount}")
        wish = person.enrolment(VERA, origin=door.books.reviewers.origin)
        await door.books.reviewers.enrol(OPERATOR, wish)
        action = await door.parked(door.call(b'{"amount": %d}' % amount))
        async with create_task_group() as tasks:
            tasks.start_soon(_revoked, door, person)
            tasks.start_soon(_decided, door, action, person)
    assert door.books.verify().findings == []


async def _revoked(door: Door, person: Person) -> None:
    await door.books.reviewers.revoke(OPERATOR, person.key_id)


async def _decided(door: Door, action: Action, person: Person) -> None:
    try:
        await door.books.approvals.decide(action.id, person.ballot(action))
    except GatewayError as error:
        assert error.code == "forbidden"  # noqa: PT017 - it may also succeed


@pytest.mark.parametrize("policy", ["still asks", "lets it go alone"])
async def test_another_pin_is_another_action(tmp_path: Path, policy: str) -> None:
    """A tool whose definition changed after the signature is not called by it, whatever policy says by now."""
    async with open_door(tmp_path, resuming=False) as door:
        await door.enrol(VERA)
        action = await door.parked()
        await door.approve(action, VERA)
        if policy == "lets it go alone":
            door.world.policy.words[("call", "bank.pay")] = ALLOW
        shelf = door.world.catalog.shelf
        door.world.catalog.shelf = tuple(replace(tool, digest="another") for tool in shelf)
        call = structs.replace(door.call(), origin=Resumed(action.id), run=action.run)
        with pytest.raises(Denied) as caught:
            await pipeline.handle(call, door.ports)
        assert (caught.value.cause_code, door.paid()) == ("approval_stale", 0)


async def test_a_rejection_while_it_is_carried_out_comes_too_late(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reviewer is told that it is executing; the call ends as it ends."""
    gate, invoke = Event(), FakeConnector.invoke

    async def slow(self: FakeConnector, lease: Lease) -> Raw:
        await gate.wait()
        return await invoke(self, lease)

    monkeypatch.setattr(FakeConnector, "invoke", slow)
    action = await door.parked()
    await door.approve(action, VERA)
    await until(door, lambda: "tool.requested" in door.books.types())
    with pytest.raises(Conflict):
        await door.books.approvals.decide(action.id, VERA.ballot(action, Verdict.REJECT, "stop"))
    assert (await door.books.approvals.dossier(action.id)).state is State.EXECUTING
    gate.set()
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1


async def test_a_rejection_between_attempts_ends_them(door: Door) -> None:
    """The inbox has its place back, once; the gateway goes on resuming others."""
    door.books.approvals._terms = Terms(replay_s=1)
    door.world.journal.traps["connector.invoke"] = raising(NotSent("refused"))
    action = await door.parked()
    await door.approve(action, VERA)
    await until(door, lambda: "tool.not_sent" in door.books.types())
    await door.books.approvals.decide(action.id, VERA.ballot(action, Verdict.REJECT, "no"))
    door.world.clock.advance(2)
    await door.books.approvals.tend()
    del door.world.journal.traps["connector.invoke"]
    assert door.books.approvals._inbox._waiting.total() == 0
    other = await door.parked(door.call(b'{"amount": 5}'))
    await door.approve(other, VERA)
    await door.reaches(other, State.ENDED)
    assert door.paid() == 1


async def test_an_approval_nobody_knows_any_more_settles(door: Door) -> None:
    """An attempt whose approval was forgotten meanwhile is simply over."""
    assert not await door.books.approvals.settle("no-such", None)


@pytest.mark.parametrize("ending", [EventType.TOOL_COMPLETED, EventType.TOOL_NOT_SENT])
async def test_an_end_that_could_not_be_written_is_told_once_it_is(door: Door, ending: EventType) -> None:
    """The log fails at the end of the approved call: as soon as it works again the approval stands as the log says."""
    if ending is EventType.TOOL_NOT_SENT:
        door.world.journal.traps["connector.invoke"] = raising(NotSent("refused"))
    failed = False

    def fails(groups: Groups) -> bool:
        nonlocal failed
        failed = failed or holds(ending)(groups)
        return failed

    with failing(door, fails):
        action = await door.parked()
        await door.approve(action, VERA)
        await until(door, lambda: failed)
        door.world.journal.traps.pop("connector.invoke", None)
    await door.books.ledger.ping()
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1
    assert door.books.approvals._inbox._waiting.total() == 0
    assert door.books.verify().findings == []


async def test_an_end_that_is_written_before_it_is_asked_after_counts(door: Door) -> None:
    """The log works again while the failed attempt waits to be settled: nothing was sent, so it is made again."""
    door.world.journal.traps["connector.invoke"] = raising(NotSent("refused"))
    failed = False

    def fails(groups: Groups) -> bool:
        nonlocal failed
        failed = failed or holds(EventType.TOOL_NOT_SENT)(groups)
        return failed

    action = await door.parked()
    await door.books.approvals.decide(action.id, VERA.ballot(action))
    async with door.books.approvals._parked[action.id].turn:
        with failing(door, fails):
            await until(door, lambda: failed)
        del door.world.journal.traps["connector.invoke"]
        await door.books.ledger.ping()
        await until(door, lambda: "tool.not_sent" in door.books.types())
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1
    assert door.books.verify().findings == []


async def test_a_parking_that_is_there_although_it_was_reported_to_have_failed(door: Door) -> None:
    """The agent that asks again attaches to it, and it is paid once."""
    with failing(door, holds(EventType.APPROVAL_REQUESTED), afterwards=True), pytest.raises(Unavailable):
        await door.knock()
    action = await door.parked()
    assert door.books.types().count("approval.requested") == 1
    await door.approve(action, VERA)
    await door.reaches(action, State.ENDED)
    assert door.paid() == 1


async def test_an_expiry_that_is_there_although_it_was_reported_to_have_failed(tmp_path: Path) -> None:
    """It holds up no other approval's expiry."""
    clock = StepClock()
    async with open_door(tmp_path, clock=clock) as door:
        await door.enrol(VERA)
        actions = [await door.parked(door.call(b'{"amount": %d}' % amount)) for amount in range(2)]
        clock.advance(3601)
        with failing(door, holds(EventType.APPROVAL_EXPIRED), afterwards=True), pytest.raises(Unavailable):
            await door.books.approvals.tend()
        await door.books.approvals.tend()
        states = {(await door.books.approvals.dossier(action.id)).state for action in actions}
        assert states == {State.EXPIRED}
        assert door.books.types().count("approval.expired") == 2


async def test_two_rules_of_the_same_name_are_two_rules(door: Door) -> None:
    """What each lacks is told for each."""
    needs = {"a": [{"id": "x.need", "msg": "m", "roles": ["cfo"]}], "b": [{"id": "x.need", "msg": "m"}]}
    door.world.policy.words[("call", "bank.pay")] = ALLOW | {"require": needs}
    action = await door.parked()
    assert sorted((await door.approve(action, VERA)).missing) == [0, 1]


async def test_an_inbox_is_bounded_by_user_and_by_weight(door: Door) -> None:
    """A user's agents together have so much room, however large each call is."""
    calls = [door.call(b'{"amount": %d, "memo": "%s"}' % (amount, b"x" * 180_000)) for amount in range(24)]
    for call in calls[:23]:
        await door.parked(call)
    with pytest.raises(Throttled):
        await door.knock(calls[23])


async def test_a_parked_call_is_nobodys_without_its_approval(tmp_path: Path) -> None:
    """An approval that is pending, used or unknown gives no principal to a call that names it."""
    async with open_door(tmp_path, resuming=False) as door:
        await door.enrol(VERA)
        action = await door.parked()
        for name in (action.id, "no-such"):
            with pytest.raises(NotFound):
                await door.ports.approvals.principal(Resumed(name))
        with pytest.raises(Pending):
            await door.knock()


@pytest.mark.parametrize(("word", "state"), [("end", State.VOID), ("decide", State.REJECTED)])
async def test_no_end_is_seen_before_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, state: State
) -> None:
    """Who asks when the record of the end is written and not noted in memory yet is told both."""
    whole, is_written, may_go_on = getattr(Filing, word), Event(), Event()

    async def held(*words: Any) -> int:
        at_us: int = await whole(*words)
        is_written.set()
        await may_go_on.wait()
        return at_us

    async with open_door(tmp_path, resuming=state is State.VOID) as door, create_task_group() as group:
        await door.enrol(VERA, PAUL)
        action = await door.parked()
        ballot = VERA.ballot(action)
        if state is State.REJECTED:
            await door.approve(action, VERA)
            ballot = PAUL.ballot(action, Verdict.REJECT, "too much")
        door.world.policy.words[("call", "bank.pay")] = DENY
        monkeypatch.setattr(Filing, word, held)
        group.start_soon(door.books.approvals.decide, action.id, ballot)
        await is_written.wait()
        dossier = await door.books.approvals.dossier(action.id)
        may_go_on.set()
    assert (dossier.state, bool(dossier.why)) == (state, True)
