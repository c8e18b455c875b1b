"""The MCP connector over pipes: real servers from the package index, and one that misbehaves as told."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, move_on_after, sleep

from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import ToolLimits
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES
from tests.venvs import python

QUICK = StdioOptions(setup_timeout_s=5, first_pause_s=0.05, longest_pause_s=0.2)


@dataclass(slots=True)
class Raw:
    """A connector to the misbehaving server.

    Attributes:
        connector: the connector.
        starts: file with the process id of each start.
        log: what the connector was told to log.
    """

    connector: StdioConnector
    starts: Path
    log: list[str] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Process ids of all starts."""
        return [int(line) for line in self.starts.read_text("utf-8").split()] if self.starts.exists() else []

    async def call(self, name: str, **other: Any) -> dict[str, Any]:
        """The result of one call, which must end by itself."""
        with fail_after(10):
            return (await self.connector.invoke(lease(make_tool(name, **other)))).value

    async def failing(self, name: str, **other: Any) -> GatewayError:
        """The error one call ends with."""
        with pytest.raises(GatewayError) as caught:
            await self.call(name, **other)
        return caught.value


@asynccontextmanager
async def raw(folder: Path, mode: str = "well", options: StdioOptions = QUICK, **other: Any) -> AsyncIterator[Raw]:
    """The misbehaving server behind a connector; ``other`` are further ``Command`` fields."""
    starts, log = folder / "starts", list[str]()
    argv = [sys.executable, "-I", str(FIXTURES / "raw_stdio.py"), mode, str(starts)]
    async with StdioConnector(Command(argv, **other), log.append, options) as connector:
        yield Raw(connector, starts, log)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail after a while."""
    with fail_after(10):
        while not condition():  # noqa: ASYNC110 -- other processes set no events
            await sleep(0.01)


@pytest.mark.requirement("TOOL-7")
async def test_a_stateless_server_from_the_index() -> None:
    """mcp-server-time speaks the stateless era: listed, called, pinged."""
    argv = [str(python("servers")), "-m", "mcp_server_time", "--local-timezone", "UTC"]
    async with StdioConnector(Command(argv), list[str]().append) as connector:
        assert {tool["name"] for tool in await connector.discover()} == {"get_current_time", "convert_time"}
        result = await connector.invoke(lease(make_tool("get_current_time"), {"timezone": "Europe/Paris"}))
        assert "Europe/Paris" in result.value["content"][0]["text"]
        await connector.ping()
        assert connector.era is Era.STATELESS


async def test_another_stateless_server_from_the_index(tmp_path: Path) -> None:
    """mcp-server-git answers of a folder that is no repository with a result that says so."""
    argv = [str(python("servers")), "-m", "mcp_server_git"]
    async with StdioConnector(Command(argv, env={"PATH": os.defpath}), list[str]().append) as connector:
        assert "git_status" in {tool["name"] for tool in await connector.discover()}
        result = await connector.invoke(lease(make_tool("git_status"), {"repo_path": str(tmp_path)}))
        assert result.value["isError"] is True


@pytest.mark.requirement("TOOL-7")
async def test_a_handshake_server_from_the_index(tmp_path: Path) -> None:
    """mcp-server-sqlite speaks the handshake era: a table is made, filled and read."""
    argv = [str(python("mcp1").with_name("mcp-server-sqlite")), "--db-path", str(tmp_path / "x.db")]
    async with StdioConnector(Command(argv), list[str]().append) as connector:
        assert "read_query" in {tool["name"] for tool in await connector.discover()}
        await connector.invoke(lease(make_tool("create_table"), {"query": "create table t (n int)"}))
        await connector.invoke(lease(make_tool("write_query"), {"query": "insert into t values (42)"}))
        result = await connector.invoke(lease(make_tool("read_query"), {"query": "select n from t"}))
        assert "42" in result.value["content"][0]["text"]
        await connector.ping()
        assert connector.era is Era.HANDSHAKE


async def test_the_child_gets_only_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the gateway's reaches the child; it has its own folder and process group."""
    monkeypatch.setenv("OSTIARY_SECRET", "hunter2")
    async with raw(tmp_path, env={"ONLY": "this"}, cwd=tmp_path) as up:
        seen = await up.call("environment")
        assert {name for name in seen["env"] if not name.startswith(("LC_", "__"))} == {"ONLY"}
        assert seen["cwd"] == str(tmp_path)
        assert seen["group"] == up.connector.pid != os.getpgrp()


