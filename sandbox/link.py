"""The gateway's end of one supervisor: boxes asked for, and what became of them."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from anyio import CancelScope

from sandbox.frames import Garbage, Message, packed, received

_START_S = 20.0
_END_S = 10.0
_WORDS = 400
# Found beside this very file, whatever else is called sandbox on the machine.
_ROOT = str(Path(__file__).resolve().parents[1])
_PROGRAM = f"import sys; sys.path.insert(0, {_ROOT!r}); from sandbox.supervisor import main; sys.exit(main())"


class Lost(Exception):
    """The supervisor has gone; a box it was running is dead. The text, if any, is for operators."""


class Refused(Exception):
    """The supervisor, or a box, could not be set up. The text is for operators.

    Attributes:
        fix: what would change that, where it is the supervisor that says so.
    """

    def __init__(self, why: str, fix: str | None = None) -> None:
        """Keep both."""
        super().__init__(why)
        self.fix = fix


@dataclass(slots=True, eq=False)
class Link:
    """A running supervisor. Belongs to one event loop."""

    process: Process
    groups: int
    held: tuple[str, ...]
    own_uid: bool
    _writer: asyncio.StreamWriter
    _numbers: int = 0
    _waiting: dict[int, asyncio.Future[Message]] = field(default_factory=dict)
    _listener: asyncio.Task[None] | None = None

    @classmethod
    async def started(cls, start: Mapping[str, Any]) -> Self:
        """Start a supervisor and wait until it is ready.

        Raises:
            Refused: it says that it cannot work here.
            Lost: it ended or hung before it could say anything.
            OSError: the system cannot start it.
        """
        with os.fdopen(os.memfd_create("words", os.MFD_CLOEXEC), "w+b") as words:
            process, reader, writer = await _spawned(words.fileno())
            try:
                head = await _greeted(reader, writer, start)
                link = cls(process, int(head["groups"]), tuple(head["held"]), bool(head["own_uid"]), writer)
            except BaseException as error:
                writer.close()
                _killed(process)
                with CancelScope(shield=True):
                    await process.wait()
                if isinstance(error, Lost):
                    raise Lost(_last(words)) from None
                raise
        link._listener = asyncio.create_task(link._listen(reader))
        return link

    @property
    def alive(self) -> bool:
        """Whether boxes can be asked for."""
        return self._listener is not None and not self._listener.done()

    async def close(self) -> None:
        """Hang up and wait for its end; it kills its boxes first."""
        self._writer.close()
        with CancelScope(shield=True):
            try:
                async with asyncio.timeout(_END_S):
                    await self.process.wait()
            except TimeoutError:
                _killed(self.process)
                await self.process.wait()
            if self._listener is not None:
                await self._listener

    async def run(self, code: bytes, stdin: bytes, limits: Mapping[str, int]) -> Message:
        """One box; where the caller is cancelled it is killed, and gone before this returns.

        Raises:
            Refused: it could not be set up; the code did not run.
            Lost: the supervisor ended meanwhile.
        """
        self._numbers += 1
        number = self._numbers
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if not self.alive:
                raise Lost
            self._writer.write(packed({"op": "run", "id": number, "limits": dict(limits)}, (code, stdin)))
            message: Message = await self._patiently(number, answer)
        finally:
            del self._waiting[number]
        if message.head["op"] == "broken":
            raise Refused(str(message.head["why"]))
        return message

    async def _patiently(self, number: int, answer: "asyncio.Future[Message]") -> Message:
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            # Nothing may go on behind the back of a caller who was told that it ended.
            if self.alive:
                self._writer.write(packed({"op": "kill", "id": number}))
            # Shielded: a cancelled scope cancels every wait inside it again and again.
            with CancelScope(shield=True), suppress(Lost, TimeoutError):
                async with asyncio.timeout(_END_S):
                    await asyncio.shield(answer)
            raise

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(Garbage):
            while (message := await received(reader)) is not None:
                waiting = self._waiting.get(message.head.get("id", 0))
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Lost())


async def _spawned(words: int) -> tuple[Process, asyncio.StreamReader, asyncio.StreamWriter]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await create_subprocess_exec(
            *(sys.executable, "-I", "-c", _PROGRAM),
            stdin=theirs.fileno(),
            stdout=DEVNULL,
            stderr=words,
            env={},
            cwd="/",
            start_new_session=True,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return process, reader, writer


async def _greeted(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: Mapping[str, Any]
) -> Mapping[str, Any]:
    writer.write(packed({"op": "start", **start}))
    async with asyncio.timeout(_START_S):
        message = await received(reader)
    head = {} if message is None else message.head
    if head.get("op") == "failed":
        raise Refused(str(head.get("why")), str(head.get("fix")))
    if head.get("op") != "ready":
        raise Lost
    return head


def _last(words: BinaryIO) -> str:
    words.seek(0)
    lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:_WORDS] if lines else ""


def _killed(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
