"""The files of secret keys: written so that a crash leaves them whole or not there, read only where nobody else can."""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from gateway.core.tlog import Signer, VerifierKey

LOG_KEY = "log.pem"
_LATER_KEY = re.compile(r"log-[0-9a-f]{8}\.pem(\.new)?")


class StateRefused(Exception):
    """The state folder cannot be used as it is; the message says what is wrong and what to do."""


def read_signers(folder: Path, first: VerifierKey) -> Sequence[Signer]:
    """The signing keys that are here: the log's first one in ``log.pem``, unless it was retired, and later ones.

    Raises:
        StateRefused: there is none, or one is malformed, of another log, or readable by others.
    """
    later = [path for path in sorted(folder.iterdir()) if _LATER_KEY.fullmatch(path.name) and path.suffix == ".pem"]
    found = []
    if (folder / LOG_KEY).exists() or not later:
        signer = _signer(folder / LOG_KEY, first.name)
        if signer.key.text != first.text:
            raise StateRefused(f"{folder / 'log.vkey'} is not the public half of {folder / LOG_KEY}")
        found.append(signer)
    for path in later:
        signer = _signer(path, first.name)
        if path.name != file_name(signer.key):
            raise StateRefused(f"the key in {path} is another one than its name says; restore it from a backup")
        found.append(signer)
    return found


def write_signer(folder: Path, private: Ed25519PrivateKey, signer: Signer) -> None:
    """Put a later key in place, durably.

    Raises:
        StateRefused: it cannot be written.
    """
    path = folder / file_name(signer.key)
    beside = path.with_name(f"{path.name}.new")
    write_durably(beside, pem(private), 0o600)
    try:
        beside.rename(path)
        sync_folder(folder)
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be written: {error.strerror}") from None


def remove(folder: Path, first: VerifierKey, retired: Sequence[VerifierKey]) -> Sequence[str]:
    """Remove the files of signing keys that were retired, and half written ones; returns their names.

    Raises:
        OSError: one cannot be removed.
    """
    names = {LOG_KEY if key == first else file_name(key) for key in retired}
    there = [path for path in folder.iterdir() if path.name == LOG_KEY or _LATER_KEY.fullmatch(path.name)]
    gone = sorted(path for path in there if path.name in names or path.suffix == ".new")
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        sync_folder(folder)
    return [path.name for path in gone]


def file_name(key: VerifierKey) -> str:
    """Name of the file of a later key."""
    return f"log-{key.id.hex()}.pem"


def pem(private: Ed25519PrivateKey) -> bytes:
    """A private key as its file holds it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_durably(path: Path, content: bytes, mode: int) -> None:
    """Write a new file, in place of what is there.

    Raises:
        StateRefused: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be written: {error.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Make renamed and removed files durable.

    Raises:
        OSError: that cannot be done.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> bytes:
    """The bytes of a key file that only its owner may read.

    Raises:
        StateRefused: missing, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise StateRefused(f"the key {path} can be read by others: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be read: {error.strerror}; restore it from a backup") from None


def _signer(path: Path, origin: str) -> Signer:
    try:
        private = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StateRefused(f"the key {path} is no PEM private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise StateRefused(f"the key {path} is no Ed25519 key")
    return Signer(origin, private)
