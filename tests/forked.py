"""Our commands as processes forked from one that has imported the gateway: the imports are paid once a run of tests.

Such a process is as real as one that was started anew (its own process id, environment, memory, sockets and files; it
is killed like any other), but ``/proc`` shows the command line and the first environment of the process it was forked
from. Tests of the start itself (``test_up.py``, ``test_client_bridge.py``, the kill campaign, the hunt for secrets in
``/proc``) and commands whose environment speaks to the interpreter run ``python -m gateway``.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from gateway.cli.root import main

# Read by the interpreter or a library before any code of ours runs.
_EARLY = ("PYTHON", "SSL_", "OPENSSL_", "LD_", "MALLOC_")
_HERE = {name: value for name, value in os.environ.items() if name.startswith(_EARLY)}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


class _Passed:
    """An open file that the new process gets under a number of its own."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detached, (DupFd(self._number),)


def _detached(passed: Any) -> int:
    return int(passed.detach())


class Forked:
    """A command that runs, with what tests use of ``subprocess.Popen``.

    Attributes:
        stdout: reads what it prints, where that is a pipe.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, out: IO[Any] | None, err: IO[Any]
    ) -> None:
        self.args = tuple(words)
        self.stdout: IO[bytes] | None = None
        reading, writing = os.pipe() if out is None else (None, os.dup(out.fileno()))
        given = (self.args, dict(environment), str(folder), _Passed(writing), _Passed(err.fileno()))
        self._process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        try:
            self._process.start()
        finally:
            os.close(writing)
        if reading is not None:
            self.stdout = os.fdopen(reading, "rb")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, below zero where a signal ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended, at most ``timeout`` seconds from now."""
        self._process.join(timeout)
        if (code := self.returncode) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, where it still runs."""
        if self.poll() is None:
            # The fork server reaps it first and says so a moment later; until then it is gone and has no exit code.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """End it, cleanly."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, now."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stdout is not None:
            self.stdout.close()
        self.wait()


def fit(environment: Mapping[str, str]) -> bool:
    """Whether a forked process can have this environment: it has been through its interpreter's start before."""
    return {name: value for name, value in environment.items() if name.startswith(_EARLY)} == _HERE


def ended(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """``ostiary WORDS``, run to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with Forked(words, environment, folder, out, err) as running:
            code = running.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(words), code, *said)


def _run(words: Sequence[str], environment: Mapping[str, str], folder: str, out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's whole life
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["ostiary", *words]
    main()
