"""Erasure on the real log: what was sealed can be read no more, wherever one looks, and the log still verifies."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from gateway.adapters.ledger.exporting import LogExport
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.site import Site
from gateway.core.call import Intent, Principal
from gateway.core.custody import Target
from gateway.core.desk import RunRequest
from gateway.core.errors import Conflict, NotFound
from gateway.core.extract import Depth
from gateway.core.inquiry import Query
from gateway.core.records import EventType, Role
from tests.approval_world import OPERATOR, Person, open_door
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Books, Walk, asked, check, content, open_books

ALICE, BOB = ("urn:test", "alice"), ("urn:test", "bob")
BOBS = make_principal(user="bob", jti="jti-2")
SECRET = "the-plaintext-nobody-may-find"


def wrapped(place: Path | Site) -> dict[str, bytes]:
    """The wrapped data keys in the database, by id."""
    return dict(asked(place, "select id, wrapped from deks"))


def change(folder: Path, *statements: str) -> None:
    """Change the database behind the log's back."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


async def ended(books: Books, principal: Principal | None = None, session: str = "s") -> tuple[str, str]:
    """A run with one call that holds the secret, ended: ids of run and call."""
    who = principal or make_principal()
    answer = await Walk(books, arguments={"a": SECRET}, principal=who, more={"session": session}).go()
    await books.runs.end(answer.run_id, "a person's words on why it ends")
    return answer.run_id, answer.call_id


async def started(books: Books, user: str, count: int) -> list[str]:
    """So many ended runs that the user opened."""
    person = make_principal(user=user, agent=None)
    request = RunRequest(SECRET, "test-agent")
    runs = [run.id for run in await asyncio.gather(*(books.runs.start(person, request) for _ in range(count)))]
    await asyncio.gather(*(books.runs.end(run, "closed") for run in runs))
    return runs


@pytest.mark.requirement("AUDIT-4")
async def test_an_erased_run_can_be_read_nowhere_and_still_verifies(tmp_path: Path) -> None:
    """No file holds the wrapped key or the plaintext; the verifier counts the payloads as erased, not as lost."""
    async with open_books(tmp_path) as books:
        run, call = await ended(books)
        other, other_call = await ended(books, BOBS)
        key = wrapped(tmp_path)[run]
        assert key in content(tmp_path)
        erased = await books.custodian.erase(OPERATOR, Target(run=run), "case 7")
        assert (erased.runs, erased.keys, erased.complete) == (1, 1, True)
        assert key not in content(tmp_path)
        assert SECRET.encode() not in content(tmp_path)
        assert await books.reader.payload(call, Role.REQUEST) is None
        assert await books.reader.payload(other_call, Role.REQUEST) is not None
        assert await books.runs.show(run) is None
        assert await books.runs.show(other) is not None
        report = books.verify()
        assert report.ok, report.findings
        named = sum(len(record["payloads"]) for record in books.records() if record["run_id"] == run)
        assert report.erased == named > 0
    (record,) = [record for record in books.records() if record["type"] == EventType.ERASURE]
    assert record["body"] == {"cause": "run", "keys": [run], "runs": 1, "subject": None}
    assert b"case 7" not in content(tmp_path)


async def test_a_user_is_found_by_pseudonym_and_erased_whole(tmp_path: Path) -> None:
    """All of their runs, of every agent, what they asked for outside any run; nobody else's, and no name is left."""
    async with open_books(tmp_path) as books:
        mine = {(await ended(books, session=f"s{at}"))[0] for at in range(3)}
        mine.add((await ended(books, make_principal(agent="second-agent", jti="jti-3")))[0])
        theirs, _ = await ended(books, BOBS)
        for who in (make_principal(), BOBS):
            with pytest.raises(NotFound):
                await Walk(books, arguments={"a": SECRET}, principal=who, more={"run": "nope"}).go()
        before = wrapped(tmp_path)
        erased = await books.custodian.erase(OPERATOR, Target(subject=ALICE), "case 8")
        assert (erased.runs, erased.keys) == (4, 5)
        gone = before.keys() - wrapped(tmp_path).keys()
        assert mine <= gone
        assert theirs not in gone
        everything = content(tmp_path)
        assert not [key for key in gone if before[key] in everything]
        assert b"alice" not in everything
        assert books.verify().ok
        with pytest.raises(NotFound):
            await books.custodian.erase(OPERATOR, Target(subject=ALICE), "again")
        with pytest.raises(NotFound):
            await books.custodian.erase(OPERATOR, Target(subject=("urn:other", "bob")), "another issuer's bob")


