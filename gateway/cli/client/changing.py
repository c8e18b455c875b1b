"""Several files changed together: all of them, or none."""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.screen import Failed, Misconfigured

_MOST_BYTES = 16 * 1024 * 1024  # Claude Code keeps much more than servers in its file


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was found.

    Attributes:
        path: the file itself, with no symbolic link on the way.
        content: its bytes; None = it is not there.
        mode: permission bits, for one that is not there those it gets.
    """

    path: Path
    content: bytes | None
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a file.

    Attributes:
        was: as it was found.
        content: its new bytes; None = it is taken away.
    """

    was: Found
    content: bytes | None


def look(path: Path) -> Found:
    """The file at ``path``, links followed.

    Raises:
        Misconfigured: it is no regular file, too long, or cannot be read.
    """
    try:
        real = path.resolve(strict=path.is_symlink())
        if not real.exists():
            return Found(real, None)
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                raise Misconfigured(f"{path} is no regular file of at most 16 MiB", "name another file")
            return Found(real, file.read(), stat.S_IMODE(status.st_mode))
    except FileNotFoundError:
        raise Misconfigured(f"{path} is a link that leads nowhere", "remove it, or make what it names") from None
    except (OSError, RuntimeError) as error:  # a loop of links is the latter
        raise Misconfigured(f"{path} cannot be read ({_words(error)})", "correct its permissions") from None


def change(changes: Sequence[Change]) -> None:
    """Carry out all of ``changes``; each file is replaced whole, so no reader ever sees half of one.

    Raises:
        Failed: nothing was changed, and why.
    """
    staged: list[tuple[Change, Path]] = []
    done: list[Change] = []
    try:
        for one in changes:
            fresh = _staged(one)
            staged.append((one, fresh))
        for one in changes:
            _require_unchanged(one.was)
        for one, fresh in staged:
            _put(one, fresh)
            done.append(one)
    except OSError as error:
        _back(done)
        raise Failed(
            f"{error.filename2 or error.filename} cannot be written ({_words(error)}); nothing was changed",
            "correct the permissions of the file and of its folder",
        ) from None
    except Failed:
        _back(done)
        raise
    finally:
        for _, fresh in staged:
            fresh.unlink(missing_ok=True)


def sweep(paths: Iterable[Path]) -> None:
    """Remove what a process that was killed has left beside these files."""
    for path in paths:
        with suppress(OSError):  # whoever changes the file next meets it
            _fresh(path).unlink(missing_ok=True)


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.ostiary-new")


def _staged(one: Change) -> Path:
    """The new content, on disk beside the file."""
    path = one.was.path
    fresh = _fresh(path)
    if one.content is None:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(path))
        return fresh
    if one.was.content is not None and not os.access(path, os.W_OK):
        raise PermissionError(13, "it is write-protected", str(path))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(one.content)
        file.flush()
        if one.was.content is not None:
            _keep_owner(file.fileno(), path)
        os.fchmod(file.fileno(), one.was.mode)
        os.fsync(file.fileno())
    return fresh


def _keep_owner(handle: int, path: Path) -> None:
    owner, ours = path.stat(), os.fstat(handle)
    if (owner.st_uid, owner.st_gid) != (ours.st_uid, ours.st_gid):
        os.fchown(handle, owner.st_uid, owner.st_gid)


def _require_unchanged(was: Found) -> None:
    now = was.path.read_bytes() if was.path.exists() else None
    if now != was.content:
        raise Failed(f"{was.path} has just been changed by another program; nothing was changed", "close it, try again")


def _put(one: Change, fresh: Path) -> None:
    if one.content is None:
        one.was.path.unlink(missing_ok=True)
    else:
        fresh.replace(one.was.path)


def _back(done: Sequence[Change]) -> None:
    for one in reversed(done):
        back = Change(Found(one.was.path, one.content, one.was.mode), one.was.content)
        with suppress(OSError):  # what was done is told all the same
            _put(back, _staged(back))


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or "it cannot be followed"
