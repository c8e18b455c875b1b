"""Code in a box tries whatever it must not: in the strict box nothing is open, in weak ones the probes say what is."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from gateway.core.sandbox import BoxLimits
from sandbox import host
from sandbox.runner import Options
from tests.boxes import as_ordinary, marked, marking, ran, require, running, status
from tests.gateways import ROOT
from tests.processes import FIXTURES

ABUSE = (FIXTURES / "abuse.py").read_text()


def given(folder: Path) -> bytes:
    """What a box is to look for: a state folder of the host and a process of it."""
    secret = folder / "state" / "keys"
    secret.mkdir(parents=True)
    (secret / "issuer.pem").write_text("secret")
    return json.dumps({"paths": [str(secret / "issuer.pem"), str(folder), str(ROOT)], "pids": [os.getpid()]}).encode()


@pytest.mark.requirement("SAND-1")
async def test_nothing_is_open_in_a_box(tmp_path: Path) -> None:
    """Network, files, processes, descriptors, environment, devices, privileges, kernel calls: all refused."""
    async with running() as runner:
        outcome = await ran(runner, ABUSE, BoxLimits(), stdin=given(tmp_path))
    assert outcome.stderr == b""
    assert json.loads(outcome.stdout) == []


@pytest.mark.parametrize(
    ("weakness", "found"),
    [
        ("filter", {"call ptrace", "call mount", "call bpf", "call keyctl", "call unshare", "socket family 2"}),
        ("filter", {"call io_uring_setup", "call clone into a new user namespace", "socket family 16"}),
        ("processes", {f"process {os.getppid()}"}),
        ("filter", {"call prctl to outlive the supervisor", "call inotify_init1"}),
        ("first process", {"the memory of process 1"}),
        ("environment", {"variable SECRET"}),
        ("files", {"sees /etc/passwd", "sees /etc/hostname"}),
        ("devices", {"device pts", "device tty", "a terminal of its own"}),
        ("writable", {"writes /"}),
        ("descriptors", {"descriptor 90"}),
    ],
)
async def test_the_probes_bite(tmp_path: Path, weakness: str, found: set[str]) -> None:
    """A box that is weak on purpose is found to be, by the very probes that find nothing in a strict one."""
    async with running() as runner:
        require(await runner.probe())
    assert found <= set(weak(weakness, given(tmp_path)))


async def test_the_network_probe_bites(tmp_path: Path) -> None:
    """A box in the host's network sees its interfaces, where it has any besides loopback."""
    if {name for _, name in socket.if_nameindex()} <= {"lo"}:
        pytest.skip(reason="this host has no network interface to be found")
    async with running() as runner:
        require(await runner.probe())
    assert any(leak.startswith("interface ") for leak in weak("network", given(tmp_path)))


