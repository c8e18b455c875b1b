"""What the process does to itself before it holds secrets and takes calls."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress

_PR_SET_DUMPABLE = 4
_FILES = 65_536


def hide_memory() -> bool:
    """Keep other processes of this user from reading the gateway's memory and environment; whether that took.

    Child processes (stdio upstreams) run under the same user id: without this they could read every credential from
    ``/proc``. It does not stop root, nor does it hide files the user may read; see the README's non-guarantees.
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def allow_files() -> None:
    """Raise the soft limit of open files as far as the hard one allows: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(ValueError, OSError):  # not allowed here: the connection bounds follow what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settle_memory() -> None:
    """What was built at the start stays: the collector need not walk it again and again, and a call makes little."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
