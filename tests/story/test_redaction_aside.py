"""A hostile result is redacted while the gateway goes on: other callers' calls begin and end meanwhile."""

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from gateway.core.mcpwire.eras import Era
from gateway.core.redact import AT_ONCE_BYTES
from tests.rawhttp import Seen, answer, says
from tests.story.test_hostile_upstreams import Street, street

MARK = b"gateway.adapters.redaction.worker"


def workers() -> list[int]:
    """The redaction workers of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if MARK in Path("/proc", pid, "cmdline").read_bytes()]


def large(size: int) -> dict[str, Any]:
    """A result of some ``size`` bytes, all of it letters written as numbers."""
    return {"content": [{"type": "text", "text": "%41" * (size // 3)}]}


def is_at_work(here: Street) -> bool:
    """Whether a worker has a body now."""
    aside = here.gateway.parts.ports.redactor._aside  # type: ignore[attr-defined]
    return bool(aside._all) and not aside._idle


@pytest.mark.requirement("TOOL-8")
async def test_others_finish_while_a_hostile_result_is_redacted(tmp_path: Path) -> None:
    """The worker is stopped in the middle: until it goes on, the hostile call is open and everybody else is served."""

    def hostile(seen: Seen) -> bytes:
        return answer(seen, large(AT_ONCE_BYTES * 2 if not told else 3_000_000))

    told: list[str] = []
    async with street(tmp_path, {"hostile": {"tools/call": says(hostile)}}, Era.STATELESS) as here:
        assert await here.call("hostile") == "done"
        told.append("first")
        (worker,) = workers()
        os.kill(worker, signal.SIGSTOP)

        async def attack() -> None:
            told.append(await here.call("hostile"))

        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(attack)
                while len(here.upstreams["hostile"].calls("tools/call")) < 2:
                    await anyio.lowlevel.checkpoint()
                assert [await here.call("good") for _ in range(5)] == ["done"] * 5
                assert told == ["first"]
                os.kill(worker, signal.SIGCONT)
        assert told == ["first", "done"]


async def test_a_result_whose_worker_dies_is_withheld(tmp_path: Path) -> None:
    """Its caller is told that it cannot be had, never given it as it came; the next one is redacted again."""
    async with street(tmp_path, {}, Era.STATELESS) as here:
        here.upstreams["good"].scripts["tools/call"] = says(lambda seen: answer(seen, large(AT_ONCE_BYTES * 2)))
        assert await here.call("good") == "done"
        (worker,) = workers()
        os.kill(worker, signal.SIGSTOP)
        told: list[str] = []

        async def ask() -> None:
            told.append(await here.call("good"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            while len(here.upstreams["good"].calls("tools/call")) < 2:
                await anyio.lowlevel.checkpoint()
            # It has the body, or will have it; either way it never answers.
            os.kill(worker, signal.SIGKILL)
        assert told in (["tainted:redaction_failed"], ["done"])
        assert await here.call("good") == "done"