def weak(weakness: str, stdin: bytes) -> list[str]:
    """What the probes find in a weakened box."""
    command = [sys.executable, str(FIXTURES / "weak_box.py"), weakness, str(FIXTURES / "abuse.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    outcome = json.loads(done.stdout)
    assert outcome["stdout"], outcome
    found: list[str] = json.loads(outcome["stdout"])
    return found


async def test_a_box_is_nobody_on_the_host_either() -> None:
    """As root: the host sees the box under a user id of its own, without privileges, filtered."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root can give boxes user ids of their own")
    async with running(Options(slots=2, first_uid=60_900)) as runner, anyio.create_task_group() as group:
        for mark in ("box-uid-1", "box-uid-2"):
            group.start_soon(ran, runner, marking(mark) + "import time; time.sleep(60)")
        with anyio.fail_after(20):
            while not (marked("box-uid-1") and marked("box-uid-2")):  # noqa: ASYNC110 - nothing to wait on
                await anyio.sleep(0.01)
        seen = [status(marked(mark)[0]) for mark in ("box-uid-1", "box-uid-2")]
        group.cancel_scope.cancel()
    uids = [one["Uid"] for one in seen]
    assert uids[0] != uids[1]
    for one in seen:
        assert len(set(one["Uid"])) == len(set(one["Gid"])) == 1
        assert 60_900 <= int(one["Uid"][0]) < 60_964
        assert (one["Groups"], int(one["CapEff"][0], 16), one["NoNewPrivs"], one["Seccomp"]) == ([], 0, ["1"], ["2"])


async def test_two_gateways_never_share_a_user_id() -> None:
    """Each takes user ids that no other one of this machine has; where none is left there is no sandbox."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root can give boxes user ids of their own")
    async with running(Options(slots=64, first_uid=60_700)), running(Options(slots=4, first_uid=60_764)):
        async with running(Options(slots=4, first_uid=60_600)) as other:
            assert (await ran(other, "print(1)")).stdout == b"1\n"
        with pytest.raises(pytest.skip.Exception, match="are free"):
            async with running(Options(slots=4, first_uid=60_700)):
                pass


def test_an_ordinary_user_has_the_same_walls_and_says_what_it_lacks(tmp_path: Path) -> None:
    """Under an ordinary user id nothing is open either; what cannot be capped is named, and no code runs unasked."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root can become an ordinary user")
    probe = as_ordinary("sandbox", "probe", "--json")
    if probe.returncode:
        pytest.skip(reason=f"no sandbox for ordinary users here: {probe.stdout.decode()}")
    seen: dict[str, Any] = json.loads(probe.stdout.splitlines()[-1])
    assert {"memory", "cpu", "inodes"} <= set(seen["missing"])
    assert seen["held"]["seccomp"] == "bpf"
    assert seen["own_uid"] is False
    assert '[policy.data.gateway.sandbox] accept_missing = ["memory"' in seen["accept"]
    words = ["sandbox", "run", str(FIXTURES / "abuse.py"), "--input", "-", "--json"]
    refused = as_ordinary(*words, stdin=given(tmp_path))
    assert refused.returncode == 1
    assert "cannot cap: memory, " in json.loads(refused.stdout.splitlines()[-1])["error"]
    accepted = [word for name in seen["missing"] for word in ("--accept-missing", name)]
    done = as_ordinary(*words, *accepted, stdin=given(tmp_path / "again"))
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert (outcome["stderr"], outcome["stdout"]) == ("", "[]\n")


# Writes a fork bomb over the instructions at which process 1 waits, x86-64: fork 300 times, then pause for ever.
TAKEOVER = """
import os, re, time
limits = open("/proc/1/limits").read()
print(re.search(r"Max processes +([0-9]+)", limits)[1], re.search(r"Max address space +([a-z0-9]+)", limits)[1])
try:
    place = int(open("/proc/1/syscall").read().split()[-1], 16)
    memory = open("/proc/1/mem", "r+b", buffering=0)
    memory.seek(place)
    memory.write(bytes.fromhex("bb2c010000b8390000000f0585c07404ffcb75f1b8220000000f05ebf7"))
except OSError as error:
    print(error.strerror)
if os.fork() == 0:
    if os.fork() == 0: os._exit(0)  # an orphan, which process 1 wakes up for
    os._exit(0)
os.wait()
time.sleep(0.5)
print(len([name for name in os.listdir("/proc") if name.isdigit()]))
"""


async def test_no_process_of_a_box_is_without_its_limits() -> None:
    """Without control groups: process 1 has the code's own limits, and the code cannot take it over."""
    async with running(Options(groups=False)) as runner:
        outcome = await ran(runner, TAKEOVER, BoxLimits(pids=8, memory_mb=128, wall_ms=5_000))
    assert outcome.stderr == b""
    assert outcome.stdout.decode().splitlines() == ["9 134217728", "Permission denied", "2"]


@pytest.mark.parametrize("held", ["rlimit"])
async def test_without_control_groups_processes_are_still_capped(held: str) -> None:
    """A resource limit inside the box's own user namespace stops a fork bomb; memory is capped by process only."""
    async with running(Options(groups=False)) as runner:
        seen = await runner.probe()
        assert seen.missing == ("memory", "cpu", "inodes")
        assert seen.held["pids"] == held
        bomb = "import os\nmade = 0\ntry:\n  while os.fork(): made += 1\n  import time; time.sleep(9)\n"
        outcome = await ran(runner, bomb + "except OSError: print(made)", BoxLimits(pids=8, wall_ms=5_000))
        assert int(outcome.stdout) <= 8
        outcome = await ran(runner, "b'x' * (400 << 20)", BoxLimits(memory_mb=128))
        assert (outcome.exit_code, outcome.spent.cpu_ms, outcome.spent.memory_kb) == (1, None, None)
        assert b"MemoryError" in outcome.stderr


async def test_a_state_folder_below_usr_is_hidden(tmp_path: Path) -> None:
    """Where the state folder lies below /usr, which boxes see, an empty folder stands in its place."""
    hidden = Path("/usr/share")
    look = f"import os\nprint(len(os.listdir({str(hidden)!r})), os.access({str(hidden)!r}, os.W_OK))"
    async with running(Options(hidden=(hidden, tmp_path))) as runner:
        assert (await ran(runner, look)).stdout == b"0 False\n"
    async with running() as runner:
        assert (await ran(runner, look)).stdout != b"0 False\n"


@pytest.mark.parametrize(("mode", "version"), [(0o4755, "0.11.0"), (0o755, "0.6.1"), (0o755, "")])
def test_a_bubblewrap_that_will_not_do_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, version: str
) -> None:
    """One that is set-uid works as root first, and an old one lacks a wall: both are passed over."""
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
    program.chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])  # nor is there the wheel
    with pytest.raises(host.NoSandbox) as none:
        host.bwrap(None)
    assert "apt install bubblewrap" in none.value.fix