async def test_thousands_of_keys_leave_nothing_on_any_page(tmp_path: Path) -> None:
    """Pages of the table of keys were split many times; one user's keys are in no file, and two records name them."""
    async with open_books(tmp_path) as books:
        await started(books, "alice", 450)
        await started(books, "bob", 450)
        await started(books, "alice", 150)
        before = wrapped(tmp_path)
        erased = await books.custodian.erase(OPERATOR, Target(subject=ALICE), "case 9")
        assert erased.keys == 600
        everything = content(tmp_path)
        gone = before.keys() - wrapped(tmp_path).keys()
        assert len(gone) == 600
        assert not [key for key in gone if before[key] in everything or before[key][12:44] in everything]
        assert [len(record["body"]["keys"]) for record in books.records(EventType.ERASURE)] == [400, 200]
        assert books.verify().ok


async def test_what_is_open_or_under_way_is_not_erased(site: Site) -> None:
    """An open run, and an ended one whose call is still out: refused as a whole, and nothing is destroyed."""
    refused: list[str] = []

    async def act(intent: Intent) -> None:
        run = intent.quota.permit.target.caller.run.id
        for _ in range(2):
            with pytest.raises(Conflict) as caught:
                await books.custodian.erase(OPERATOR, Target(subject=ALICE), "too early")
            refused.append(caught.value.detail)
            await books.runs.end(run, "closed")

    async with open_books(site) as books:
        done, _ = await ended(books)
        await Walk(books, act=act, more={"session": "other"}).go()
        assert ["open" in refused[0], "under way" in refused[1]] == [True, True]
        assert done in wrapped(site)
        assert not books.records(EventType.ERASURE)
        assert (await books.custodian.erase(OPERATOR, Target(subject=ALICE), "now")).runs == 2


async def test_what_waits_for_people_is_not_erased(site: Site) -> None:
    """A run with an open approval: refused until the approval has ended."""
    vera = Person("vera")
    async with open_door(site) as door:
        await door.enrol(vera)
        action = await door.parked()
        custodian = door.books.custodian
        await door.books.runs.end(action.run, "closed")
        with pytest.raises(Conflict, match="approval"):
            await custodian.erase(OPERATOR, Target(run=action.run), "too early")
        assert isinstance(door.books.clock, StepClock)
        door.books.clock.advance(7 * 86_400)
        await door.books.approvals.tend()
        await custodian.erase(OPERATOR, Target(run=action.run), "now")
        with pytest.raises(NotFound):
            await door.books.approvals.dossier(action.id)
        report = check(site)
        assert report.ok, report.findings


async def test_what_comes_after_an_erasure_gets_a_key_of_its_own(site: Site) -> None:
    """A late record of an erased run, and the same day's next refusal: sealed anew, readable, and erasable again."""
    async with open_books(site) as books:
        run, _ = await ended(books)
        with pytest.raises(NotFound):
            await Walk(books, more={"run": "nope"}).go()
        await books.custodian.erase(OPERATOR, Target(subject=ALICE), "case 10")
        with pytest.raises(NotFound):
            await Walk(books, more={"run": run}).go()  # as if there were no such run
        late = books.records()[-1]
        assert late["payloads"][0]["dek"].endswith("+1")
        assert await books.reader.payload(late["call_id"], Role.REQUEST) is not None
        assert (await books.custodian.erase(OPERATOR, Target(subject=ALICE), "case 10 again")).keys == 1
        assert await books.reader.payload(late["call_id"], Role.REQUEST) is None
        assert books.verify().ok


