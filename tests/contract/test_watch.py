"""The watch against the real admin API: no record lost or repeated, whatever happens to the gateway meanwhile."""

import json
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result

from gateway.cli.reach import Reach, Unreached
from gateway.cli.root import ostiary
from gateway.cli.screen import Failed
from gateway.cli.watch.approvals import Approvals, PendingView, SignedApprovals
from gateway.cli.watch.events import (
    Approve,
    Arrived,
    Broken,
    Event,
    Explain,
    Explained,
    Link,
    Opened,
    Reject,
    Said,
    Show,
    Waiting,
)
from gateway.cli.watch.feed import Feed
from gateway.cli.watch.talker import Talker
from gateway.core.desk import LogRecord
from gateway.edge.asgi import Options
from tests.edge_world import Edge
from tests.fakes.reviewing import FakeReviewing, pending
from tests.log_lines import START_US, completed, denied, entry
from tests.served_edge import DEADLINE_S, served

E_ = TypeVar("E_", bound=Event)


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    """A gateway with an empty log; whoever comes by its socket is the operator."""
    return Edge(Options(operator_socket=str(tmp_path / "admin.sock")))


@pytest.fixture
def state(edge: Edge, tmp_path: Path) -> Iterator[Path]:
    """The state folder of that gateway, which is running."""
    with served(edge, tmp_path / "admin.sock"):
        yield tmp_path


def write(edge: Edge, *entries: tuple[int, dict[str, Any]]) -> None:
    """Append records to its log."""
    edge.reader.records += [LogRecord(index, b"", record) for index, record in entries]


def many(edge: Edge, count: int) -> None:
    """Append refused calls until the log has ``count`` records."""
    write(edge, *(denied(at, f"c-{at}") for at in range(len(edge.reader.records), count)))


def drained(feed: Feed) -> list[int]:
    """The indexes of everything there is now."""
    found: list[int] = []
    while True:
        page = feed.next()
        found += [index for index, _ in page.records]
        if not page.more:
            return found


class TestFeed:
    """Reading on and on."""

    def test_it_begins_with_the_newest_records(self, state: Path, edge: Edge) -> None:
        """A long log is not read from its start."""
        many(edge, 3000)
        with Reach(state).line(5) as line:
            assert drained(Feed(line)) == list(range(2500, 3000))

    def test_an_empty_log_is_read_from_its_first_record(self, state: Path, edge: Edge) -> None:
        """Nothing logged yet is no failure."""
        with Reach(state).line(5) as line:
            feed = Feed(line)
            assert drained(feed) == []
            many(edge, 3)
            assert drained(feed) == [0, 1, 2]
            assert drained(feed) == []

    def test_ten_thousand_records_come_in_pages_each_once(self, state: Path, edge: Edge) -> None:
        """In the order of the log."""
        many(edge, 10_000)
        with Reach(state).line(5) as line:
            feed = Feed(line, since_us=0)
            assert len(feed.next().records) == 1000
            assert drained(feed) == list(range(1000, 10_000))
            many(edge, 10_001)
            assert drained(feed) == [10_000]

    def test_since_bounds_the_past_only(self, state: Path, edge: Edge) -> None:
        """The past is looked at once, and what is new comes whatever its time."""
        many(edge, 100)
        with Reach(state).line(5) as line:
            feed = Feed(line, since_us=START_US + 90)
            assert drained(feed) == list(range(90, 100))
            late = Feed(line, since_us=START_US + 10_000)
            assert drained(late) == []
            write(edge, (100, {**denied(100, "x")[1], "ts": START_US}))
            assert drained(feed) == drained(late) == [100]

    def test_a_gateway_that_comes_back_goes_on_where_it_was(self, edge: Edge, tmp_path: Path) -> None:
        """Nothing is lost and nothing comes twice; meanwhile every question fails plainly."""
        with Reach(tmp_path).line(5) as line:
            feed = Feed(line)
            with served(edge, tmp_path / "admin.sock"):
                many(edge, 5)
                assert drained(feed) == [0, 1, 2, 3, 4]
            for _ in range(3):
                with pytest.raises(Unreached):
                    feed.next()
            many(edge, 8)
            with served(edge, tmp_path / "admin.sock"):
                page = feed.next()
            assert [index for index, _ in page.records] == [5, 6, 7]
            assert not page.fresh

    @pytest.mark.parametrize("size", [2, 9], ids=["shorter", "longer"])
    def test_another_log_is_noticed(self, edge: Edge, tmp_path: Path, size: int) -> None:
        """By its record at the cursor: it is read anew, not from the middle and not never."""
        with Reach(tmp_path).line(5) as line:
            feed = Feed(line)
            with served(edge, tmp_path / "admin.sock"):
                many(edge, 5)
                drained(feed)
            with pytest.raises(Unreached):
                feed.next()
            edge.reader.records[:] = [
                LogRecord(at, b"", entry(at, "key", None)[1] | {"id": f"z-{at}"}) for at in range(size)
            ]
            with served(edge, tmp_path / "admin.sock"):
                page = feed.next()
            assert page.fresh
            assert [index for index, _ in page.records] == list(range(size))

    def test_an_unwell_gateway_loses_nothing(self, state: Path, edge: Edge) -> None:
        """A refusal leaves the cursor where it was."""
        many(edge, 2)
        with Reach(state, token="forged").line(5) as line, pytest.raises(Failed):
            Feed(line).next()
        with Reach(state).line(5) as line:
            assert drained(Feed(line)) == [0, 1]


