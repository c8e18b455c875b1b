"""Pipes and processes as the supervisor's loop sees them. Standard library only."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 1 << 16


@dataclass(slots=True, eq=False)
class Stream:
    """The reading end of a pipe; ``closed`` once nobody holds the other end."""

    text: bytearray = field(default_factory=bytearray)
    closed: bool = False


@contextmanager
def reading(descriptor: int, changed: Callable[[], None]) -> Iterator[Stream]:
    """Read ``descriptor`` as data comes, calling ``changed`` each time; closes it."""
    stream, loop = Stream(), asyncio.get_running_loop()

    def read() -> None:
        try:
            block = os.read(descriptor, _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        stream.text += block
        if not block:
            stream.closed = True
            loop.remove_reader(descriptor)
        changed()

    loop.add_reader(descriptor, read)
    try:
        yield stream
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@dataclass(slots=True, eq=False)
class Process:
    """A process by a descriptor that is its own for ever, unlike its number."""

    pid: int
    descriptor: int
    over: bool = False


@contextmanager
def watching(pid: int, changed: Callable[[], None]) -> Iterator[Process]:
    """Watch a process, calling ``changed`` when it has ended.

    Raises:
        ProcessLookupError: it has ended and was waited for.
    """
    process, loop = Process(pid, os.pidfd_open(pid)), asyncio.get_running_loop()

    def end() -> None:
        process.over = True
        loop.remove_reader(process.descriptor)
        changed()

    loop.add_reader(process.descriptor, end)
    try:
        yield process
    finally:
        loop.remove_reader(process.descriptor)
        os.close(process.descriptor)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None where it is gone."""
    try:
        status = Path("/proc", str(pid), "status").read_text()
    except OSError:
        return None
    found = [line for line in status.splitlines() if line.startswith("PPid:")]
    return int(found[0].split()[1]) if found else None


def memory(text: bytes, stack: ExitStack) -> int:
    """A file in memory that holds ``text`` and that nobody can change; closed by ``stack``."""
    descriptor = os.memfd_create("box", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    view = memoryview(text)
    while view:
        view = view[os.write(descriptor, view) :]
    seal(descriptor)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def seal(descriptor: int) -> None:
    """Make a file in memory unchangeable; where the kernel has no seals it stays the box's own copy anyway."""
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
