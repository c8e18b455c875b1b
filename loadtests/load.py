"""One measured load on one door: the load client in its own process, CPU time read just before and after its calls."""

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from loadtests.processes import BenchmarkError, cpu, end

ROOT: Final = Path(__file__).resolve().parent.parent
STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
_DEADLINE_S: Final = 180.0
# What ``probe_ms`` says on an undisturbed core of the machine the limits are for.
REFERENCE_PROBE_MS: Final = 28.0


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the upstream's tool.

    Attributes:
        name: as the figures call it.
        url: MCP endpoint.
        tool: the echo tool's name there.
        pid: process whose CPU time counts.
        tokens: bearer tokens; each is a run of its own.
    """

    name: str
    url: str
    tool: str
    pid: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """How a door is loaded.

    Attributes:
        door: name of the door.
        version: protocol revision.
        connections: calls under way at a time.
        runs: how many tokens, and so runs, the connections share.
        calls: most calls; 0 = as many as the time allows.
        warmup: unmeasured calls on each connection.
        patience: how many times the usual time it may take; for doors that would answer too few calls in that.
    """

    door: str
    version: str
    connections: int
    runs: int = 1
    calls: int = 0
    warmup: int = 20
    patience: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One load's figures; times in microseconds, CPU per call.

    Attributes:
        probe_ms: how fast a core was, just before and just after.
    """

    calls: int
    seconds: float
    per_second: float
    p50_us: float
    p99_us: float
    cpu_process_us: float
    cpu_tree_us: float
    probe_ms: float

    @property
    def slowness(self) -> float:
        """How much longer a core took than the reference does."""
        return self.probe_ms / REFERENCE_PROBE_MS

    @property
    def reference_process_us(self) -> float:
        """CPU of the process at the reference's speed."""
        return self.cpu_process_us / self.slowness

    @property
    def reference_tree_us(self) -> float:
        """CPU of the whole tree at the reference's speed."""
        return self.cpu_tree_us / self.slowness


def measure(door: Door, load: Load, seconds: float, seed: int) -> Sample:
    """Load a door for at most ``seconds``, times the load's patience.

    Raises:
        BenchmarkError: an answer was not right, or the client did not end in time.
    """
    job: dict[str, Any] = {
        "url": door.url,
        "tool": door.tool,
        "version": load.version,
        "connections": load.connections,
        "seconds": seconds * load.patience,
        "warmup": load.warmup,
        "tokens": door.tokens[: load.runs],
        "seed": seed,
    }
    if load.calls:
        job["calls"] = load.calls
    command = [sys.executable, "-m", "loadtests.client"]
    earlier = probe_ms()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            _say(client.stdin, json.dumps(job))
            _line(client.stdout, load)
            before = cpu(door.pid)
            _say(client.stdin, "go")
            said = json.loads(_line(client.stdout, load))
            after = cpu(door.pid)
        finally:
            end(client)
    calls = said["calls"]
    return Sample(
        calls=calls,
        seconds=said["seconds"],
        per_second=said["per_second"],
        p50_us=said["p50_us"],
        p99_us=said["p99_us"],
        cpu_process_us=(after.process - before.process) / calls * 1e6,
        cpu_tree_us=(after.tree - before.tree) / calls * 1e6,
        probe_ms=(earlier + probe_ms()) / 2,
    )


def fdatasync_p50_us(folder: Path, count: int = 200) -> float:
    """Median time of appending 4 KiB and making it durable, microseconds, on the file system of ``folder``."""
    page, times = b"\0" * 4096, []
    path = folder / "fdatasync.probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(page)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(times) * 1e6


def probe_ms() -> float:
    """CPU time of a fixed piece of pure Python, milliseconds: how fast a core is just now."""
    started, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - started) * 1e3


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of a figure over the rounds."""
    return {
        "median": round(statistics.median(values), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
    }


def _say(stdin: IO[bytes], line: str) -> None:
    try:
        stdin.write(line.encode() + b"\n")
    except BrokenPipeError:
        raise BenchmarkError("the load client has ended") from None


def _line(stdout: IO[bytes], load: Load) -> bytes:
    ready, _, _ = select.select([stdout], [], [], _DEADLINE_S)
    line = stdout.readline() if ready else b""
    if not line:
        raise BenchmarkError(f"{load.door}, {load.version}, {load.connections} connections: the run is void")
    return line
