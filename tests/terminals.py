"""A person at a terminal: a command on a pseudo-terminal, what its screen shows, and the keys that are pressed."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from deploy.recording.terminal import Terminal

PATIENCE_S = 60.0


@dataclass
class Sitting:
    """A command that runs on a terminal.

    Attributes:
        process: the command.
        raw: everything it wrote.
        before: the terminal's modes before it began.
    """

    process: "subprocess.Popen[bytes]"
    ours: int
    theirs: int
    before: list[Any]
    terminal: Terminal
    raw: bytes = b""
    _held: bytes = field(default=b"", repr=False)

    def see(self, *words: str) -> str:
        """The screen as soon as it shows all these words."""
        return self.see_when(lambda screen: all(word in screen for word in words), words)

    def see_when(self, look: Callable[[str], bool], wanted: object = "") -> str:
        """The screen as soon as ``look`` says so."""
        deadline = time.monotonic() + PATIENCE_S
        while not look(screen := "\n".join(self.terminal.screen())):
            assert time.monotonic() < deadline, f"never seen: {wanted}\n{screen}"
            assert self._read(), f"ended before it was seen: {wanted}\n{screen}"
        return screen

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the window."""
        self.terminal = Terminal(columns, lines)
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)  # the kernel tells only whose controlling terminal this is

    def end(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it did not end"
            self._read()
        while self._read(0.0):
            pass
        return self.process.returncode

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was: modes, cursor, screen, pastes."""
        after = termios.tcgetattr(self.theirs)
        left = self.raw.rpartition(b"\x1b[?1049l")
        ends = b"\x1b[?25h" in self.raw and b"\x1b[?2004l" in self.raw and bool(left[1]) and b"\x1b[?" not in left[2]
        return after == self.before and ends

    def _read(self, seconds: float = 0.5) -> bool:
        """Take in what comes; False where nothing came from a command that has ended."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return self.process.poll() is None
        chunk = os.read(self.ours, 65_536)
        self.raw += chunk
        self._held += chunk
        text = self._held.decode("utf-8", "ignore")
        self._held = self._held[len(text.encode()) :]
        self.terminal.feed(text)
        return True


@contextmanager
def sitting(command: Sequence[str], size: tuple[int, int] = (120, 30), **environment: str) -> Iterator[Sitting]:
    """Run ``command`` on a terminal of ``size``; killed at the end where it has not ended."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        before = termios.tcgetattr(theirs)
        whole = {**os.environ, "TERM": "xterm-256color", **environment}
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=whole, start_new_session=True
        ) as process:
            try:
                yield Sitting(process, ours, theirs, before, Terminal(*size))
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)
