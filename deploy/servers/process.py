"""A server as a child process: dies with its parent, is ended on every exit, says in one line why it did not start."""

import ctypes
import fcntl
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

# A Unix socket's whole path has at most 107 bytes, and servers add their own file name.
MOST_SOCKET_FOLDER = 80
SOCKETS = "run"
# At the end of a folder's name: it is locked as long as it is in use.
_HELD = ".held"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.02
_END_S = 10.0
_LONGEST = 1000
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
def short_folder(prefix: str) -> Iterator[Path]:
    """A new folder of mode 0700 with a path short enough for ``SOCKETS`` in it; removed on exit.

    Whoever is killed leaves one behind: the next start that asks for the same ``prefix`` removes it.

    Raises:
        ServerError: the temporary folder has too long a path or cannot be written.
    """
    _sweep(prefix)
    try:
        folder, lock = _locked(prefix)
    except OSError as error:
        raise ServerError(
            f"no temporary folder can be made ({error.strerror})", "set TMPDIR to a writable one"
        ) from None
    try:
        if len(os.fsencode(folder / SOCKETS)) > MOST_SOCKET_FOLDER:
            raise ServerError(f"the path {folder} is too long for sockets", "set TMPDIR to a short one, such as /tmp")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(prefix: str) -> tuple[Path, int]:
    # The kernel lets go of the lock when this process ends, however it does.
    while True:
        folder = Path(tempfile.mkdtemp(_HELD, prefix))
        with suppress(FileNotFoundError):  # another start swept it before it was locked
            lock = os.open(folder, _FOLDER)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _sweep(prefix: str) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*{_HELD}"):
        with suppress(OSError):  # of others' making, in use, or gone by now
            lock = os.open(left, _FOLDER)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


@dataclass(frozen=True, slots=True)
class Server:
    """What to run.

    Attributes:
        name: for messages.
        command: the server itself, no wrapper: signals reach it directly.
        log: file its output is appended to, in a folder where only whoever runs this may write.
        owner: whom it runs as.
        stop: signal that ends it in order, also when the parent dies.
        environment: its whole environment.
        inherited: descriptors it is to have, by the same numbers.
    """

    name: str
    command: Sequence[str]
    log: Path
    owner: Owner = Owner()
    stop: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Sequence[int] = ()


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
        told = lines[max(0, first) : first + _LINES]
        # What it complained of first is not always what ended it.
        told += lines[max(len(lines) - _LINES, first + _LINES) :]
        said = " ".join(" ".join(told).split())
        return said[:_LONGEST] or f"exit code {self.process.returncode}"


@contextmanager
def handed_over(folder: Path, text: str, owner: Owner | None = None) -> Iterator[BinaryIO]:
    """A file without a name that holds ``text``, for ``owner`` to read as ``/dev/fd/NUMBER``; empty afterwards.

    So a secret is handed over that nobody finds, however this ends. ``folder``: on whose disk it lies.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if owner is not None and owner.uid is not None and owner.gid is not None:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        file.write(text.encode())
        file.seek(0)
        try:
            yield file
        finally:
            file.truncate(0)


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
                pass_fds=server.inherited,
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
