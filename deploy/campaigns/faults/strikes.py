"""What each fault does when it strikes, from inside the gateway's own process but by the system's means only.

Signals, resource limits, other processes' locks and removed files: nothing of the gateway's code is changed.
"""

import asyncio
import os
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.campaigns.faults.plan import Fault
from gateway.adapters.ledger.storage.files import DATABASE as LOG

LOCKED_S = 0.4
GARBLE = "garble"
FROZEN = "frozen"
CREDENTIAL = "api.key"
DATABASE = "books.db"
LOST_DATABASE = "books.gone"


@dataclass(slots=True)
class Scene:
    """What a fault may touch.

    Attributes:
        folder: the run's.
        upstream: process id of the upstream.
        control: the upstream's control pipe.
        leave: makes the caller with this marker leave; None = all of them.
        stop: cancels all calls, as a server does that is told to end.
    """

    folder: Path
    upstream: int
    control: int
    leave: Callable[[str | None], None]
    stop: Callable[[], None]
    _held: list[sqlite3.Connection] = field(default_factory=list)

    def strike(self, fault: Fault, marker: str | None) -> None:
        """Let ``fault`` happen now, to the call with ``marker`` where it is about one."""
        match fault:
            case Fault.KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            case Fault.STOPPED:
                self.stop()
            case Fault.CLIENT_GONE:
                self.leave(marker)
            case Fault.POLICY_KILLED | Fault.POLICY_FROZEN:
                self._signal(_children("rego/worker.py"), frozen=fault is Fault.POLICY_FROZEN)
            case Fault.UPSTREAM_KILLED | Fault.UPSTREAM_FROZEN:
                self._signal([self.upstream, *_children("faults/peer.py")], frozen=fault is Fault.UPSTREAM_FROZEN)
            case Fault.UPSTREAM_REFUSES:
                with suppress(BrokenPipeError):
                    os.write(self.control, b"refuse\n")
            case _:
                self._spoil_files(fault)

    def close(self) -> None:
        """Let go of what is still locked."""
        while self._held:
            self._held.pop().close()

    def _spoil_files(self, fault: Fault) -> None:
        match fault:
            case Fault.POLICY_GARBAGE:
                (self.folder / GARBLE).touch()
            case Fault.CREDENTIAL_GONE:
                (self.folder / CREDENTIAL).unlink()
            case Fault.DATABASE_GONE:
                (self.folder / DATABASE).rename(self.folder / LOST_DATABASE)
            case Fault.DATABASE_LOCKED:
                self._lock(self.folder / DATABASE)
            case Fault.LEDGER_SLOW:
                self._lock(self.folder / "state" / LOG)
            case _:
                self._fill_the_disk(fault)

    def _fill_the_disk(self, fault: Fault) -> None:
        # Read-only: no byte of any file can be written. Full: nothing can be added to what the log has now.
        log = self.folder / "state" / f"{LOG}-wal"
        _limit(0 if fault is Fault.LEDGER_READONLY else log.stat().st_size)
        if fault is Fault.LEDGER_FULL_A_WHILE:
            asyncio.get_running_loop().call_later(LOCKED_S / 2, _limit, resource.RLIM_INFINITY)

    def _signal(self, processes: list[int], *, frozen: bool) -> None:
        if frozen:  # whoever outlives the gateway must be found again to be ended
            with (self.folder / FROZEN).open("a", encoding="ascii") as file:
                file.writelines(f"{process}\n" for process in processes)
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP if frozen else signal.SIGKILL)

    def _lock(self, database: Path) -> None:
        # As a backup or an operator's shell would: the write lock, held for a while.
        db = sqlite3.connect(database, isolation_level=None, timeout=0.1)
        with suppress(sqlite3.OperationalError):
            db.execute("begin immediate")
        self._held.append(db)
        asyncio.get_running_loop().call_later(LOCKED_S, db.close)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _children(script: str) -> list[int]:
    return [process for process, words in _walk(os.getpid()) if script in words]


def _walk(parent: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                # The command may hold blanks and brackets: fields count from its last bracket. See proc_pid_stat(5).
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == parent:
                    yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
