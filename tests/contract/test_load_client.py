"""The benchmark's own parts: an upstream that speaks both eras, and a client that no wrong answer passes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import idle, rivals, streaming
from loadtests.load import HANDSHAKE, STATELESS, Door, Load, measure
from loadtests.processes import BenchmarkError, memory, serving
from loadtests.rivals import NotHere
from loadtests.upstream import answer


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The upstream, running."""
    command = [sys.executable, "-m", "loadtests.upstream"]
    with serving(command, tmp_path_factory.mktemp("upstream"), "upstream") as (pid, said):
        yield Door("direct", said["url"], "echo", pid)


@pytest.mark.parametrize("version", [STATELESS, HANDSHAKE])
def test_every_call_is_answered_and_counted(upstream: Door, version: str) -> None:
    """A load of at most 40 calls over 4 connections makes 40, in either era, and their CPU time is seen."""
    sample = measure(upstream, Load("direct", version, 4, calls=40, warmup=2), seconds=20, seed=1)
    assert sample.calls == 40
    assert 0 < sample.p50_us <= sample.p99_us
    assert 0 <= sample.cpu_process_us <= sample.cpu_tree_us


def test_a_wrong_answer_voids_the_run(upstream: Door, capfd: pytest.CaptureFixture[str]) -> None:
    """An upstream that answers with an error ends the client, which says what came."""
    door = Door("direct", upstream.url, "no_such_tool", upstream.pid)
    with pytest.raises(BenchmarkError, match="void"):
        measure(door, Load("direct", STATELESS, 1, warmup=1), seconds=1, seed=1)
    assert "call echo with a text" in capfd.readouterr().err


def test_a_server_that_ends_at_once_is_reported_with_its_words(tmp_path: Path) -> None:
    """What a server wrote before it died is in the error."""
    command = [sys.executable, "-c", "raise SystemExit('no such disk')"]
    with pytest.raises(BenchmarkError, match="no such disk"), serving(command, tmp_path, "dying"):
        pass


def test_memory_is_read_per_process(upstream: Door) -> None:
    """The root of the tree comes first, with its resident and its proportional share."""
    (root, *rest) = memory(upstream.pid)
    assert root.role == "gateway"
    assert root.rss >= root.pss > 5
    assert not rest


def test_the_upstream_refuses_what_is_no_message() -> None:
    """A body that is no MCP message is a ValueError, not an answer; a notification is owed none."""
    with pytest.raises(ValueError, match="method"):
        answer(b'{"jsonrpc":"2.0","id":1}')
    assert answer(b'{"jsonrpc":"2.0","method":"notifications/initialized"}') is None
    assert b"-32601" in (answer(b'{"jsonrpc":"2.0","id":1,"method":"prompts/list"}') or b"")


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The upstream that speaks in step with its client."""
    with serving([sys.executable, "-m", "loadtests.talker"], tmp_path_factory.mktemp("talker"), "talker") as (
        pid,
        said,
    ):
        yield Door("direct", said["url"], "count", pid)


@pytest.mark.parametrize("version", [STATELESS, HANDSHAKE])
def test_events_are_sent_in_step_and_timed(talker: Door, version: str) -> None:
    """Each is counted once it was heard, in either era."""
    lag = streaming.lag(talker, version, talker.url.removesuffix("/mcp"), events=5, seed=1)
    assert lag.events == 5
    assert 0 < lag.p50_us <= lag.p99_us


def test_a_stream_of_something_else_voids_the_run(talker: Door) -> None:
    """What is no event of this call is not taken for one."""
    door = Door("direct", talker.url, "no_such_tool", talker.pid)
    with pytest.raises(BenchmarkError, match="event 1 is"):
        streaming.lag(door, HANDSHAKE, talker.url.removesuffix("/mcp"), events=2, seed=2)


def test_idle_sessions_are_opened_used_and_weighed(upstream: Door) -> None:
    """As many as were asked for; a server without streams is found out."""
    grown = idle.growth(upstream, ["nobody"], 3, streams=False)
    assert grown.sessions == 3
    assert grown.before_mb > 5
    with pytest.raises(BenchmarkError, match="405"):
        idle.growth(upstream, ["nobody"], 3, streams=True)


def test_a_rival_that_is_not_installed_says_so(tmp_path: Path) -> None:
    """It is left out with a reason, and nothing is started."""
    with pytest.raises(NotHere, match="not installed"):
        rivals.place("no_such_peer", tmp_path)
    assert list(tmp_path.iterdir()) == []
