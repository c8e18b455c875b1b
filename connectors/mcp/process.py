"""A child process that speaks one JSON message a line: its own session and environment, bounded in every direction.

The kernel ends it with the gateway, however that ends, and it gains no privilege by what it starts. That is all that
holds it, unless it runs in a box.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from anyio import CancelScope, Event, move_on_after

from connectors.mcp.allowance import Allowance
from connectors.mcp.faults import Unreached
from gateway.core.sandbox import Boxing, NoBox, Program

_EOF_GRACE_S: Final = 0.5
_REAP_S: Final = 2.0
_LAST_WORDS_S: Final = 0.5
_LOG_LINE_BYTES: Final = 2048
# Lines within a minute that nobody waits for, a long one counted as several: all of them cost the loop time, and one
# that writes without end would keep it from everybody else.
_MOST_UNASKED: Final = 20_000
_UNASKED_BYTES: Final = 4096
_STDIN, _STDOUT = 0, 1
# Becomes the program. Ends at once where the gateway has died meanwhile: the kernel's bond is made from here on.
_TIED: Final = """
import ctypes, os, resource, sys
for option, value in ((1, 9), (38, 1)):  # killed with its parent; no new privileges
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(option, value, 0, 0, 0) != 0:
        os._exit(1)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
if sys.argv[2] == "no":  # this interpreter's own, which it sets where its environment names no locale
    os.environ.pop("LC_CTYPE", None)
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.stderr.write(f"{sys.argv[3]} cannot be started: {error.strerror}\\n")
    sys.stderr.flush()
os._exit(127)
"""
_NO_BOX, _NOT_FOUND = 125, 127


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.

    Attributes:
        argv: program and arguments; no shell. A bare name is looked for in the ``PATH`` of ``env``.
        env: the child's whole environment; nothing of the gateway's own is handed down.
        cwd: working folder; None = the gateway's.
        max_line_bytes: longest message; a child that sends a longer one is killed, as its stream cannot be followed.
        max_waiting_bytes: most bytes a child may leave unread before it is held to be stuck.
        log_lines: most lines of standard error that are logged of one life of the child; the rest is dropped.
        grace_s: time to go after SIGTERM, seconds, before SIGKILL.
        inherited: open files that it has under the same numbers; of ours it has no other.
        boxing: what puts it into a box; None = it may do what the gateway's user may.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    max_line_bytes: int = 8 * 1024 * 1024
    max_waiting_bytes: int = 8 * 1024 * 1024
    log_lines: int = 1000
    grace_s: float = 2.0
    inherited: Sequence[int] = ()
    boxing: Boxing | None = None


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of the child; none of them may raise.

    Attributes:
        line: called with each line of its output; False = nobody waited for it.
        log: called with each line of its standard error, cut and bounded, and with what is remarkable about it.
        gone: called once when nothing more will come.
    """

    line: Callable[[bytes], bool | None]
    log: Callable[[str], None]
    gone: Callable[[], None]


