"""The judge of the campaign kill: each broken promise is named, and a log that keeps them all is not accused."""

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.campaigns.kill.campaign import Campaign, Options
from deploy.campaigns.kill.commits import count
from deploy.campaigns.kill.ground import Ground
from deploy.campaigns.kill.house import House
from deploy.campaigns.kill.judge import Effect, Journal, Judge, Tree
from deploy.campaigns.kill.load import Load
from deploy.campaigns.kill.logs import SqliteLog
from deploy.campaigns.kill.plan import Moment, plan
from deploy.campaigns.kill.wire import Told
from gateway.core.tlog import Checkpoint, Frontier, Signer, leaf_hash

SIGNER = Signer("kill.test/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
EFFECTS = (Effect("m1", "c1", intent=True), Effect("m2", "c2", intent=None))
TOLD = (Told("m1", "completed", "c1"), Told("m3", "denied", "c3"))
SWEPT = ("tool.outcome_unknown", "c2", {"cause": "swept"})
Line = tuple[str, str, dict[str, Any]]
Found = tuple[Sequence[Line], Sequence[Effect], Sequence[Told]]
# One call that is answered, one that a death cut off, one that is denied.
SOUND: tuple[Line, ...] = (
    ("tool.requested", "c1", {}),
    ("tool.requested", "c2", {}),
    ("decision", "c3", {"effect": "deny"}),
    ("tool.completed", "c1", {}),
)


@dataclass
class Log:
    """A database as far as the judge reads it."""

    path: Path
    lines: list[Line] = field(default_factory=list)

    @property
    def kept(self) -> SqliteLog:
        """As the judge reads it."""
        return SqliteLog(self.path)

    def write(self, lines: Sequence[Line], signed: Sequence[Line] | None = None) -> str:
        """Hold these records, and a checkpoint over them (or over ``signed``); returns it."""
        self.lines = list(lines)
        note = noted(self.lines if signed is None else signed)
        self.path.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("create table records (idx integer primary key, leaf blob)")
            db.execute("create table checkpoints (win integer primary key, note text)")
            db.executemany("insert into records values (?, ?)", enumerate(map(entry, self.lines)))
            db.execute("insert into checkpoints values (0, ?)", (note,))
        return note


def entry(line: Line) -> bytes:
    """A leaf."""
    return msgspec.json.encode({"type": line[0], "call_id": line[1], "body": line[2]})


def noted(lines: Sequence[Line]) -> str:
    """A checkpoint over these records, as the gateway's own tree has it."""
    frontier = Frontier()
    for line in lines:
        frontier.append(leaf_hash(entry(line)))
    return SIGNER.sign(Checkpoint(SIGNER.name, frontier.size, frontier.root()).text)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """An empty one."""
    return Log(tmp_path / "log.db")


@pytest.fixture
def judge() -> Judge:
    """Who has seen nothing yet."""
    return Judge(SIGNER.key)


def test_a_log_that_keeps_its_promises_is_not_accused(log: Log, judge: Judge) -> None:
    """Two lives: what the first left open is swept in the second; all checkpoints are roots."""
    judge.handed_out(noted(SOUND[:2]))
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    log.write([*SOUND, SWEPT])
    judge.death(log.kept, (), (), came_up=True)
    judge.again(log.kept)
    assert judge.violations == []
    assert (judge.counts["swept"], judge.counts["roots"], judge.size) == (1, 3, 5)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((SOUND[:3], EFFECTS, TOLD), "was answered and the log says nothing"),
        ((SOUND, EFFECTS[1:], TOLD), "is completed and the tool never heard of it"),
        ((SOUND, (Effect("mx", "c1", intent=True),), TOLD), "its effect is not m1"),
        ((SOUND[1:3], EFFECTS, ()), "had an effect and has no intent"),
        ((SOUND, (*EFFECTS, EFFECTS[1]), TOLD), "had two effects"),
        ((SOUND, (Effect("m1", "c1", intent=False),), TOLD), "before its intent was in the log"),
        ((SOUND, (*EFFECTS, Effect("m3", "c3", intent=None)), TOLD), "was answered denied and had an effect"),
        ((SOUND[:2] + SOUND[3:], EFFECTS, TOLD), "no decision is in the log"),
        ((SOUND, (EFFECTS[0], Effect("m1", "c2", intent=None)), TOLD), "m1 was done twice, now as call c2"),
        (((*SOUND, SOUND[0]), EFFECTS, TOLD), "has two intents"),
        (((*SOUND, SOUND[3]), EFFECTS, TOLD), "ends as tool.completed and is not open"),
    ],
)
def test_each_broken_promise_is_named(log: Log, judge: Judge, found: Found, said: str) -> None:
    """One acknowledged completion taken out, an effect without an intent, a second ending, and so on."""
    log.write(found[0])
    judge.death(log.kept, *found[1:], came_up=True)
    assert any(said in violation for violation in judge.violations), judge.violations