async def test_a_death_in_mid_call_is_an_unknown_outcome(tmp_path: Path) -> None:
    """All calls under way are lost, none is sent again, and the process comes back."""
    async with raw(tmp_path) as up:
        errors: list[GatewayError] = []

        async def lost(name: str) -> None:
            errors.append(await up.failing(name))

        async with create_task_group() as tasks:
            for name in ("hang", "hang", "die"):
                tasks.start_soon(lost, name)
        assert {(type(error), error.cause_code) for error in errors} == {(OutcomeUnknown, "process_died")}
        assert len(errors) == 3
        await until(lambda: up.connector.pid not in {None, up.pids[0]})
        await up.call("echo")
        assert len(up.pids) == 2


async def test_last_words_count(tmp_path: Path) -> None:
    """An answer written just before the end is an answer."""
    async with raw(tmp_path) as up:
        assert (await up.call("answer and die"))["content"][0]["text"] == "done"


async def test_while_it_is_down_calls_are_not_sent(tmp_path: Path) -> None:
    """A server that cannot stay up is started again with growing pauses; callers are told at once that nothing left."""
    async with raw(tmp_path, "broken") as up:
        await until(lambda: len(up.pids) >= 3)
        for _ in range(5):
            assert type(await up.failing("echo")) is NotSent
        with pytest.raises(Unavailable):
            await up.connector.ping()
        with pytest.raises(Unavailable):
            await up.connector.discover()
        pauses = [line.split(" ")[-2] for line in up.log if line.startswith("ended")]
        assert pauses[:3] == ["0.05", "0.1", "0.2"]


async def test_a_program_that_does_not_exist() -> None:
    """What cannot be started cannot be called, and that is said; the gateway itself goes on."""
    async with StdioConnector(Command(["/does/not/exist"]), list[str]().append, QUICK) as connector:
        with pytest.raises(NotSent) as caught:
            await connector.invoke(lease(make_tool()))
        assert caught.value.cause_code == "cannot_start"


@pytest.mark.parametrize("mode", ["broken at first", "dies of the unknown", "silent to the unknown"])
async def test_servers_that_start_badly_are_reached(mode: str, tmp_path: Path) -> None:
    """A failed first start, and a probe that kills or is ignored, do not keep a server from being used."""
    options = StdioOptions(setup_timeout_s=1, first_pause_s=0.05)
    async with raw(tmp_path, mode, options) as up:
        await until(lambda: up.connector.pid is not None)
        await up.call("echo")
        assert up.connector.era is Era.HANDSHAKE


async def test_a_server_that_never_answers_the_handshake(tmp_path: Path) -> None:
    """It is given up within its time, and no call leaves."""
    async with raw(tmp_path, "silent", StdioOptions(setup_timeout_s=0.5)) as up:
        assert type(await up.failing("echo")) is NotSent


async def test_noise_changes_nothing(tmp_path: Path) -> None:
    """Lines that are no message, answers to nothing and second answers are dropped and noted."""
    async with raw(tmp_path) as up:
        for _ in range(2):
            assert (await up.call("noise"))["content"][0]["text"] == "done"
        await up.call("echo")
        assert len([line for line in up.log if "no message" in line]) == 6
        assert len([line for line in up.log if "not asked, or twice" in line]) == 4


async def test_a_late_answer_reaches_nobody(tmp_path: Path) -> None:
    """The answer to an abandoned call is not taken for the answer to a later one."""
    async with raw(tmp_path) as up:
        await up.call("echo")
        with move_on_after(0.1) as scope:
            await up.call("late")
        assert scope.cancelled_caught
        assert (await up.call("flush"))["content"][0]["text"] == "done"
        assert any("not asked" in line for line in up.log)


