"""User ids of the host for boxes: one box at a time under each. Standard library only; runs in the supervisor."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CLAIMS = Path("/run/ostiary")
_UIDS = 64


class NoRoom(Exception):
    """There are not so many user ids.

    Attributes:
        fix: what would change that.
    """

    def __init__(self, why: str, fix: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.fix = fix


@dataclass(slots=True)
class Slots:
    """The free ones; where there is no root, the own user for all.

    A claim is a locked file, which the kernel unlocks whatever happens, so that two gateways on one machine never use
    the same id. Its folder is root's alone: what anybody may take, anybody may take away.
    """

    free: list[int | None]
    _claims: list[int] = field(default_factory=list)

    @classmethod
    def claimed(cls, count: int, first: int, folder: Path = CLAIMS) -> "Slots":
        """``count`` slots; as root with ids from ``first`` on under which nobody runs.

        Raises:
            NoRoom: there are not so many free ids.
            OSError: they cannot be claimed.
        """
        if os.geteuid() != 0:
            return cls([None] * count)
        slots, place, taken = cls([]), _opened(folder), set(_running())
        try:
            for uid in range(first, first + _UIDS):
                if len(slots.free) < count and uid not in taken:
                    slots._claim(uid, place)
        finally:
            os.close(place)
        if len(slots.free) < count:
            why = f"only {len(slots.free)} of {count} user ids from {first} on are free: others run under them"
            raise NoRoom(why, "set [sandbox] first_uid to where 64 user ids are nobody's, or slots to fewer")
        return slots

    def _claim(self, uid: int, folder: int) -> None:
        how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        claim = os.open(f"uid-{uid}", how, 0o600, dir_fd=folder)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
        else:
            self._claims.append(claim)
            self.free.append(uid)


def _opened(folder: Path) -> int:
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(place)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(place)
        raise PermissionError(f"{folder} must be root's alone, of mode 0700")
    return place


def _running() -> Iterator[int]:
    # Every user id that a process has, be it only as the one it may go back to.
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            for line in status.read_text("utf-8", "replace").splitlines():
                if line.startswith("Uid:"):
                    yield from (int(word) for word in line.split()[1:])