@dataclass
class Ear:
    """Hears what a talker tells, and waits for what a test expects."""

    heard: "queue.Queue[Event]" = field(default_factory=queue.Queue)

    def await_(self, kind: type[E_]) -> E_:
        """The next event of this kind; others before it are passed over."""
        while True:
            event = self.heard.get(timeout=DEADLINE_S)
            if isinstance(event, kind):
                return event
            assert not isinstance(event, Broken), event


@contextmanager
def talking(reach: Reach, approvals: Approvals | None = None) -> Iterator[tuple[Talker, Ear]]:
    """A talker at work."""
    ear = Ear()
    with Talker(reach, None, approvals or SignedApprovals(reach, None), ear.heard.put) as talker:
        yield talker, ear


class Stubborn(FakeReviewing):
    """Cannot say what waits."""

    def pending(self) -> Sequence[PendingView]:
        """Fail."""
        raise Failed("approvals are in disorder")


class TestTalker:
    """The thread that talks with the gateway."""

    def test_records_arrive_and_calls_are_explained(self, state: Path, edge: Edge) -> None:
        """With the arguments and the answer, escaped."""
        write(edge, *completed(0, "c-1"))
        edge.reader.payloads["c-1", "request"] = {"arguments": {"vendor": "A\u202eB\x1b[2J"}}
        with talking(Reach(state)) as (talker, ear):
            assert [index for index, _ in ear.await_(Arrived).records] == [0, 1, 2]
            talker.ask(Explain("c-1"))
            words = "\n".join(ear.await_(Explained).lines)
            assert '"vendor": "A\\u202eB\\u001b[2J"' in words
            assert "tool.completed" in words
            write(edge, denied(3, "c-2"))
            assert [index for index, _ in ear.await_(Arrived).records] == [3]

    def test_what_cannot_be_explained_is_said(self, state: Path) -> None:
        """And the talk goes on."""
        with talking(Reach(state)) as (talker, ear):
            talker.ask(Explain("../x"))
            assert ear.await_(Said).bad
            talker.ask(Show("ap-1"))
            assert ear.await_(Said).bad

    def test_signing_and_rejecting_reach_the_approvals(self, state: Path, edge: Edge) -> None:
        """What was shown is signed; what is not that any more is not; what is left is told."""
        write(edge, entry(0, "decision", "c", effect="needs_approval", code="pending"))
        approvals = FakeReviewing({name: pending(name) for name in ("ap-1", "ap-2", "ap-3")})
        with talking(Reach(state), approvals) as (talker, ear):
            assert [view.id for view in ear.await_(Waiting).pending] == ["ap-1", "ap-2", "ap-3"]
            talker.ask(Show("ap-1"))
            seen = ear.await_(Opened).view
            talker.ask(Approve(seen))
            assert ear.await_(Said) == Said("approved pay.transfer")
            assert [view.id for view in ear.await_(Waiting).pending] == ["ap-2", "ap-3"]
            talker.ask(Approve(pending("ap-2", {"amount": 7})))
            assert "not the one that was shown" in ear.await_(Said).text
            talker.ask(Reject("ap-3", "wrong payee"))
            assert not ear.await_(Said).bad
        assert (approvals.signed, approvals.refused) == (["ap-1"], {"ap-3": "wrong payee"})

    def test_approvals_in_disorder_lose_no_record(self, state: Path, edge: Edge) -> None:
        """Records arrive, and what is wrong is said."""
        many(edge, 2)
        with talking(Reach(state), Stubborn()) as (_, ear):
            assert len(ear.await_(Arrived).records) == 2
            assert ear.await_(Said).bad

    def test_a_gateway_that_goes_is_waited_for(self, edge: Edge, tmp_path: Path) -> None:
        """It is said when it went and when it is back, and what happened meanwhile arrives."""
        many(edge, 1)
        server = served(edge, tmp_path / "admin.sock")
        server.__enter__()
        with talking(Reach(tmp_path)) as (_, ear):
            assert ear.await_(Link).problem is None
            assert len(ear.await_(Arrived).records) == 1
            server.__exit__(None, None, None)
            assert "no gateway" in str(ear.await_(Link).problem)
            many(edge, 4)
            with served(edge, tmp_path / "admin.sock"):
                assert ear.await_(Link).problem is None
                assert [index for index, _ in ear.await_(Arrived).records] == [1, 2, 3]

    @pytest.mark.parametrize("token", [None, "forged"])
    def test_what_waiting_cannot_mend_ends_the_talk(self, edge: Edge, tmp_path: Path, token: str | None) -> None:
        """No gateway at the start, or a bad credential: the failure is handed over."""
        heard = Ear()
        if token is None:
            with Talker(Reach(tmp_path), None, FakeReviewing(), heard.heard.put):
                assert isinstance(heard.heard.get(timeout=DEADLINE_S), Broken)
            return
        with (
            served(edge, tmp_path / "admin.sock") as url,
            Talker(Reach(tmp_path, url, token), None, FakeReviewing(), heard.heard.put),
        ):
            assert isinstance(heard.heard.get(timeout=DEADLINE_S), Broken)


