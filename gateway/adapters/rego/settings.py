"""How the embedded engine is run."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.rego.pool import PoolSettings

_GUARD_S, _GUARD_FACTOR = 10.0, 20


def worker_command(memory_bytes: int, guard_s: float) -> tuple[str, ...]:
    """How a worker is started: isolated Python, the script by path, nothing of the gateway imported."""
    return (sys.executable, "-I", "-B", str(Path(__file__).with_name("worker.py")), str(memory_bytes), str(guard_s))


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs.

    Attributes:
        workers: worker processes; None = one for two cores.
        deadline_s: longest an input may take, seconds, from when its worker can begin with it.
        memory_bytes: address space of a worker.
        queue: most questions that wait for a worker.
        queue_wait_s: longest a question waits for one, seconds.
        command: another program in place of the worker, for tests of its misbehaviour.
    """

    workers: int | None = None
    deadline_s: float = 0.05
    memory_bytes: int = 256 * 1024 * 1024
    queue: int = 1024
    queue_wait_s: float = 1.0
    command: tuple[str, ...] | None = None

    def pool(self) -> PoolSettings:
        """The same for a pool, with defaults filled in."""
        count = self.workers or max(1, (os.cpu_count() or 1) // 2)
        guard = _GUARD_S + _GUARD_FACTOR * self.deadline_s
        command = self.command or worker_command(self.memory_bytes, guard)
        return PoolSettings(command, count, self.deadline_s, self.queue, self.queue_wait_s)
