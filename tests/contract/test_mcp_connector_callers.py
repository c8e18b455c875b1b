"""The MCP connector with a process for each caller: whose memory is whose, how many there are, and when they end."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from msgspec import structs

from connectors.mcp.callers import CallersConnector
from connectors.mcp.places import Crowd
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioOptions
from gateway.core.call import Lease
from gateway.core.errors import NotSent, OutcomeUnknown
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import ToolLimits
from tests.contract.test_mcp_connector_stdio import alive, until
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES

QUICK = StdioOptions(setup_timeout_s=30, first_pause_s=0.05, longest_pause_s=0.2)
ALICE, BOB, CAROL = "alice", "bob", "carol"


def by(agent: str, tool: str, timeout_s: float = 30.0, server: str = "up", **other: Any) -> Lease:
    """A call of a tool that is another one's only by its agent; ``other`` are further fields of who calls."""
    given = lease(make_tool(tool, server=server, limits=ToolLimits(timeout_s=timeout_s)))
    permit = given.intent.quota.permit
    caller = permit.target.caller
    principal = replace(caller.principal, agent=agent, **other)
    target = structs.replace(permit.target, caller=structs.replace(caller, principal=principal))
    quota = structs.replace(given.intent.quota, permit=structs.replace(permit, target=target))
    return structs.replace(given, intent=structs.replace(given.intent, quota=quota))


@dataclass(slots=True)
class Served:
    """A connector before the misbehaving server.

    Attributes:
        starts: file with the process id of each start.
        log: what the connector was told to log.
    """

    connector: CallersConnector
    starts: Path
    log: list[str] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Process ids of all starts."""
        return [int(line) for line in self.starts.read_text("utf-8").split()] if self.starts.exists() else []

    @property
    def living(self) -> list[int]:
        """Those of them that run."""
        return [pid for pid in self.pids if alive(pid)]

    async def asked(self, agent: str, tool: str = "environment", **other: Any) -> int | None:
        """The process that served an agent's call, where the tool says it."""
        with fail_after(60):
            value = (await self.connector.invoke(by(agent, tool, **other))).value
        return value.get("group")


@asynccontextmanager
async def served(folder: Path, crowd: Crowd | None = None) -> AsyncIterator[Served]:
    """The misbehaving server behind a connector whose standing process is up."""
    starts, log = folder / "starts", list[str]()
    argv = [sys.executable, "-I", str(FIXTURES / "raw_stdio.py"), "well", str(starts)]
    async with CallersConnector(Command(argv), log.append, QUICK, crowd) as connector:
        await connector.ping()
        yield Served(connector, starts, log)


@pytest.mark.requirement("TOOL-7")
async def test_two_principals_never_share_a_process(tmp_path: Path) -> None:
    """Each has their own, also by who acts for whom; a caller's calls find the same one again."""
    async with served(tmp_path) as up:
        (standing,) = up.pids
        first = {agent: await up.asked(agent) for agent in (ALICE, BOB)}
        for_carol = await up.asked(ALICE, user="carol")
        delegated = await up.asked(ALICE, delegation=("somebody",))
        assert len({standing, *first.values(), for_carol, delegated}) == 5
        assert {agent: await up.asked(agent) for agent in (ALICE, BOB)} == first
        assert await up.asked(ALICE, user="carol") == for_carol
        assert up.connector.era is Era.HANDSHAKE
    assert not up.living


async def test_one_callers_calls_at_a_time_start_one(tmp_path: Path) -> None:
    """Calls that come together before there is a process wait for the same one."""
    async with served(tmp_path) as up:
        found: list[int | None] = []

        async def ask() -> None:
            found.append(await up.asked(ALICE))

        async with create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert (len(found), len(set(found)), len(up.pids)) == (5, 1, 2)


async def test_discovery_and_pings_start_no_callers_process(tmp_path: Path) -> None:
    """The standing process answers them."""
    async with served(tmp_path) as up:
        assert [tool["name"] for tool in await up.connector.discover()] == ["echo"]
        await up.connector.ping()
        assert len(up.pids) == 1


async def test_the_longest_idle_one_yields_its_place(tmp_path: Path) -> None:
    """Over the bound a new caller gets the place of who was idle longest, once that process is gone."""
    async with served(tmp_path, Crowd(most=2, each=2)) as up:
        alice, bob = await up.asked(ALICE), await up.asked(BOB)
        assert await up.asked(ALICE) == alice
        carol = await up.asked(CAROL)
        assert set(up.living) == {up.pids[0], alice, carol}
        assert await up.asked(ALICE) == alice
        assert await up.asked(BOB) not in {bob, None}
        assert len(up.living) == 3


