"""One worker, seen from the gateway."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.adapters.redaction.frames import Done, Garbage, Job, packed, received, unpacked
from gateway.core.needles import Needles
from gateway.core.redact import Bounds

# Found beside this very package, whatever else is called gateway on the machine.
_ROOT = str(Path(__file__).resolve().parents[3])
_PROGRAM = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from gateway.adapters.redaction.worker import main; sys.exit(main())"
)


@dataclass(slots=True, eq=False)
class Link:
    """A worker that does one job at a time. Belongs to one event loop."""

    process: Process
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _numbers: int = 0
    # What it was told and still has to know: a set of values never changes.
    _told: dict[Needles, int] = field(default_factory=dict)

    @classmethod
    async def started(cls, command: Sequence[str] | None = None) -> "Link":
        """Start a worker, with no environment and no open file of ours but its socket.

        Raises:
            OSError: the system cannot start it.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await create_subprocess_exec(
                    *(command or (sys.executable, "-I", "-c", _PROGRAM)),
                    str(os.getpid()),
                    stdin=theirs.fileno(),
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    async def ask(self, body: bytes, needles: Sequence[Needles], bounds: Bounds, *, asks: bool) -> Done:
        """Have one body worked on. Whatever is raised, the worker must not be asked again.

        Raises:
            Garbage, ConnectionError: it is of no use any more.
        """
        self._numbers += 1
        fresh = {
            needle: number for number, needle in enumerate(needles, self._numbers << 16) if needle not in self._told
        }
        self._told = {needle: fresh.get(needle) or self._told[needle] for needle in needles}
        told = {number: tuple(needle.values) for needle, number in fresh.items()}
        job = Job(self._numbers, asks, body, tuple(self._told.values()), told, asdict(bounds))
        self._writer.write(packed(job))
        await self._writer.drain()
        done = unpacked(await received(self._reader), Done)
        if done.number != job.number:
            raise Garbage
        return done

    def kill(self) -> None:
        """End it now; idempotent."""
        self._writer.close()
        with suppress(ProcessLookupError):
            self.process.kill()