def ask(state: Path, *words: str) -> Result:
    """Run ``ostiary watch`` to its end, without a terminal."""
    env = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": str(state)}
    return CliRunner().invoke(ostiary, ["watch", *words], env=env)


class TestLines:
    """Without a terminal."""

    def test_once_prints_a_line_a_call_and_ends(self, state: Path, edge: Edge) -> None:
        """Ended ones as they ended, then those that still run; nothing of others reaches the terminal raw."""
        write(edge, *completed(0, "c-1"), *completed(3, "c-2")[:2], denied(5, "c-3", "evil\x1b[2J\u202e"))
        done = ask(state, "--once")
        assert done.exit_code == 0, done.output
        first, second, third = done.stdout.splitlines()
        assert "ap-agent  erp.find_order  allow  completed  scope.allowed  redactions=0  took=5.0ms  c-1" in first
        assert "evil\\x1b[2J\\u202e  deny  denied" in second
        assert "allow  running" in third

    def test_json_has_a_line_as_a_call_is_decided_and_one_as_it_ends(self, state: Path, edge: Edge) -> None:
        """Each line is a document."""
        write(edge, *completed(0, "c-1"), denied(3, "c-2"), *completed(4, "c-3")[:2])
        lines = [json.loads(line) for line in ask(state, "--once", "--json").stdout.splitlines()]
        assert [(line["event"], line["call_id"], line["state"]) for line in lines] == [
            ("decided", "c-1", "running"),
            ("ended", "c-1", "completed"),
            ("ended", "c-2", "refused"),
            ("decided", "c-3", "running"),
            ("running", "c-3", "running"),
        ]

    def test_ten_thousand_calls_are_printed_each_once(self, state: Path, edge: Edge) -> None:
        """With --since they all come, however many pages that are."""
        many(edge, 10_000)
        done = ask(state, "--once", "--since", "2020-01-01")
        assert [line.rpartition("  ")[2] for line in done.stdout.splitlines()] == [f"c-{at}" for at in range(10_000)]

    def test_no_gateway_is_one_line_and_a_fix(self, tmp_path: Path) -> None:
        """Nothing is waited for that was never there."""
        for words in ([], ["--once"], ["--json"]):
            done = ask(tmp_path, *words)
            assert done.exit_code == 1
            assert "no gateway answers at" in done.stderr

    def test_a_wrong_moment_is_wrong_usage(self, tmp_path: Path) -> None:
        """Before any gateway is asked."""
        assert ask(tmp_path, "--since", "yesterday").exit_code == 2
