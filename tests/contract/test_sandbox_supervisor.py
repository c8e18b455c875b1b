"""A supervisor that ends, comes back with less, or cannot be had: nobody runs code under less than was admitted."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from connectors.code import CodeConnector
from gateway.core.errors import Unavailable
from gateway.core.sandbox import Capabilities, Capability, Ended
from sandbox import cgroups, host, slots
from sandbox.link import Link, Lost
from sandbox.runner import BwrapRunner, Options
from sandbox.slots import NoRoom, Slots
from tests.boxes import LIMITS, ran, running
from tests.waiting import until, until_asked

NOBODYS = 61_100  # no other test takes user ids from here on


def kill_supervisor(runner: BwrapRunner) -> None:
    """As the system would when it is out of memory."""
    assert runner._link is not None
    os.kill(runner._link.process.pid, signal.SIGKILL)


async def gone(runner: BwrapRunner) -> None:
    """Wait until the runner knows that its supervisor is no more."""
    await until(lambda: runner._link is None or not runner._link.alive)


def root_only() -> None:
    """Skip where boxes have no user ids of their own."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root gives boxes user ids of their own")


@pytest.mark.requirement("SAND-1")
async def test_nobody_runs_under_less_than_was_admitted() -> None:
    """The supervisor is replaced by one that caps less: all who were admitted before are refused, however they wait."""
    async with running() as runner:
        before = await runner.probe()
        if not before.held.get(Capability.MEMORY, "").startswith("cgroup"):
            pytest.skip(reason="no control group for memory here")
        runner.options = replace(runner.options, groups=False)
        kill_supervisor(runner)
        await gone(runner)
        said: list[str] = []

        async def call() -> None:
            with pytest.raises(Unavailable) as refused:
                await runner.run(b"print('ran')", b"", LIMITS, before)
            said.append(f"{refused.value.cause_code}: {refused.value.detail}")

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(call)
        now = await runner.probe()
        lost = [name for name in now.missing if name not in before.missing]
        assert said == [f"sandbox_degraded: this host's sandbox can no longer cap: {', '.join(lost)}"] * 4
        assert "memory" in lost
        assert (await runner.run(b"print('ran')", b"", LIMITS, now)).stdout == b"ran\n"


async def test_a_sandbox_that_broke_says_so_until_it_is_mended(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No supervisor can be had any more: probe and readiness say it at once, and see it when that is over."""
    program = tmp_path_factory.mktemp("bin") / "bwrap"
    program.symlink_to(host.bwrap(None))
    async with running(Options(slots=1, bwrap=program, retry_s=0.05)) as runner:
        before = await runner.probe()
        program.unlink()
        kill_supervisor(runner)
        await gone(runner)
        with pytest.raises(Unavailable):
            await CodeConnector(runner).ping()
        seen = await runner.probe()
        assert (seen.usable, seen.missing) == (False, ("sandbox",))
        assert seen.fixes["sandbox"] == f"{program} cannot be run: correct [sandbox] bwrap, or leave it out"
        with pytest.raises(Unavailable, match="no sandbox") as refused:
            await runner.run(b"print(1)", b"", LIMITS, before)
        assert refused.value.cause_code == "sandbox_degraded"
        program.symlink_to(host.bwrap(None))

        async def is_usable() -> bool:
            return (await runner.probe()).usable

        await until_asked(is_usable)
        assert (await ran(runner, "print(1)")).stdout == b"1\n"
    assert runner._link is None
    assert await runner.probe() == before  # and no supervisor is started for a runner that was left
    assert runner._link is None


async def test_a_sandbox_that_cannot_be_had_is_not_tried_at_every_call(tmp_path: Path) -> None:
    """Each try costs a process: after a failed one there is a while without."""
    program = tmp_path / "bwrap"
    async with BwrapRunner(Options(bwrap=program, retry_s=600)) as runner:
        first = await runner.probe()
        program.symlink_to(host.bwrap(None))
        assert await runner.probe() == first
        with pytest.raises(Unavailable):
            await runner.run(b"print(1)", b"", LIMITS, Capabilities("as it was"))


async def test_a_supervisor_that_fails_at_its_start_gives_its_last_words() -> None:
    """What it wrote before it ended is told, not lost."""
    with pytest.raises(Lost, match="KeyError: 'profile'"):
        await Link.started({})


async def test_claims_of_others_take_no_user_id_away() -> None:
    """Any user may bind any free name of an abstract socket: no such name is asked for."""
    root_only()
    held = []
    for uid in range(NOBODYS, NOBODYS + 64):
        held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        held[-1].bind(f"\0ostiary-sandbox-uid-{uid}")
    try:
        async with running(Options(slots=1, first_uid=NOBODYS)) as runner:
            assert (await runner.probe()).own_uid
    finally:
        for claim in held:
            claim.close()


def test_a_user_id_goes_to_one_at_a_time(tmp_path: Path) -> None:
    """Claims exclude each other and end with who holds them; an id under which somebody runs is nobody's to have."""
    root_only()
    folder = tmp_path / "claims"
    first = Slots.claimed(40, NOBODYS, folder)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, user=NOBODYS + 41, cwd="/") as survivor:
        second = Slots.claimed(4, NOBODYS, folder)
        assert second.free == [NOBODYS + 40, NOBODYS + 42, NOBODYS + 43, NOBODYS + 44]
        with pytest.raises(NoRoom, match="only 19 of 20 user ids") as none:
            Slots.claimed(20, NOBODYS, folder)
        assert "first_uid" in none.value.fix
        survivor.kill()
    for claim in first._claims:
        os.close(claim)
    assert Slots.claimed(1, NOBODYS, folder).free == [NOBODYS]