@pytest.mark.requirement("AUDIT-4")
async def test_a_hold_blocks_erasure_until_it_is_released(site: Site) -> None:
    """Of a run and of a user alike; it survives a restart, is told with its reason, and is set and released once."""
    async with open_books(site) as books:
        run, _ = await ended(books)
        hold = await books.custodian.hold(OPERATOR, Target(run=run), "case 11")
        assert (hold.target, hold.why, hold.keys) == (f"run:{run}", "case 11", 1)
        # Who is not known yet may come later; a misspelt name shows by what it keeps.
        assert (await books.custodian.hold(OPERATOR, Target(subject=BOB), "case 12")).keys == 0
        theirs, _ = await ended(books, BOBS)
        with pytest.raises(Conflict):
            await books.custodian.hold(OPERATOR, Target(run=run), "twice")
        with pytest.raises(NotFound):
            await books.custodian.hold(OPERATOR, Target(run="nope"), "nothing there")
    async with open_books(site) as books:
        assert [held.why for held in await books.custodian.holds()] == ["case 11", "case 12"]
        for target in (Target(run=run), Target(subject=ALICE), Target(run=theirs), Target(subject=BOB)):
            with pytest.raises(Conflict, match="hold"):
                await books.custodian.erase(OPERATOR, target, "not now")
        assert {run, theirs} <= wrapped(site).keys()
        await books.custodian.release(OPERATOR, Target(subject=BOB), "closed")
        with pytest.raises(Conflict):
            await books.custodian.release(OPERATOR, Target(subject=BOB), "closed again")
        await books.custodian.erase(OPERATOR, Target(subject=BOB), "now")
        assert [held.why for held in await books.custodian.holds()] == ["case 11"]
        report = books.verify()
        assert report.ok, report.findings


@pytest.mark.requirement("AUDIT-4")
async def test_retention_takes_what_is_old_ended_and_not_held(site: Site) -> None:
    """In steps; open runs, young ones, held ones and reviewers' enrolments stay; it is recorded as nobody's wish."""
    clock = StepClock()
    async with open_books(site, clock) as books:
        await books.reviewers.enrol(OPERATOR, Person("vera").enrolment())
        old = await started(books, "alice", 230)
        held, _ = await ended(books, BOBS)
        await books.custodian.hold(OPERATOR, Target(subject=BOB), "case 13")
        with pytest.raises(NotFound):
            await Walk(books, more={"run": "nope"}).go()
        still = (await Walk(books, more={"session": "open"}).go()).run_id
        clock.advance(400 * 86_400)
        young, _ = await ended(books)
        before = wrapped(site)
        count = await books.custodian.retire(clock.now_us() - 399 * 86_400_000_000)
        left = wrapped(site)
        assert count == len(before) - len(left)
        assert not left.keys() & set(old)
        assert {held, still, young} <= left.keys()
        kinds = sorted(key.partition("-")[0] for key in left if key not in {held, still, young})
        assert kinds == ["hold", "reviewer"]
        assert not [key for key in before.keys() - left.keys() if before[key] in content(site.folder)]
        records = books.records(EventType.ERASURE)
        assert {(record["body"]["cause"], record["actor"]["authn"]) for record in records} == {("retention", "system")}
        assert len(records) == 2
        assert await books.custodian.retire(clock.now_us() - 399 * 86_400_000_000) == 0
        report = books.verify()
        assert report.ok, report.findings


async def test_a_reader_of_the_log_delays_the_last_copy_and_is_told_of(tmp_path: Path) -> None:
    """While somebody reads, the write-ahead log keeps copies: the answer says so, and the next write tries again."""
    clock = StepClock()
    async with open_books(tmp_path, clock) as books:
        run, _ = await ended(books)
        key = wrapped(tmp_path)[run]
        with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as reader:
            reader.execute("begin")
            reader.execute("select count(*) from records").fetchone()
            erased = await books.custodian.erase(OPERATOR, Target(run=run), "case 14")
            assert not erased.complete
        clock.advance(1)
        await books.ledger.append(())
        assert books.ledger.swept
        assert key not in content(tmp_path)