async def test_an_endless_line_ends_the_process(tmp_path: Path) -> None:
    """A message over the cap is not collected: the process is killed and its calls are lost."""
    async with raw(tmp_path, max_line_bytes=100_000) as up:
        caught = await up.failing("huge")
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "process_died")
        await until(lambda: not alive(up.pids[0]))
        assert any("size cap" in line for line in up.log)


BABBLE = ("", "x", "{}", '{"jsonrpc":"2.0","method":"x"}', '{"jsonrpc":"2.0","id":99999,"result":{}}', "x" * 9000)


@pytest.mark.parametrize("line", BABBLE)
async def test_a_server_that_talks_without_end_is_ended(line: str, tmp_path: Path) -> None:
    """What nobody waits for costs the loop time that everybody else is waiting for: so much within a minute."""
    async with raw(tmp_path) as up:
        caught = await up.failing(f"babble {line}")
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "process_died")
        await until(lambda: not alive(up.pids[0]))
        assert len([text for text in up.log if "nobody waits for" in text]) == 1
        assert len(up.log) < 21_000
        await until(lambda: up.connector.pid not in {None, up.pids[0]})
        await up.call("echo")


async def test_a_result_over_the_tools_cap_is_withheld(tmp_path: Path) -> None:
    """The tool's own cap holds though the line was within the connector's."""
    async with raw(tmp_path) as up:
        caught = await up.failing("large", limits=ToolLimits(max_output_bytes=1000))
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "output_too_large")


async def test_a_refusal_is_a_failed_tool(tmp_path: Path) -> None:
    """A JSON-RPC error is reported by its code, without the server's words."""
    async with raw(tmp_path) as up:
        caught = await up.failing("refuse")
        assert (type(caught), caught.cause_code) == (ToolFailed, "jsonrpc_-32602")
        assert "words" not in caught.detail


async def test_complaints_are_bounded_and_block_nothing(tmp_path: Path) -> None:
    """A flood on standard error is drained, cut off in the log, and does not keep the answer from coming."""
    async with raw(tmp_path, log_lines=50) as up:
        await up.call("complain")
        complaints = [line for line in up.log if line.startswith("complaint")]
        assert len(complaints) <= 50
        await until(lambda: any("dropped" in line for line in up.log))


async def test_what_a_server_asks_is_declined(tmp_path: Path) -> None:
    """Sampling is refused and a ping answered, on the same pipes as the call."""
    async with raw(tmp_path) as up:
        replies = (await up.call("ask"))["replies"]
        assert [(r["id"], r.get("error", {}).get("code"), r.get("result")) for r in replies] == [
            ("q1", -32601, None),
            ("q2", None, {}),
        ]


async def test_a_process_that_does_not_read_is_not_written_to_without_end(tmp_path: Path) -> None:
    """Unread messages are bounded; a call that finds no room was not sent. A server that closes its ears is ended."""
    async with raw(tmp_path, max_waiting_bytes=1000) as up:
        caught = await up.failing("x" * 2000)
        assert (type(caught), caught.cause_code) == (NotSent, "process_stuck")
        assert (await up.failing("deaf")).cause_code == "process_died"


async def test_a_per_call_credential_is_refused(tmp_path: Path) -> None:
    """A process that all callers share is not handed one caller's credential."""
    async with raw(tmp_path) as up:
        with pytest.raises(NotSent) as caught:
            await up.connector.invoke(lease(make_tool(), headers={"authorization": "Bearer x"}))
        assert caught.value.cause_code == "credential_unsupported"


@pytest.mark.parametrize("mode", ["well", "stays"])
async def test_nothing_is_left_behind(mode: str, tmp_path: Path) -> None:
    """On exit the process is gone, even one that ignores SIGTERM, and so is what it started."""
    async with raw(tmp_path, mode, grace_s=0.2) as up:
        grandchild = (await up.call("spawn"))["pid"]
        child = up.connector.pid
        assert child is not None
        assert alive(child)
        assert alive(grandchild)
    assert not alive(child)
    await until(lambda: not alive(grandchild))


async def test_listing_and_ping(tmp_path: Path) -> None:
    """A handshake-era process is listed and pinged; a ping of a hung one ends in time."""
    async with raw(tmp_path) as up:
        assert await up.connector.discover() == [{"name": "echo", "inputSchema": {}}]
        await up.connector.ping()