@pytest.mark.parametrize("mode", [0o711, 0o777])
def test_claims_are_kept_where_only_root_writes(tmp_path: Path, mode: int) -> None:
    """A folder that others may enter could be filled with locks of theirs."""
    root_only()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="must be root's alone"):
        Slots.claimed(1, NOBODYS, tmp_path / "open")
    with pytest.raises(OSError, match="link"):
        Slots.claimed(1, NOBODYS, tmp_path / "link")
    assert slots.CLAIMS.parent == Path("/run")


async def test_a_host_without_free_user_ids_says_so() -> None:
    """The reason and its fix, and nothing of bubblewrap, which was not even started."""
    root_only()
    async with (
        running(Options(slots=64, first_uid=NOBODYS)),
        BwrapRunner(Options(slots=4, first_uid=NOBODYS)) as runner,
    ):
        fix = (await runner.probe()).fixes["sandbox"]
    assert fix.startswith(f"only 0 of 4 user ids from {NOBODYS} on are free")
    assert "set [sandbox] first_uid" in fix
    assert "bubblewrap" not in fix


async def test_whoever_outlived_a_supervisor_is_ended_by_the_next() -> None:
    """A process that is still in the group of a dead supervisor's box is killed, and the group is gone."""
    group = cgroups.found(os.getpid()).group()
    if group is None:
        pytest.skip(reason="no control groups here")
    left = {name: folder.with_name("ostiary-box-999999999-1") for name, folder in group.folders.items()}
    for controller, folder in group.folders.items():
        if folder.exists():
            folder.rename(left[controller])
    survivor = await anyio.open_process([shutil.which("sleep") or "sleep", "60"])
    async with survivor:
        for folder in set(left.values()):
            (folder / "cgroup.procs").write_text(str(survivor.pid))
        cgroups.found(os.getpid())
        with anyio.fail_after(10):
            assert await survivor.wait() == -signal.SIGKILL
    assert not any(folder.exists() for folder in left.values())


async def test_without_control_groups_a_process_out_of_time_is_told_from_an_exit_code() -> None:
    """The kernel's signal says that the limit bit; the same number as exit code is the code's own choice."""
    async with running(Options(groups=False)) as runner:
        outcome = await ran(runner, "import sys; sys.exit(152)")
        assert (outcome.ended, outcome.exit_code) == (Ended.EXITED, 152)
        outcome = await ran(runner, "while True: pass", replace(LIMITS, cpu_ms=1_000))
        assert (outcome.ended, outcome.exit_code) == (Ended.CPU, None)
