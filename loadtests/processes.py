"""Starting the measured processes, and reading from ``/proc`` what they use. Linux only."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_START_DEADLINE_S: Final = 120.0
_END_DEADLINE_S: Final = 20.0
_POLL_S: Final = 0.02


class BenchmarkError(Exception):
    """The run is void: something did not start, or an answer was not right."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """User plus system time so far, seconds.

    Attributes:
        process: of the process itself.
        tree: of the process, its living descendants and those already reaped.
    """

    process: float
    tree: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process holds, MB (10^6 bytes).

    Attributes:
        role: ``gateway`` for the root, otherwise what its command line says it is.
        rss: resident, shared pages counted whole.
        pss: resident, shared pages divided among their users.
    """

    role: str
    rss: float
    pss: float


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    parent: int
    own: int
    reaped: int


@contextlib.contextmanager
def serving(
    command: Sequence[str], folder: Path, name: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """A server that says where it listens on its first line, as JSON; yields its pid and what it says.

    Args:
        command: the command line.
        folder: where its output is kept while it runs.
        name: names the output files.
        env: added to the environment.

    Raises:
        BenchmarkError: it ended, or said nothing in time.
    """
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    # Files, not pipes: a server whose pipe nobody reads stands still once it is full.
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **(env or {})})
        except OSError as error:
            raise BenchmarkError(f"{name}: {command[0]}: {error.strerror}") from None
    try:
        yield process.pid, _first_line(process, out, err)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it where it does not."""
    process.terminate()
    try:
        process.wait(_END_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu(pid: int) -> Cpu:
    """CPU time of a process and its tree so far."""
    tree = _tree(pid)
    own = {stat.pid: stat.own for stat in tree}
    return Cpu(own[pid] / _TICKS_PER_S, sum(stat.own + stat.reaped for stat in tree) / _TICKS_PER_S)


def memory(pid: int) -> list[Memory]:
    """Memory of a process and each of its descendants, the process first."""
    found = []
    for stat in _tree(pid):
        rollup = dict(
            line.split(":", 1) for line in Path(f"/proc/{stat.pid}/smaps_rollup").read_text().splitlines()[1:]
        )
        rss, pss = (round(int(rollup[key].split()[0]) * 1024 / 1e6, 1) for key in ("Rss", "Pss"))
        found.append(Memory("gateway" if stat.pid == pid else _role(stat.pid), rss, pss))
    return found


def _first_line(process: subprocess.Popen[bytes], out: Path, err: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline:
        line, newline, _ = out.read_bytes().partition(b"\n")
        if newline:
            said: dict[str, Any] = json.loads(line)
            return said
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    words = err.read_text("utf-8", "replace")[-2000:]
    raise BenchmarkError(f"{' '.join(map(str, process.args))} did not start:\n{words}")  # type: ignore[arg-type]


def _tree(root: int) -> list[_Stat]:
    # A process that ends while the folder is read is simply not there.
    stats: dict[int, _Stat] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = _stat((folder / "stat").read_bytes())
                stats[stat.pid] = stat
    if root not in stats:
        raise BenchmarkError(f"process {root} has ended")
    tree, level = [], [root]
    while level:
        tree += [stats[pid] for pid in level]
        level = [stat.pid for stat in stats.values() if stat.parent in level]
    return tree


def _stat(line: bytes) -> _Stat:
    # The command may hold blanks and brackets: fields count from its last bracket. See proc_pid_stat(5).
    head, _, rest = line.rpartition(b")")
    fields = rest.split()
    user, system, reaped_user, reaped_system = map(int, fields[11:15])
    return _Stat(int(head.split()[0]), int(fields[1]), user + system, reaped_user + reaped_system)


def _role(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    words = " ".join(arguments)
    if "resource_tracker" in words:
        return "resource tracker"
    return "policy worker" if "rego" in words or "policy" in words else words.strip()[:60]
