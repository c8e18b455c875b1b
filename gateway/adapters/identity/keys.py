"""Key files: Ed25519 private keys in PKCS #8 PEM, readable by their owner only."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MAX_BYTES = 4096


class KeyFileError(Exception):
    """A key file cannot be used.

    Attributes:
        path: the file.
        problem: what is wrong with it.
        fix: what to do about it.
    """

    def __init__(self, path: Path, problem: str, fix: str) -> None:
        """Keep the parts; the message joins them."""
        super().__init__(f"{path}: {problem}; {fix}")
        self.path = path
        self.problem = problem
        self.fix = fix


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and write it to ``path``; see ``write_key``.

    Raises:
        KeyFileError: the file is there already (a key is never overwritten) or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    write_key(path, key)
    return key


def pem(key: Ed25519PrivateKey) -> bytes:
    """A private key as its file holds it."""
    bare = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, bare)


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a key to ``path`` with mode 0600, in a folder made with mode 0700.

    Raises:
        KeyFileError: the file is there already (a key is never overwritten) or cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True)
        fresh.unlink(missing_ok=True)  # left by a process that was killed while it wrote
        # O_EXCL and the mode at creation: there is no moment at which another user could open or plant the file.
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem(key))
            file.flush()
            os.fsync(file.fileno())
        # Whole or not there at all; a link, unlike a rename, replaces no key.
        os.link(fresh, path)
        fresh.unlink()
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        if path.exists():
            raise KeyFileError(path, "exists already", "remove it by hand if its tokens may become invalid") from None
        raise KeyFileError(path, f"cannot be written ({error.strerror})", "make its folder writable") from None


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        KeyFileError: missing, readable or writable by others, not a regular file, or not an Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(path, "is no private key in PEM form", "restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, "is no Ed25519 key", "restore it from a backup")
    return key


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileError(path, "does not exist", "create it with `ostiary init` or `ostiary up`") from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be read ({error.strerror})", "check owner and mode") from None
    try:
        _check(path, os.fstat(handle))  # the open file, not the name: what is checked is what is read
        return os.read(handle, _MAX_BYTES)
    finally:
        os.close(handle)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(path, "is no regular file", "replace it")
    if status.st_mode & 0o077:
        raise KeyFileError(path, "can be opened by other users", f"chmod 600 {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(path, "belongs to another user", "check its owner")