@pytest.mark.parametrize("code", ["denied", "unavailable"])
def test_an_effect_after_nothing_was_done_is_found(log: Log, judge: Judge, code: str) -> None:
    """The client was told so in one life, and the tool heard of the call in the next."""
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, (TOLD[0], Told("m3", code, "c3")), came_up=True)
    assert judge.violations == []
    log.write([*SOUND, SWEPT, ("tool.requested", "c3", {})])
    judge.death(log.kept, (Effect("m3", "c3", intent=None),), (), came_up=True)
    assert judge.violations == [f"m3 was answered {code} and had an effect afterwards"]


@pytest.mark.parametrize(("act", "killed", "code"), [("signal.pause()", True, -9), ("raise SystemExit(3)", False, 3)])
async def test_only_a_gateway_that_was_killed_has_died(tmp_path: Path, act: str, *, killed: bool, code: int) -> None:
    """One that had ended by itself was not killed, and how it ended is known."""
    house = House(tmp_path, (sys.executable, "-c", f"import signal; {act}"))
    await house.begin()
    process = house._living()
    if not killed:
        await process.wait()
    assert (await house.kill(), house.code) == (killed, code)


@pytest.mark.parametrize(
    ("moment", "code", "said"),
    [
        (Moment.LOAD, -9, ""),
        (Moment.STOPPING, -9, ""),
        (Moment.STOPPING, 0, ""),
        (Moment.STOPPING, 1, "ended by itself, exit code 1, while it shuts down"),
        (Moment.LOAD, 0, "ended by itself, exit code 0, under load"),
    ],
)
def test_what_was_no_death_is_not_counted(tmp_path: Path, judge: Judge, moment: Moment, code: int, said: str) -> None:
    """A clean end on SIGTERM that was quicker than the strike is none, and another end is a finding."""
    house = House(tmp_path, (), code=code)
    ground = Ground([house], SqliteLog(house.database), tmp_path / "journal")
    campaign = Campaign(Options(), ground, Load([0], Random(0)), Journal(ground.journal), judge)
    campaign.counted(moment, killed=code < 0)
    assert campaign.moments.total() == (code < 0)
    assert [said in violation for violation in judge.violations] == [True] * bool(said)


@pytest.mark.parametrize(
    ("ending", "came_up", "said"),
    [
        (None, True, "the next start did not end it"),
        (("tool.completed", "c2", {}), True, "left open by a death and ended as tool.completed"),
        (("tool.outcome_unknown", "c2", {"cause": "upstream"}), False, "ended as tool.outcome_unknown"),
        (None, False, None),
    ],
)
def test_what_a_death_leaves_open_is_swept(
    log: Log, judge: Judge, *, ending: Line | None, came_up: bool, said: str | None
) -> None:
    """By the next start that comes up, as unknown; a start that was killed on its way owes nothing."""
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    log.write([*SOUND, *([ending] if ending else [])])
    judge.death(log.kept, (), (), came_up=came_up)
    assert [said in violation for violation in judge.violations] == [True] if said else judge.violations == []


def test_a_log_that_is_behind_a_checkpoint_is_found(log: Log, judge: Judge) -> None:
    """Somebody was given a checkpoint over more records than there are."""
    judge.handed_out(noted([*SOUND, SWEPT]))
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    assert judge.violations == ["a checkpoint over 5 records was handed out and only 4 are here"]


