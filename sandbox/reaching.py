"""Folders that another user id can reach by name, though it may not walk the way there. Standard library only.

Boxes of a root gateway run under user ids of their own. What they are given lies where it lies, below somebody's home
perhaps; so it is mounted once more in a place of the keeper's own mount namespace, which ends with it.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 2, 4, 4096, 16384, 1 << 18
_LIBC = ctypes.CDLL(None, use_errno=True)


def reachable(sources: Sequence[str], place: Path) -> list[str]:
    """Where each of ``sources`` (folders or files) can be reached; themselves where this process is not root.

    ``place`` is a folder of root's, over which they are mounted.

    Raises:
        OSError: one of them is not there, or cannot be mounted.
    """
    is_able = os.geteuid() == 0 and bool(sources) and _own_mounts()
    # Opened in that namespace: what is of another one cannot be mounted in it.
    held = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    try:
        if not is_able:
            return list(sources)
        place.mkdir(0o700, exist_ok=True)
        _mount("tmpfs", str(place), "tmpfs", _NOSUID | _NODEV, b"mode=755,size=1m")
        return [_mounted(source, place / str(number)) for number, source in enumerate(held)]
    finally:
        for source in held:
            os.close(source)


def _own_mounts() -> bool:
    # A root without the privilege, as in some containers, gives what other users can reach anyway.
    if _LIBC.unshare(_CLONE_NEWNS) != 0:
        if ctypes.get_errno() == errno.EPERM:
            return False
        raise _failed("unshare")
    _mount("none", "/", None, _REC | _PRIVATE)
    return True


def _mounted(source: int, target: Path) -> str:
    if stat.S_ISDIR(os.fstat(source).st_mode):
        target.mkdir(0o700)
    else:
        target.touch(0o600)
    # By what is held open, not by a name that could lead elsewhere by now.
    _mount(f"/proc/self/fd/{source}", str(target), None, _BIND | _REC)
    return str(target)


def _mount(source: str, target: str, kind: str | None, flags: int, data: bytes | None = None) -> None:
    names = (source.encode(), target.encode(), None if kind is None else kind.encode())
    if _LIBC.mount(*names, ctypes.c_ulong(flags), data) != 0:
        raise _failed(target)


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
