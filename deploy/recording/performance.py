"""A command on a pseudo-terminal of a fixed size, and what it printed."""

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

_CHUNK = 65_536
_PATIENCE_S = 15.0


class Failed(RuntimeError):
    """The command did not end well, so there is nothing worth showing."""


def perform(command: Sequence[str], size: tuple[int, int], seconds: float) -> Iterator[str]:
    """Run ``command`` on a terminal of ``size`` (columns, lines); yields its output as it comes.

    Raises:
        Failed: it exits otherwise than with 0, or not within ``seconds``.
    """
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        process = subprocess.Popen(  # noqa: S603 - whoever records names the command
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=_environment(size), start_new_session=True
        )
    finally:
        os.close(theirs)
    try:
        yield from _output(ours, time.monotonic() + seconds)
        code = process.wait(timeout=seconds)
    finally:
        _end(process)
        os.close(ours)
    if code != 0:
        raise Failed(f"{command[0]} ended with exit code {code}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    # The whole session, politely first: the command may have servers to end.
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)


def _environment(size: tuple[int, int]) -> dict[str, str]:
    ours = {
        "TERM": "xterm-256color",
        "COLUMNS": str(size[0]),
        "LINES": str(size[1]),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    # What would make output differ from machine to machine.
    odd = {"NO_COLOR", "FORCE_COLOR", "COLORTERM", "CLICOLOR", "CLICOLOR_FORCE"}
    return {name: value for name, value in os.environ.items() if name not in odd} | ours


def _output(terminal: int, deadline: float) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Failed("the command does not end")
        if not select.select([terminal], [], [], left)[0]:
            continue
        try:
            chunk = os.read(terminal, _CHUNK)
        except OSError:  # Linux says it so when the last process has closed its end
            return
        if not chunk:
            return
        yield decoder.decode(chunk)
