"""A child process with one socket, one page of shared memory and nothing else: no environment, no terminal."""

import asyncio
import socket
import struct
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.adapters.rego.frames import MAX_FRAME_BYTES

_BLOCK = 1 << 16
_SIZE = struct.Struct(">I")


@dataclass(slots=True, eq=False)
class Child:
    """Frames to and from a child process. Belongs to one event loop.

    Attributes:
        on_frame: called with the payload of each frame that arrives.
        on_gone: called once, when the other end closed, broke the framing or was killed here.
    """

    process: Process
    on_frame: Callable[[bytes], None]
    on_gone: Callable[[], None]
    _socket: socket.socket
    _loop: asyncio.AbstractEventLoop
    _received: bytearray = field(default_factory=bytearray)
    _unsent: bytearray = field(default_factory=bytearray)
    _open: bool = True

    @classmethod
    async def spawn(
        cls, command: Sequence[str], page: int, on_frame: Callable[[bytes], None], on_gone: Callable[[], None]
    ) -> "Child":
        """Start ``command`` with the socket as its standard input and output; its last argument is descriptor ``page``.

        Raises:
            OSError: the system cannot start it.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # Its own session: an interrupt typed at the gateway's terminal is not for the worker.
                process = await create_subprocess_exec(
                    *command,
                    str(page),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(page,),
                )
        except BaseException:
            ours.close()
            raise
        ours.settimeout(0)
        loop = asyncio.get_running_loop()
        child = cls(process, on_frame, on_gone, ours, loop)
        loop.add_reader(ours, child.receive)
        return child

    @property
    def is_open(self) -> bool:
        """Whether the process can still be talked to."""
        return self._open

    def send(self, data: bytes) -> None:
        """Send whole frames; what the socket does not take at once follows when it can."""
        if not self._open:
            return
        if self._unsent:
            self._unsent += data
            return
        sent = self._write(data)
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self._socket, self._flush)

    def receive(self) -> None:
        """Take in what has arrived, and hand over each whole frame."""
        try:
            block = self._socket.recv(_BLOCK) if self._open else b""
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if not block:
            self.kill()
            return
        self._received += block
        self._split()

    def kill(self) -> None:
        """End the process now; idempotent."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        with suppress(ProcessLookupError):
            self.process.kill()
        self.on_gone()

    def _split(self) -> None:
        received, at = self._received, 0
        while self._open and len(received) >= at + _SIZE.size:
            (size,) = _SIZE.unpack_from(received, at)
            if size > MAX_FRAME_BYTES:
                self.kill()
                return
            end = at + _SIZE.size + size
            if len(received) < end:
                break
            self.on_frame(bytes(received[end - size : end]))
            at = end
        del received[:at]

    def _flush(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The other end has gone: the reader finds out and says so.
            return len(data)
