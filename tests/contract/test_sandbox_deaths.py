"""However a box, its supervisor, its caller or its gateway ends, nothing of it goes on."""

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from gateway.core.errors import ToolFailed
from gateway.core.sandbox import Ended
from sandbox import cgroups
from sandbox.runner import BwrapRunner
from tests.boxes import LIMITS, marked, marking, ran, require, running
from tests.gateways import ROOT, until

# Leaves a daemon behind: a session of its own, an ended parent, no signal it would listen to.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        {marking}
        open("there", "w").close()
        time.sleep(60)
    os._exit(0)
while not os.path.exists("there"): time.sleep(0.01)
"""
# Tries to make the box's first process forget its bond to the supervisor (x86-64: prctl(PR_SET_PDEATHSIG, 0), pause).
CLINGING = """
import ctypes, os, time
print(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0))
try:
    place = int(open("/proc/1/syscall").read().split()[-1], 16)
    memory = open("/proc/1/mem", "r+b", buffering=0)
    memory.seek(place)
    memory.write(bytes.fromhex("b89d000000bf0100000031f60f05b8220000000f05ebf7"))
except OSError:
    pass
if os.fork() == 0:
    if os.fork() == 0: os._exit(0)
    os._exit(0)
os.wait()
time.sleep(0.3)
"""
HOLDER = """
import asyncio
from sandbox.runner import BwrapRunner
from gateway.core.sandbox import BoxLimits
async def main():
    async with BwrapRunner() as runner:
        await runner.run({code!r}.encode(), b"", BoxLimits(wall_ms=60_000), await runner.probe())
asyncio.run(main())
"""


def code(mark: str, then: str = "import time; time.sleep(60)") -> str:
    """A program whose process bears ``mark`` on the host."""
    return marking(mark) + then


def daemon(mark: str) -> str:
    """A program that leaves a daemon of that mark."""
    return DAEMON.format(marking=marking(mark).strip().replace("\n", "\n        "))


def left_groups() -> list[Path]:
    """Control groups of boxes that are still there, though who made them lives no more."""
    tree = cgroups.found(os.getpid())
    folders = [folder for parent in set(tree.parents.values()) for folder in parent.glob("ostiary-box-*")]
    return [folder for folder in folders if not Path("/proc", folder.name.split("-")[2]).exists()]


async def seen(mark: str) -> None:
    """Wait until a process of that mark is there."""
    with anyio.fail_after(20):
        while not marked(mark):  # noqa: ASYNC110 - a process of the system has no event to wait for
            await anyio.sleep(0.01)


@pytest.mark.requirement("SAND-1")
async def test_what_code_leaves_behind_dies_with_it() -> None:
    """A daemon that detached itself is dead when the answer is there."""
    async with running() as runner:
        outcome = await ran(runner, daemon("box-daemon"))
        assert (outcome.ended, outcome.exit_code, outcome.stderr) == (Ended.EXITED, 0, b"")
        assert not marked("box-daemon")


async def test_the_mark_is_seen_while_it_lives() -> None:
    """The probe of these tests bites: a daemon is seen from outside as long as its box lives."""
    async with running() as runner, anyio.create_task_group() as group:
        group.start_soon(ran, runner, daemon("box-living") + "time.sleep(60)")
        await seen("box-living")
        group.cancel_scope.cancel()
    assert not marked("box-living")


async def test_a_cancelled_caller_leaves_no_box() -> None:
    """When the cancelled call returns its box is dead, at whatever moment it was cancelled."""
    async with running() as runner:
        for delay in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1):
            with anyio.move_on_after(delay):
                await ran(runner, code("box-cancelled"))
            assert not marked("box-cancelled")
        assert (await ran(runner, "print(1)")).stdout == b"1\n"


async def test_leaving_the_runner_kills_its_boxes() -> None:
    """A gateway that shuts down takes its boxes along."""
    async with anyio.create_task_group() as group:
        async with running() as runner:
            group.start_soon(_failing, runner, "box-leaving")
            await seen("box-leaving")
        assert not marked("box-leaving")


@pytest.mark.parametrize("first", ["", CLINGING], ids=["meek", "clinging"])
async def test_a_killed_supervisor_takes_its_boxes_along(first: str) -> None:
    """Kill -9 of the supervisor: the box dies, its caller is told, the next call gets a new supervisor."""
    async with running() as runner:
        async with anyio.create_task_group() as group:
            group.start_soon(_failing, runner, "box-orphan", first)
            await seen("box-orphan")
            assert runner._link is not None
            os.kill(runner._link.process.pid, signal.SIGKILL)
        with anyio.fail_after(10):
            while marked("box-orphan"):  # noqa: ASYNC110 - the kernel's own kill has no event to wait for
                await anyio.sleep(0.01)
        assert (await ran(runner, "print(1)")).stdout == b"1\n"
    assert not left_groups()


async def _failing(runner: BwrapRunner, mark: str, first: str = "") -> None:
    with pytest.raises(ToolFailed) as lost:
        await ran(runner, first + code(mark), LIMITS)
    assert lost.value.cause_code == "sandbox_lost"


async def test_a_killed_gateway_leaves_no_box() -> None:
    """Kill -9 of the process that holds the runner: supervisor, box and control groups are gone."""
    async with running() as runner:
        require(await runner.probe())
    source = HOLDER.format(code=code("box-gateway"))
    holder = await anyio.open_process([sys.executable, "-c", source], cwd=ROOT)
    async with holder:
        try:
            await seen("box-gateway")
            supervisors = _children(holder.pid)
            assert supervisors
        finally:
            holder.kill()
    until(lambda: not marked("box-gateway"), seconds=10)
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in supervisors), seconds=10)
    until(lambda: not left_groups(), seconds=10)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
