"""All tests, in two processes side by side: what waits in one leaves the processor to the other.

``python -m deploy.checks.suites``: each line is printed as it comes, behind the name of its half. The exit
code is that of the first half that fails, or of the coverage of both together.
"""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

HALVES = {
    "stories": ("tests/e2e", "tests/attack", "tests/story", "tests/arch"),
    "parts": ("tests/unit", "tests/contract"),
}
_WIDTH = max(map(len, HALVES))
_LONGEST_LINE = 1 << 24
_COVERAGE = (sys.executable, "-m", "coverage")


async def main() -> int:
    """Run both halves, then report their coverage together."""
    left_over()
    began = time.monotonic()
    codes = await asyncio.gather(*(_half(name, folders) for name, folders in HALVES.items()))
    _say(f"both halves: {time.monotonic() - began:.0f} s")
    if any(codes):
        return next(code for code in codes if code)
    for command in (("combine", "--quiet"), ("report",)):
        process = await asyncio.create_subprocess_exec(*_COVERAGE, *command)
        if code := await process.wait():
            return code
    return 0


def left_over() -> None:
    """Take away what a run that was broken off has measured."""
    for path in Path().glob(".coverage.*"):
        path.unlink()


async def _half(name: str, folders: tuple[str, ...]) -> int:
    command = (*_COVERAGE, "run", "--parallel-mode", "-m", "pytest", "--durations=20", *folders)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=_LONGEST_LINE
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            _say(f"{name:{_WIDTH}} | {line.decode(errors='replace').rstrip()}")
        return await process.wait()
    finally:
        # Interrupted: the tests end what they have started before they go.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await process.wait()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
