"""Boxes for tests: the real runner, marked processes, and what the host shows of them from outside."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.sandbox import NO_SANDBOX, BoxLimits, Capabilities, Outcome
from sandbox.runner import BwrapRunner, Options
from tests.gateways import OSTIARY, ROOT

LIMITS = BoxLimits(memory_mb=64, pids=8, cpu_ms=3_000, wall_ms=10_000, output_bytes=65_536, work_mb=2)
# A user id that is nobody's on a test machine; files below the repository must be open to it, or the test says why not.
ORDINARY = 61_170


@asynccontextmanager
async def running(options: Options | None = None) -> AsyncIterator[BwrapRunner]:
    """The runner, started; skips the test where the host has no sandbox, with the reason."""
    async with BwrapRunner(options or Options(slots=4)) as runner:
        require(await runner.probe())
        yield runner


def require(seen: Capabilities) -> None:
    """Skip the test where no box can be started, with the host's reason; a box that leaks is no host's fault."""
    assert "boxes leak" not in seen.fixes.get(NO_SANDBOX, "")
    if not seen.usable:
        pytest.skip(reason=f"no sandbox here: {seen.fixes[NO_SANDBOX]}")


async def ran(runner: BwrapRunner, code: str, limits: BoxLimits = LIMITS, stdin: bytes = b"") -> Outcome:
    """How ``code`` ended."""
    return await runner.run(code.encode(), stdin, limits, await runner.probe())


def marking(mark: str) -> str:
    """Code that gives the process it runs in the name ``mark`` (at most 15 letters)."""
    return f"import ctypes\nctypes.CDLL(None).prctl(15, b{mark!r}, 0, 0, 0)\n"


def marked(mark: str) -> list[int]:
    """The host's processes of that name."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == mark:
                found.append(int(comm.parent.name))
        except OSError:
            continue
    return found


def status(pid: int) -> dict[str, list[str]]:
    """A process's ``/proc`` status, the words by their key."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return {key: words.split() for key, _, words in (line.partition(":") for line in lines)}


def as_ordinary(*words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run a command of ours under another user id, as root can; skips the test where that user cannot reach it."""
    looking = [sys.executable, "-c", "import gateway"]
    if subprocess.run(looking, cwd=ROOT, user=ORDINARY, group=ORDINARY, capture_output=True, check=False).returncode:
        pytest.skip(reason=f"{sys.executable} is closed to other users")
    return subprocess.run(
        [*OSTIARY, *words],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        user=ORDINARY,
        group=ORDINARY,
        extra_groups=[],
        check=False,
    )
