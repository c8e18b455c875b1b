"""What the process does to itself before it holds secrets."""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def hide_memory() -> bool:
    """Keep other processes of this user from reading the gateway's memory and environment; whether that took.

    Child processes (stdio upstreams) run under the same user id: without this they could read every credential from
    ``/proc``. It does not stop root, nor does it hide files the user may read; see the README's non-guarantees.
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
