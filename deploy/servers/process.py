"""A server as a child process: dies with its parent, is ended on every exit, says in one line why it did not start."""

import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# A Unix socket's whole path has at most 107 bytes, and servers add their own file name.
MOST_SOCKET_FOLDER = 80
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.02
_END_S = 10.0
_LONGEST = 400
_LINES = 4
_COMPLAINT = re.compile(r"\[ERROR\]|^[Ee]rror|FATAL")
_ORDINARY = ("postgres", "nobody")


class ServerError(Exception):
    """A server cannot be started.

    Attributes:
        fix: what to do about it, one sentence.
    """

    def __init__(self, problem: str, fix: str) -> None:
        """One line: the problem and its fix."""
        super().__init__(f"{problem}: {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a server runs as.

    Attributes:
        uid: user id; None = whoever runs this.
    """

    name: str | None = None
    uid: int | None = None
    gid: int | None = None


def ordinary_owner() -> Owner:
    """An unprivileged user for servers that refuse root; whoever runs this, unless that is root.

    Raises:
        ServerError: this is root, and there is no such user.
    """
    if os.geteuid() != 0:
        return Owner()
    for name in _ORDINARY:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(name, entry.pw_uid, entry.pw_gid)
    raise ServerError("there is no user to run PostgreSQL as", "run this as an ordinary user, or add the user `nobody`")


@contextmanager
def short_folder(prefix: str, owner: Owner | None = None) -> Iterator[Path]:
    """A new folder of mode 0700 with a path short enough for sockets, owned by ``owner``; removed on exit.

    Raises:
        ServerError: the temporary folder has too long a path or cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise ServerError(
            f"no temporary folder can be made ({error.strerror})", "set TMPDIR to a writable one"
        ) from None
    try:
        if len(os.fsencode(folder)) > MOST_SOCKET_FOLDER:
            raise ServerError(f"the path {folder} is too long for sockets", "set TMPDIR to a short one, such as /tmp")
        if owner is not None and owner.uid is not None and owner.gid is not None:
            os.chown(folder, owner.uid, owner.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Server:
    """What to run.

    Attributes:
        name: for messages.
        command: the server itself, no wrapper: signals reach it directly.
        log: file its output is appended to.
        owner: whom it runs as.
        stop: signal that ends it in order, also when the parent dies.
        environment: its whole environment.
    """

    name: str
    command: Sequence[str]
    log: Path
    owner: Owner = Owner()
    stop: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    """A started server.

    Attributes:
        process: the server process.
    """

    server: Server
    process: "subprocess.Popen[bytes]"

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for ``ready``.

        Raises:
            ServerError: it ended or was not ready in time; its last words are in the message.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise ServerError(f"{self.server.name} ended at once ({self._last_words()})", "see what it says")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.server.name} was not ready in {seconds:.0f} s", "is the machine overloaded?")
            time.sleep(_LOOK_S)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def _last_words(self) -> str:
        lines = self.server.log.read_text("utf-8", "replace").strip().splitlines()
        first = next((at for at, line in enumerate(lines) if _COMPLAINT.search(line)), len(lines) - 1)
        said = " ".join(" ".join(lines[max(0, first) : first + _LINES]).split())
        return said[:_LONGEST] or f"exit code {self.process.returncode}"


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """The server as a child process; ended on exit, and with its parent. Call it from a thread that lives on.

    Raises:
        ServerError: it cannot be executed.
    """
    preexec = _dying_with(os.getpid(), server.stop)
    try:
        with server.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                list(server.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(server.environment),
                cwd="/",
                user=server.owner.uid,
                group=server.owner.gid,
                extra_groups=[] if server.owner.uid is not None else None,
                preexec_fn=preexec,  # noqa: PLW1509 - two system calls, no lock taken
                start_new_session=True,  # an interrupt of the terminal is the parent's to handle
            )
    except (OSError, subprocess.SubprocessError) as error:
        fix = f"{server.command[0]} must be there and executable for {server.owner.name or 'this user'}"
        raise ServerError(f"{server.name} cannot be started ({error})", fix) from None
    started = Running(server, process)
    try:
        yield started
    finally:
        _end(started)


def _end(started: Running) -> None:
    if started.process.poll() is None:
        started.process.send_signal(started.server.stop)
    try:
        started.process.wait(_END_S)
    except subprocess.TimeoutExpired:
        started.kill()


def _dying_with(parent: int, stop: signal.Signals) -> Callable[[], None] | None:
    # The kernel sends the signal when the parent is gone, also after kill -9. Elsewhere only the exit ends the server.
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(stop), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it was gone before

    return prepare
