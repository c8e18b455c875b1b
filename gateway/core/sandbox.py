"""What the gateway asks of a sandbox: boxes under caps that were seen to bite.

One box for one piece of code (the runner is ``sandbox.runner``), and boxes for programs that go on, such as servers
that are reached by pipes (``sandbox.served``). Connectors know this contract only.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Capability(StrEnum):
    """What a host may be unable to hold. A policy may accept that one of these is missing, knowingly."""

    MEMORY = "memory"
    PIDS = "pids"
    CPU = "cpu"
    # Files without content: each takes the kernel's memory, and no size of a folder bounds how many there are.
    INODES = "inodes"
    SECCOMP = "seccomp"


# Named as missing where there is no usable sandbox at all; no policy can accept that.
NO_SANDBOX = "sandbox"


class Ended(StrEnum):
    """How a box came to its end: by itself, or killed because a cap was passed or somebody asked for it."""

    EXITED = "exited"
    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    OUTPUT = "output"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class BoxLimits:
    """The caps of one box.

    Attributes:
        memory_mb: memory of all its processes and its files together, MiB.
        pids: processes and threads at a time.
        cpu_ms: processor time of all its processes together, milliseconds.
        wall_ms: time from start to end, milliseconds.
        output_bytes: standard output and standard error together.
        work_mb: files below ``/work``, and as much again below ``/tmp``, MiB.
    """

    memory_mb: int = 256
    pids: int = 32
    cpu_ms: int = 10_000
    wall_ms: int = 20_000
    output_bytes: int = 256 * 1024
    work_mb: int = 32


@dataclass(frozen=True, slots=True)
class Spent:
    """What a box used.

    Attributes:
        wall_ms: from start to end, milliseconds.
        cpu_ms: processor time of all its processes, milliseconds; None where the host does not count it.
        memory_kb: most memory at a time, KiB; None where the host does not count it.
    """

    wall_ms: int
    cpu_ms: int | None = None
    memory_kb: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of a box.

    Attributes:
        ended: how it ended.
        exit_code: of the code, 128 + N where signal N ended it; None where the box was killed.
        stdout: what it wrote, at most up to its cap.
        stderr: the same.
        spent: what it used.
    """

    ended: Ended
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    spent: Spent


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this host's sandbox was seen to hold when it was tried.

    Attributes:
        backend: which sandbox with its version, or None where no box can be started.
        held: how each capability is held (``cgroup1``, ``cgroup2``, ``rlimit``, ``bpf``), by its name.
        missing: what is not held, in a stable order; ``("sandbox",)`` where there is no backend.
        fixes: for each missing one, what would give it, in words for operators.
        seccomp: SHA-256 of the system call filter, hex, or None.
        own_uid: whether boxes run under a user id of the host that is not the gateway's own.
    """

    backend: str | None
    held: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    fixes: Mapping[str, str] = field(default_factory=dict)
    seccomp: str | None = None
    own_uid: bool = False

    @property
    def usable(self) -> bool:
        """Whether boxes can be started at all."""
        return self.backend is not None


class SandboxRunner(Protocol):
    """Runs code in boxes, one box a run, destroyed in any case.

    Failure mode, closed: what cannot be isolated as asked is not run. A caller that is cancelled leaves no box behind.
    """

    async def probe(self) -> Capabilities:
        """What the sandbox holds on this host now, as it was tried at its start; a broken one is not ``usable``."""

    async def run(self, code: bytes, stdin: bytes, limits: BoxLimits, admitted: Capabilities) -> Outcome:
        """Run Python source text in a box of its own and wait until everything in it is dead.

        ``admitted``: what the caller found good enough; a sandbox that by now lacks more runs nothing.

        Raises:
            Unavailable: no such box could be had; the code did not run.
            ToolFailed: the box was lost while the code ran.
        """


@dataclass(frozen=True, slots=True)
class Enclosure:
    """What a program that goes on may see and use.

    Attributes:
        read: folders and files it may read besides the system's programs, absolute.
        write: folders it may write, absolute; nothing bounds what it puts there.
        network: whether it has the host's network, all of it; otherwise it has none.
        memory_mb: memory of all its processes and of its temporary files together, MiB.
        pids: processes and threads at a time.
        open_files: files that each process may have open.
        tmp_mb: temporary files, MiB.
        accept_missing: names of capabilities that the host may be unable to hold.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    memory_mb: int = 512
    pids: int = 64
    open_files: int = 1024
    tmp_mb: int = 64
    accept_missing: tuple[str, ...] = ()

    def lacks(self, seen: Capabilities) -> tuple[str, ...]:
        """What a host does not hold, and the settings do not accept; empty = such a box may be made there."""
        accepted: Collection[str] = self.accept_missing if seen.usable else ()
        return tuple(name for name in seen.missing if name not in accepted)


@dataclass(frozen=True, slots=True)
class Program:
    """A program to start.

    Attributes:
        argv: program and arguments; a bare name is looked for in the ``PATH`` of ``env``.
        env: its whole environment.
        cwd: its working folder; None = any.
        inherited: open files that it has under the same numbers.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    inherited: Sequence[int] = ()


class NoBox(Exception):
    """The program is not started, as no such box can be had.

    Attributes:
        cause: stable name of why; the text is for operators.
    """

    def __init__(self, cause: str, why: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.cause = cause


class Boxing(Protocol):
    """Starts programs in boxes that live as long as they do.

    Failure mode, closed: what cannot be boxed as asked is not started. A box ends with the process that started it.
    """

    def boxed(self, program: Program) -> AbstractContextManager[Program]:
        """What to start instead: it becomes the program in a box, on the same standard streams.

        Within the bracket only. It ends with 125 where the box could not be made, with 127 where the program could not
        be started in it, saying why on its standard error.

        Raises:
            NoBox: nothing is to be started.
        """