def test_a_log_that_was_set_back_is_found(log: Log, judge: Judge) -> None:
    """Fewer records than at the last death, or a hole, or none at all."""
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    log.write(SOUND[:3])
    judge.death(log.kept, (), (), came_up=True)
    assert judge.violations[0] == "the log had 4 records and has 3: the others are lost"
    log.write([*SOUND, SWEPT, SWEPT])
    with closing(sqlite3.connect(log.path)) as db, db:
        db.execute("delete from records where idx = 4")
    judge.death(log.kept, (), (), came_up=False)
    assert "record 4 is missing: the next one is 5" in judge.violations
    log.path.unlink()
    judge.death(log.kept, (), (), came_up=False)
    assert judge.violations[-1] == "the log of 4 records is gone"


def test_another_history_is_found(log: Log, judge: Judge) -> None:
    """Records other than those a checkpoint was handed out for: by a new record, by reading again, by its signature."""
    judge.handed_out(noted([SOUND[1], SOUND[0]]))
    log.write(SOUND, signed=SOUND[::-1])
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    assert judge.violations == [
        "the first 2 records are not those that a checkpoint was handed out for",
        "the newest checkpoint in the log is not the root over its 4 records",
    ]
    judge.handed_out(noted(SOUND))
    assert "two checkpoints over 4 records differ: the log was forked" in judge.violations
    judge.handed_out(noted(SOUND).replace("4\n", "5\n"))
    assert any("is not signed" in one for one in judge.violations)


def test_an_altered_beginning_is_found_at_the_end(log: Log, judge: Judge) -> None:
    """Reading it all again finds what was altered after it was judged."""
    log.write(SOUND)
    judge.death(log.kept, EFFECTS, TOLD, came_up=True)
    log.write([("tool.requested", "c0", {}), *SOUND[1:]], signed=SOUND)
    judge.again(log.kept)
    assert judge.violations == ["the first 4 records are not those that a checkpoint was handed out for"]
    log.write(SOUND[:3])
    judge.again(log.kept)
    assert "the log has 3 records where 4 were read before" in judge.violations


def test_its_tree_is_the_gateways() -> None:
    """Two computations of RFC 6962's root agree at every size."""
    tree, frontier = Tree(), Frontier()
    for number in range(70):
        assert tree.root() == frontier.root()
        tree.append(b"%d" % number)
        frontier.append(leaf_hash(b"%d" % number))


def test_commits_are_counted_in_the_write_ahead_log(tmp_path: Path) -> None:
    """One for each transaction, however many pages it has; none comparable once the file was begun anew."""
    path = tmp_path / "log.db"
    assert count(path).commits == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma journal_mode = wal")
        before = count(path)
        db.execute("create table t (x)")
        for number in range(5):
            db.execute("insert into t values (zeroblob(?))", (number * 5000,))
        after = count(path)
        assert after.since(before) == 6
        assert count(path).since(after) == 0
        db.execute("pragma wal_checkpoint(truncate)")
        assert count(path).since(after) is None
        db.execute("insert into t values (1)")
        assert count(path).since(after) is None
    path.with_name("log.db-wal").write_bytes(bytes(64))
    assert count(path).commits == 0


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    """The journal is read line by line, once each."""
    journal = Journal(tmp_path / "journal")
    assert journal.more() == []
    lines = [msgspec.json.encode(effect) + b"\n" for effect in EFFECTS]
    journal.path.write_bytes(lines[0] + lines[1][:9])
    assert journal.more() == [EFFECTS[0]]
    journal.path.write_bytes(b"".join(lines))
    assert journal.more() == [EFFECTS[1]]
    assert journal.more() == []


def test_a_seed_makes_the_same_deaths_again() -> None:
    """Every moment is among the first five, and has its share of two hundred."""
    assert plan(3, 200) == plan(3, 200) != plan(4, 200)
    for seed in range(20):
        assert {strike.moment for strike in plan(seed, 5)} == set(Moment)
    moments = [strike.moment for strike in plan(0, 200)]
    assert min(moments.count(moment) for moment in Moment) >= 15
