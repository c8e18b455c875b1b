"""No process is left behind, and no question: workers that end at a bad moment, and callers that leave at one."""

import asyncio
import os
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.pool import Pool
from gateway.adapters.rego.progress import Progress
from gateway.core.decision import Effect
from gateway.core.errors import Unavailable
from tests.rego_demo import RULES, SETTINGS, alive, decide, demo, pids, saying, serving, until

OTHER = demo(RULES + "\n# another revision\n")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
TALKATIVE = """
import json, os, struct, sys
os.read(0, 1 << 20)
said = json.dumps({"engine": "fake 1"}).encode()
frame = struct.pack(">I", len(said)) + said
os.write(1, frame + frame)
os.read(0, 1)
"""


def children() -> set[int]:
    """Processes of policy that this process has started and that have not ended."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and b"adapters/rego/" in command:
            found.add(int(folder.name))
    return found


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What was started meanwhile has ended soon after."""
    before = children()
    yield
    await until(lambda: children() <= before)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_bundle_whose_loading_is_cancelled_leaves_no_process(nth: int) -> None:
    """Not the parser, not the worker it is tried on, not the one that would have served: whichever was reached."""
    async with nothing_left(), serving() as engine:
        old, seen = children(), set[int]()

        async def served() -> None:
            await engine.serve(OTHER, anyio.sleep_forever)

        def reached() -> bool:
            seen.update(children() - old)
            return len(seen) >= nth

        async with anyio.create_task_group() as group:
            group.start_soon(served)
            await until(reached)
            group.cancel_scope.cancel()
        await until(lambda: children() == old)
        (decision,) = await decide(engine, saying("yes"))
        assert decision.effect is Effect.ALLOW
        assert engine.revision == demo().revision


async def test_a_bundle_that_is_cancelled_before_it_may_serve_leaves_no_process() -> None:
    """Its workers are ready, and whoever would record it is cancelled."""
    async with nothing_left(), serving() as engine:
        old, asked = children(), asyncio.Event()

        async def never() -> None:
            asked.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(engine.serve, OTHER, never)
            await asked.wait()
            assert children() > old
            group.cancel_scope.cancel()
        await until(lambda: children() == old)
        assert engine.revision == demo().revision


async def test_an_engine_whose_end_is_cancelled_leaves_no_process() -> None:
    """Shutting down in a hurry ends the workers all the same."""
    async with nothing_left():
        with anyio.CancelScope() as scope:
            async with RegoEngine(demo(), replace(SETTINGS, workers=2)) as engine:
                await until(lambda: len(pids(engine)) == 2)
                left = pids(engine)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await until(lambda: not any(map(alive, left)))


async def test_a_worker_that_ends_as_soon_as_it_has_loaded_is_given_no_question(tmp_path: Path) -> None:
    """Nobody would ever hear of its end: a question it were given would wait for ever."""
    script = tmp_path / "worker.py"
    script.write_text(TALKATIVE, "utf-8")
    pool = Pool(demo(), replace(SETTINGS, command=(sys.executable, "-I", str(script))).pool(), lambda _event: None)
    with pytest.raises(ConnectionError):
        await pool.start()
    await pool.close()


def test_a_worker_that_notes_no_time_has_no_more_of_it() -> None:
    """A deadline is never reckoned from what is no number."""
    progress = Progress.made()
    progress.shared()
    progress._page[:16] = struct.pack("=Qd", 7, float("nan"))
    assert progress.read() == (7, 0.0)
    progress.close()


async def test_a_question_that_lost_its_worker_does_not_wait_for_ever() -> None:
    """The time it may wait for another one runs, also where nobody else asks and no worker can be started."""
    settings = replace(SETTINGS, deadline_s=3.0, queue_wait_s=0.2)
    async with serving(settings=settings) as engine:
        pool = engine._running().pool
        slow = pool.ask("d", [(b"", saying("loop"))])
        await until(lambda: sum(link.load for link in pool._links) == 1)
        behind = pool.ask("d", [(b"", saying("yes"))])
        await until(lambda: sum(link.load for link in pool._links) == 2 and pool._timer is None)
        pool.settings = replace(pool.settings, command=("/nonexistent/worker",))
        for question in (slow, behind):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(question.answer, 10)
