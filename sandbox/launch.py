"""From a fork of the supervisor to bubblewrap: what a process gives up on the way. Standard library only.

The order matters: into its groups while it may still write there, away from root, then a mortal bond to the supervisor
(changing the user undoes it), then the descriptors, then the program with an empty environment.
"""

import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_ABOVE = 64  # descriptors move above first, out of the way of the numbers they are to have
_FAILED = 125


@dataclass(frozen=True, slots=True)
class Launch:
    """One program to start.

    Attributes:
        argv: program and arguments.
        descriptors: number in the program: number here; all others are closed.
        members: group files to write oneself into.
        uid: user and group id to become, or None to stay.
    """

    argv: Sequence[str]
    descriptors: Mapping[int, int]
    members: Sequence[str]
    uid: int | None


def launched(launch: Launch) -> int:
    """Fork and start it; the process id. Where it cannot be started it ends with 125 and says why on descriptor 2."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _enter(launch, parent)
    except BaseException as error:  # noqa: BLE001 - whatever it was: a copy of the supervisor must never go on
        os.write(launch.descriptors[2], f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
    finally:
        os._exit(_FAILED)


def _enter(launch: Launch, parent: int) -> None:
    os.setsid()
    os.umask(0o077)
    for ignored in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    for member in launch.members:
        with open(member, "wb") as file:  # noqa: PTH123 - between fork and exec the least machinery is the best
            file.write(b"0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if launch.uid is not None:
        os.setgroups([])
        os.setresgid(launch.uid, launch.uid, launch.uid)
        os.setresuid(launch.uid, launch.uid, launch.uid)
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        raise OSError(ctypes.get_errno(), "the supervisor is gone")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - between fork and exec the least machinery
        with suppress(OSError):  # the listing's own descriptor is closed by now
            os.set_inheritable(int(name), False)  # noqa: FBT003 - the standard library's signature
    above = max(_ABOVE, *launch.descriptors) + 1
    high = {number: fcntl.fcntl(here, fcntl.F_DUPFD_CLOEXEC, above) for number, here in launch.descriptors.items()}
    for number, here in high.items():
        os.dup2(here, number, inheritable=True)
    os.execve(launch.argv[0], list(launch.argv), {})  # noqa: S606 - no shell is wanted