class Child(asyncio.SubprocessProtocol):
    """A running child.

    Attributes:
        gone: set once nothing more will come of it.
        pid: its process id, and the id of the process group it leads.
    """

    pid: int

    def __init__(self, command: Command, ears: Ears) -> None:
        self.gone = Event()
        self._command = command
        self._ears = ears
        self._exited = Event()
        self._line = bytearray()
        self._noise = bytearray()
        self._logged = 0
        self._unasked = Allowance(_MOST_UNASKED)
        self._stopping = False

    @property
    def start_fault(self) -> str | None:
        """Why it never ran, once it has ended; None = it did, as far as can be told."""
        code = self._process.get_returncode()
        if code == _NO_BOX and self._command.boxing is not None:
            return "box_failed"
        return "cannot_start" if code == _NOT_FOUND else None

    def send(self, message: bytes) -> None:
        """Write one message whole, without waiting; from here on it is out of our hands.

        Raises:
            Unreached: the child is gone or does not read; nothing was written.
        """
        if self.gone.is_set() or self._stdin.is_closing():
            raise Unreached("process_down")
        if self._stdin.get_write_buffer_size() + len(message) > self._command.max_waiting_bytes:
            raise Unreached("process_stuck")
        self._stdin.write(message + b"\n")

    def kill(self) -> None:
        """End the child and all of its process group, now."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to go by closing its input, then by SIGTERM, then make it go; returns when it is gone."""
        self._stopping = True
        self._stdin.close()
        for wait_s, number in ((_EOF_GRACE_S, signal.SIGTERM), (self._command.grace_s, signal.SIGKILL)):
            with move_on_after(wait_s):
                await self._exited.wait()
            if self._exited.is_set():
                break
            self._signal(number)
        with move_on_after(_REAP_S):
            await self._exited.wait()
        self._process.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The child runs."""
        # Casts, because another event loop's transports need not inherit from asyncio's.
        self._process = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._process.get_pipe_transport(_STDIN))
        self.pid = self._process.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Bytes of its output or of its complaints."""
        if fd == _STDOUT:
            self._take(data)
        else:
            self._complain(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """It closed one of its ends."""
        if fd == _STDOUT:
            self._leave()
        elif fd == _STDIN and not self._stopping:
            # Whoever does not listen any more is of no use; but what ends by itself is to say how.
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._kill_if_alive)

    def process_exited(self) -> None:
        """It is no more; its last words may still be on their way."""
        self._exited.set()
        # What it started and left behind goes with it: else it would hold the pipes open, and live on unwatched.
        self.kill()
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._leave)

    def _kill_if_alive(self) -> None:
        if not self._exited.is_set():
            self.kill()

    def _leave(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._ears.gone()

    def _take(self, data: bytes) -> None:
        if self.gone.is_set():
            return
        self._line += data
        if b"\n" in data:
            *lines, rest = bytes(self._line).split(b"\n")
            self._line[:] = rest
            if not all(map(self._heeded, lines)):
                self._give_up("sent too much that nobody waits for; killed")
        if len(self._line) > self._command.max_line_bytes:
            self._give_up("sent a message over the size cap; killed")

    def _heeded(self, line: bytes) -> bool:
        if line.strip() and self._ears.line(line) is not False:
            return True
        return self._unasked.takes(asyncio.get_running_loop().time(), 1 + len(line) // _UNASKED_BYTES)

    def _give_up(self, why: str) -> None:
        self._line.clear()
        self._ears.log(why)
        self.kill()
        self._leave()

    def _complain(self, data: bytes) -> None:
        if self._logged > self._command.log_lines:
            return
        self._noise += data
        *lines, rest = bytes(self._noise).split(b"\n")
        self._noise[:] = rest[:_LOG_LINE_BYTES]
        for line in lines[: max(0, self._command.log_lines - self._logged)]:
            self._ears.log(line[:_LOG_LINE_BYTES].decode("utf-8", "backslashreplace"))
        if self._logged <= self._command.log_lines < self._logged + len(lines):
            self._ears.log("wrote more lines than are logged; the rest is dropped")
        self._logged += len(lines)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def running(command: Command, ears: Ears) -> AsyncIterator[Child]:
    """The child, from its start to its certain end.

    Raises:
        Unreached: it cannot be started.
    """
    loop = asyncio.get_running_loop()
    # Shielded: a start that is cancelled half-way would leave a process that nobody knows of.
    with CancelScope(shield=True):
        try:
            with _start_of(command) as program:
                _, child = await loop.subprocess_exec(
                    lambda: Child(command, ears),
                    *program.argv,
                    env=dict(program.env),
                    cwd=program.cwd,
                    # A signal to the gateway's terminal does not reach it, and its group can be ended as one.
                    start_new_session=True,
                    pass_fds=tuple(program.inherited),
                )
        except NoBox as error:
            ears.log(f"is not started: {error}")
            raise Unreached(error.cause) from error
        except (OSError, ValueError) as error:
            raise Unreached("cannot_start") from error
    try:
        yield child
    finally:
        with CancelScope(shield=True):
            await child.stop()


def _start_of(command: Command) -> AbstractContextManager[Program]:
    cwd = None if command.cwd is None else str(command.cwd)
    program = Program(command.argv, command.env, cwd, command.inherited)
    return _tied(program) if command.boxing is None else command.boxing.boxed(program)


@contextmanager
def _tied(program: Program) -> Iterator[Program]:
    name = program.argv[0]
    path = program.env.get("PATH", os.defpath)
    is_relative = "/" in name and not name.startswith("/")  # to a folder that is its own
    if not is_relative and shutil.which(name, path=path) is None:
        raise FileNotFoundError(name)
    has_locale = "yes" if "LC_CTYPE" in program.env else "no"
    argv = (sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), has_locale, *program.argv)
    yield Program(argv, program.env, program.cwd, program.inherited)
