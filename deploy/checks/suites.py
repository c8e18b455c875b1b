"""All tests, four processes at a time: what waits in one leaves the processor to the others.

``python -m deploy.checks.suites``: each line is printed as it comes, behind the name of its part, and what failed is
said once more at the end. The exit code is that of the first part that fails, or of the coverage. The core is pure, so
its unit tests must cover it by themselves; the other parts are not measured, which would cost them a third of their
time.
"""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# The longest first, so that all processes end at about the same time.
PARTS = ("attack", "e2e", "contract", "unit", "story", "arch")
# What would end long after all others by itself is shared out, file by file.
_SHARES = {"e2e": 2, "contract": 3}
_MEASURED = "unit"
_SIDE_BY_SIDE = 4
_WIDTH = max(map(len, PARTS)) + 2
_LONGEST_LINE = 1 << 24
_COVERAGE = (sys.executable, "-m", "coverage")
# How pytest begins what it says of failures, and of a test that hangs, which is the last it says.
_FAILURES = ("FAILED ", "ERROR ", "Timeout (")
_HANGS_IN = "/tests/"
# How pytest ends a run in which something was tested.
_PASSED = re.compile(r"(=+ )?(\d+ \w+, )*\d+ passed\b.* in \d")
# How each part ends what it says of the deep tier (tests/tiers.py).
_LEFT_OUT = re.compile(r"deep tier: (\d+) cases not run here")


@dataclass
class _Heard:
    """What the parts said that is said once more: their failures, and how many cases of the deep tier they left out."""

    failures: list[str] = field(default_factory=list)
    left_out: int = 0


async def main() -> int:
    """Run all parts, then report the coverage."""
    places = asyncio.Semaphore(_SIDE_BY_SIDE)
    heard = _Heard()
    began = time.monotonic()
    codes = await asyncio.gather(*(_part(name, paths, places, heard) for name, paths in shares()))
    _say(f"all tests: {time.monotonic() - began:.0f} s")
    _say(f"deep tier: {heard.left_out} cases of the tests named above, left to `make campaign NAME=deep`")
    if any(codes):
        for line in heard.failures:
            _say(line)
        return next(code for code in codes if code)
    process = await asyncio.create_subprocess_exec(*_COVERAGE, "report")
    return await process.wait()


def shares() -> Iterator[tuple[str, list[str]]]:
    """What each process is called, and which folder or files it tests."""
    for name in PARTS:
        count = _SHARES.get(name, 1)
        if count == 1:
            yield name, [f"tests/{name}"]
            continue
        files = sorted(str(path) for path in Path("tests", name).rglob("test_*.py"))
        for first in range(count):
            yield f"{name} {first + 1}", files[first::count]


async def _part(name: str, paths: Sequence[str], places: asyncio.Semaphore, heard: _Heard) -> int:
    async with places:
        began = time.monotonic()
        code = await _tested(name, paths, heard)
        _say(f"{name:{_WIDTH}} | {time.monotonic() - began:.0f} s")
        return code


async def _tested(name: str, paths: Sequence[str], heard: _Heard) -> int:
    how = (*_COVERAGE, "run") if name == _MEASURED else (sys.executable,)
    command = (*how, "-m", "pytest", "--durations=20", *paths)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=_LONGEST_LINE
    )
    assert process.stdout is not None
    passed = False
    try:
        async for printed in process.stdout:
            line = printed.decode(errors="replace").rstrip()
            _say(f"{name:{_WIDTH}} | {line}")
            if line.startswith(_FAILURES) or (line.startswith("  File ") and _HANGS_IN in line):
                heard.failures.append(line)
            if found := _LEFT_OUT.match(line):
                heard.left_out += int(found[1])
            passed = passed or _PASSED.match(line) is not None
        # A process that a test has ended in good order, half-way, is no part that passed.
        code = await process.wait() or int(not passed)
        if code:
            heard.failures.append(f"{name}: exit code {code}")
        return code
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