async def test_a_process_in_use_yields_to_nobody(tmp_path: Path) -> None:
    """A caller for whom there is no place is told in time that nothing left; the next one finds it free again."""
    async with served(tmp_path, Crowd(most=1)) as up:
        async with create_task_group() as tasks:
            tasks.start_soon(up.connector.invoke, by(ALICE, "hang"))
            await until(lambda: len(up.pids) == 2)
            with pytest.raises(NotSent) as caught:
                await up.asked(BOB, timeout_s=0.4, user="bob")
            assert caught.value.cause_code == "processes_busy"
            assert caught.value.retry_after
            tasks.cancel_scope.cancel()
        assert await up.asked(BOB) == up.pids[2]
        assert set(up.living) == {up.pids[0], up.pids[2]}


async def test_who_waits_gets_the_place_that_comes_free(tmp_path: Path) -> None:
    """A call that ends hands its process's place to a caller who waits for one."""
    async with served(tmp_path, Crowd(most=1)) as up:
        got: list[int | None] = []

        async def ask() -> None:
            got.append(await up.asked(BOB, user="bob"))

        async with create_task_group() as tasks:
            busy = by(ALICE, "late")
            tasks.start_soon(up.connector.invoke, busy)
            await until(lambda: len(up.pids) == 2)
            tasks.start_soon(ask)
            await until(lambda: up.connector._places.short == 1)
            await up.asked(ALICE, "flush")
        assert got == [up.pids[2]]


async def test_an_idle_process_ends(tmp_path: Path) -> None:
    """After its time without a call, and not before; a later call starts another one."""
    async with served(tmp_path, Crowd(idle_s=0.3)) as up:
        first = await up.asked(ALICE)
        await until(lambda: not alive(first or 0))
        assert await up.asked(ALICE) not in {first, None}


async def test_one_callers_server_that_dies_is_nobody_elses_matter(tmp_path: Path) -> None:
    """Their call has an unknown outcome and their next one a new process; others go on with theirs."""
    async with served(tmp_path) as up:
        alice, bob = await up.asked(ALICE), await up.asked(BOB)
        with pytest.raises(OutcomeUnknown):
            await up.asked(ALICE, "die")
        assert await up.asked(BOB) == bob
        await until(lambda: len(up.pids) == 4)
        os.kill(up.pids[0], signal.SIGKILL)  # the standing one
        assert await up.asked(BOB) == bob
        assert alice not in up.living


async def test_one_user_cannot_hold_all_places(tmp_path: Path) -> None:
    """However many act for them: one too many is told so and when to come again, and another user has a place."""
    async with served(tmp_path, Crowd(most=3, each=2)) as up, create_task_group() as tasks:
        for actor in ("one", "two"):
            tasks.start_soon(up.connector.invoke, by(ALICE, "hang", delegation=(actor,)))
        await until(lambda: len(up.pids) == 3)
        with pytest.raises(NotSent) as caught:
            await up.asked(ALICE, delegation=("three",), timeout_s=0.4)
        assert caught.value.cause_code == "own_processes_busy"
        assert caught.value.retry_after
        assert "(2)" in caught.value.detail
        assert await up.asked(BOB, user="bob") == up.pids[3]
        tasks.cancel_scope.cancel()


async def test_the_idle_ones_of_who_has_most_yield_first(tmp_path: Path) -> None:
    """A user's own where the share is full, though a place is free; else those of whoever has the most."""
    async with served(tmp_path, Crowd(most=3, each=2)) as up:
        bob = await up.asked(BOB, user="bob")
        first, second = [await up.asked(ALICE, delegation=(actor,)) for actor in ("one", "two")]
        carol = await up.asked(CAROL, user="carol")
        assert set(up.living) == {up.pids[0], bob, second, carol}
        await until(lambda: not alive(first or 0))
    async with served(tmp_path, Crowd(most=3, each=1)) as up:
        known = len(up.pids)
        old = await up.asked(ALICE, delegation=("one",))
        new = await up.asked(ALICE, delegation=("two",))
        assert set(up.living) == {up.pids[known - 1], new}
        assert old != new
