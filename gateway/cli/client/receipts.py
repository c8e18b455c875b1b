"""What connecting changed, kept in the state folder so that it can be taken back: a folder each, its owner's only."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.cli.screen import Failed

_RECEIPT: Final = "receipt.json"
_NUMBERED: Final = re.compile(r"(\d{4,})-.*")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SectionKept(_Part):
    """An object of servers as it was, and as it was left.

    ``was`` is None where there was none.
    """

    path: list[str]
    was: dict[str, Any] | None
    left: dict[str, Any]


class FileKept(_Part):
    """A file that was changed.

    ``backup`` names the copy beside the receipt, None = there was no file. ``before`` and ``after`` are SHA-256 in hex.
    """

    path: str
    backup: str | None
    before: str | None
    after: str
    mode: int
    sections: list[SectionKept] = []


class Receipt(_Part):
    """One connection.

    ``block`` was appended to the settings (after ``opening``, where they were made). ``added`` are its upstreams,
    ``used`` all that the client's servers became. ``secrets`` are files, by SHA-256 of what was put in.
    """

    client: str
    files: list[FileKept]
    settings: str
    block: str
    opening: Annotated[str | None, Field(description="The text of new settings, before the block.")] = None
    added: list[str]
    used: list[str]
    secrets: dict[str, str]


def digest(content: bytes | None) -> str | None:
    """SHA-256 in hex; None for a file that is not there."""
    return None if content is None else hashlib.sha256(content).hexdigest()


@contextmanager
def alone(state: Path) -> Iterator[Path]:
    """The folder of receipts, for this process alone.

    Raises:
        Failed: it cannot be made.
    """
    folder = state / "clients"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failed(f"{folder} cannot be used ({error.strerror})", "correct its permissions") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)


def keep(folder: Path, receipt: Receipt, backups: dict[str, bytes]) -> Path:
    """Write the receipt and the files' copies it names, all of it on disk before this returns; its folder.

    Raises:
        Failed: it cannot be written.
    """
    number = max((at for at, _ in _all(folder)), default=0) + 1
    label = receipt.client if "/" not in receipt.client else "file"
    own, fresh = folder / f"{number:04}-{label}", folder / ".new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name, content in backups.items():
            _write(fresh / name, content)
        _write(fresh / _RECEIPT, receipt.model_dump_json(indent=1).encode())
        fresh.rename(own)  # a receipt is there whole, or not at all
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise Failed(f"{own} cannot be written ({error.strerror})", "free space, or correct its permissions") from None
    return own


def kept(folder: Path) -> list[tuple[Path, Receipt]]:
    """All receipts, oldest first.

    Raises:
        Failed: one cannot be read.
    """
    return [(own, _read(own)) for _, own in _all(folder)]


def put_aside(own: Path, changed: dict[str, bytes]) -> Path | None:
    """Keep files that will be overwritten by force, where this returns.

    Raises:
        Failed: they cannot be kept.
    """
    if not changed:
        return None
    number = 1
    while (left := own.with_name(f"undone-{own.name}{'' if number == 1 else f'-{number}'}")).exists():
        number += 1  # of an undo that was killed: nobody has read them yet
    try:
        left.mkdir(mode=0o700)
        for name, content in changed.items():
            _write(left / name, content)
    except OSError as error:
        shutil.rmtree(left, ignore_errors=True)
        raise Failed(f"{left} cannot be written ({error.strerror})", "free space, or correct its permissions") from None
    return left


def forget(own: Path) -> None:
    """Remove a receipt; half of one never has its name."""
    gone = own.with_name(".gone")
    shutil.rmtree(gone, ignore_errors=True)
    own.rename(gone)
    shutil.rmtree(gone)


def _all(folder: Path) -> list[tuple[int, Path]]:
    found = [(match, own) for own in folder.iterdir() if (match := _NUMBERED.fullmatch(own.name)) is not None]
    return sorted((int(match[1]), own) for match, own in found)


def _read(own: Path) -> Receipt:
    path = own / _RECEIPT
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Failed(f"{path} cannot be read ({error.strerror})", f"copies of your files lie in {own}") from None
    except (ValidationError, json.JSONDecodeError):
        raise Failed(f"{path} is damaged", f"copies of your files lie in {own}") from None


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
