"""The MCP connector whose calls have a process each: what it is lent, that nobody else has it, and that it is gone."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from msgspec import structs

from connectors.mcp.lent import LentConnector
from connectors.mcp.places import Crowd
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.call import Handout
from gateway.core.errors import NotSent
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import ToolLimits
from tests.contract.test_mcp_connector_stdio import alive, until
from tests.evidence import lease, make_tool
from tests.gateways import ROOT

FILE = Handout("LENT_FILE", "user:first-password-of-all", in_file=True)
VARIABLE = Handout("LENT", "user:first-password-of-all")


@dataclass(slots=True)
class Lent:
    """A connector before the leaky server.

    Attributes:
        starts: file with the process id of each start.
    """

    connector: LentConnector
    starts: Path
    log: list[str] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Process ids of all starts."""
        return [int(line) for line in self.starts.read_text("utf-8").split()] if self.starts.exists() else []

    async def call(self, handout: Handout | None, way: str = "facts", timeout_s: float = 30) -> dict[str, Any]:
        """The result of one call, which must end by itself."""
        tool = make_tool("leak", limits=ToolLimits(timeout_s=timeout_s))
        with fail_after(60):
            return (await self.connector.invoke(structs.replace(lease(tool, {"way": way}), handout=handout))).value


@asynccontextmanager
async def lent(folder: Path, variable: str, most: int = 8, each: int = 8, **env: str) -> AsyncIterator[Lent]:
    """The leaky server behind a connector."""
    starts, log = folder / "starts", list[str]()
    argv = [sys.executable, "-m", "tests.fixtures.leaky_stdio", variable, str(starts)]
    async with LentConnector(Command(argv, env=env, cwd=ROOT), log.append, crowd=Crowd(most, each)) as connector:
        yield Lent(connector, starts, log)


def environment(pid: int) -> bytes:
    """What a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.requirement("CRED-1")
async def test_a_file_is_the_calls_own_and_has_no_name(tmp_path: Path) -> None:
    """Its process reads it and nobody can write it; it stands in no folder, and is gone with its process."""
    async with lent(tmp_path, "LENT_FILE") as up:
        seen = [(await up.call(FILE))["structuredContent"] for _ in range(2)]
        for facts in seen:
            assert facts["path"].startswith("/proc/self/fd/")
            assert (facts["mode"], facts["links"], facts["changed"]) == (0o400, 0, False)
            assert (facts["length"], len(facts["open"])) == (len(FILE.text), 1)
        assert len({facts["pid"] for facts in seen}) == 2
        assert not [facts for facts in seen if alive(facts["pid"])]


async def test_an_environment_is_the_calls_own(tmp_path: Path) -> None:
    """The variable takes the place of one that all processes have; the standing process has only that."""
    async with lent(tmp_path, "LENT", LENT="for all") as up:
        facts = (await up.call(VARIABLE))["structuredContent"]
        assert (facts["path"], facts["length"]) == (None, len(VARIABLE.text))
        await up.connector.ping()
        standing = [pid for pid in up.pids if alive(pid)]
        assert len(standing) == 1
        held = environment(standing[0])
        assert b"LENT=for all\0" in held
        assert VARIABLE.text.encode() not in held


async def test_calls_at_a_time_have_their_own(tmp_path: Path) -> None:
    """Each is answered by the process that has its credential."""
    async with lent(tmp_path, "LENT_FILE") as up:
        lengths: dict[int, int] = {}

        async def ask(extra: int) -> None:
            handout = Handout("LENT_FILE", "x" * (10 + extra), in_file=True)
            lengths[extra] = (await up.call(handout))["structuredContent"]["length"]

        async with create_task_group() as tasks:
            for extra in range(3):
                tasks.start_soon(ask, extra)
        assert lengths == {0: 10, 1: 11, 2: 12}


async def test_discovery_and_pings_need_no_credential(tmp_path: Path) -> None:
    """A standing process answers them."""
    async with lent(tmp_path, "LENT_FILE") as up:
        assert [tool["name"] for tool in await up.connector.discover()] == ["leak"]
        await up.connector.ping()
        assert up.connector.era is Era.HANDSHAKE
        assert len(up.pids) == 1


async def test_nothing_is_called_with_another_credential(tmp_path: Path) -> None:
    """Neither a call without one, nor one whose credential is not the one a process was started with."""
    async with lent(tmp_path, "LENT") as up:
        with pytest.raises(NotSent) as caught:
            await up.call(None)
        assert caught.value.cause_code == "credential_missing"
    command = Command([sys.executable, "-m", "tests.fixtures.leaky_stdio", "LENT", str(tmp_path / "x")], cwd=ROOT)
    for started, brought in ((None, VARIABLE), (VARIABLE, None), (VARIABLE, replace(VARIABLE))):
        async with StdioConnector(command, list[str]().append, StdioOptions(lent=started)) as one:
            with pytest.raises(NotSent) as caught:
                await one.invoke(structs.replace(lease(make_tool("leak")), handout=brought))
            assert caught.value.cause_code == "credential_unsupported"


async def test_no_more_processes_than_places(tmp_path: Path) -> None:
    """Who finds none in a quarter of its time is told that nothing was sent; a cancelled call gives its place back."""
    async with lent(tmp_path, "LENT_FILE", most=1) as up:
        await up.connector.ping()
        async with create_task_group() as tasks:
            tasks.start_soon(up.call, FILE, "hang", 600)
            await until(lambda: len(up.pids) == 2)
            with pytest.raises(NotSent) as caught:
                await up.call(FILE, timeout_s=0.2)
            assert caught.value.cause_code == "own_processes_busy"
            tasks.cancel_scope.cancel()
        assert not alive(up.pids[1])
        assert (await up.call(FILE))["structuredContent"]["given"] is True
