"""Talks to the throw-away child of ``examine.py``."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_MEMORY_BYTES = 512 * 1024 * 1024
_LINE_BYTES = 64 * 1024 * 1024


async def answers(request: Mapping[str, Any], step_s: float) -> tuple[list[dict[str, Any]], str]:
    """The child's answers, and how it ended: empty, ``hangs`` (a step took longer than ``step_s``) or ``crashes``."""
    script = str(Path(__file__).with_name("examine.py"))
    process = await create_subprocess_exec(
        *(sys.executable, "-I", "-B", script, str(_MEMORY_BYTES)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={},
        cwd="/",
        limit=_LINE_BYTES,
    )
    try:
        return await _listen(process, json.dumps(request).encode(), step_s)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _listen(process: Process, request: bytes, step_s: float) -> tuple[list[dict[str, Any]], str]:
    assert process.stdin is not None
    assert process.stdout is not None
    answers: list[dict[str, Any]] = []
    with suppress(ConnectionError):
        process.stdin.write(request)
        await process.stdin.drain()
        process.stdin.close()
    while True:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), step_s)
        except TimeoutError:
            return answers, "hangs"
        if not line.endswith(b"\n"):
            return answers, "" if await process.wait() == 0 else "crashes"
        answers.append(json.loads(line))