async def write(folder: Path) -> None:
    """A log in ``folder/state``: alice's run was erased, bob's was not; beside it, ``before.db``: as it was before."""
    async with open_books(folder / "state") as books:
        run, _ = await ended(books)
        await ended(books, BOBS)
        await books.ledger.append(())
        with (
            closing(sqlite3.connect(folder / "state" / DATABASE)) as db,
            closing(sqlite3.connect(folder / "before.db")) as copy,
        ):
            db.backup(copy)
        await books.custodian.erase(OPERATOR, Target(run=run), "case 15")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The closed log of ``write``."""
    anyio.run(write, tmp_path)
    assert check(tmp_path / "state").ok
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["delete from deks where id not like 'day-%'"], "no record says it was erased"),
        (["insert into erased select id, 3 from deks", "delete from deks"], "no record says it was erased"),
        (["insert into erased select id, 3 from deks"], "list of destroyed data keys"),
        (["delete from erased"], "list of destroyed data keys"),
        (["update erased set idx = idx - 1"], "list of destroyed data keys"),
        (["insert into holds values ('run:x', 3, 'y')"], "list of legal holds"),
    ],
)
def test_a_forged_erasure_is_found(state: Path, statements: list[str], problem: str) -> None:
    """Who destroys keys without a signed record, or edits the lists beside the log, is told of."""
    change(state, *statements)
    assert problem in " ".join(finding.problem for finding in check(state).findings)


async def test_a_key_that_was_put_back_opens_nothing_and_is_destroyed_again(state: Path) -> None:
    """From a backup of the table of keys: the verifier says so, nothing is read by it, the next start ends it."""
    old = state.parent / "before.db"
    change(
        state,
        f"attach '{old}' as old",
        "insert or ignore into deks select * from old.deks",
        "delete from erased",
        "detach old",
    )
    assert "is there again" in " ".join(finding.problem for finding in check(state).findings)
    with closing(sqlite3.connect(old)) as db:
        keys = dict(db.execute("select id, wrapped from deks"))
    async with open_books(state) as books:
        (run, *_) = books.records(EventType.ERASURE)[0]["body"]["keys"]
        call = next(record["call_id"] for record in books.records() if record["run_id"] == run and record["call_id"])
        assert await books.reader.payload(call, Role.REQUEST) is None
        assert books.records(EventType.ERASURE)[-1]["body"]["cause"] == "returned"
        assert keys[run] not in content(state)
        report = books.verify()
        assert report.ok, report.findings


async def test_a_key_put_back_under_a_running_gateway_opens_nothing(state: Path) -> None:
    """The list of destroyed keys is asked each time."""
    async with open_books(state) as books:
        change(
            state,
            f"attach '{state.parent / 'before.db'}' as old",
            "insert or ignore into deks select * from old.deks",
            "detach old",
        )
        (run, *_) = books.records(EventType.ERASURE)[0]["body"]["keys"]
        call = next(record["call_id"] for record in books.records() if record["run_id"] == run and record["call_id"])
        assert await books.reader.payload(call, Role.REQUEST) is None
        page = await LogExport(books.reader, books.keys).page(Query(run_id=run), Depth(payloads=True))
        assert page.records
        assert not any(record.payloads for record in page.records)
        # Nor is it destroyed twice: that is for the next start, which says why.
        with pytest.raises(NotFound):
            await books.custodian.erase(OPERATOR, Target(run=run), "again")
        await books.custodian.retire(2**53)
        assert run in wrapped(state)
    problems = [finding.problem for finding in check(state).findings]
    assert problems
    assert all("is there again" in problem for problem in problems)


async def test_an_older_database_is_refused(state: Path) -> None:
    """The guard beside it knows that the log was longer: an erasure is not undone by a restore."""
    shutil.copy(state.parent / "before.db", state / DATABASE)
    with pytest.raises(StateRefused, match="older state"):
        async with open_books(state):
            pytest.fail("it started")
