"""The keys of one log: made once, kept in files only their owner may read.

``log.pem`` signs checkpoints, ``payload.kek`` wraps the data keys of payloads, ``pseudonym.key`` turns names into
pseudonyms. ``log.vkey`` is public: what an auditor checks the log with, and best kept somewhere else as well.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from gateway.adapters.ledger.mac import Mac
from gateway.core.tlog import Signer, VerifierKey, is_key_name

KEY_SIZE = 32
LOG_KEY = "log.pem"
LOG_VKEY = "log.vkey"
PAYLOAD_KEK = "payload.kek"
PSEUDONYM_KEY = "pseudonym.key"
_NAMES = (LOG_KEY, PAYLOAD_KEK, PSEUDONYM_KEY, LOG_VKEY)
_MARK_SIZE = 16


class StateRefused(Exception):
    """The state folder cannot be used as it is; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The secrets of one log.

    Attributes:
        signer: signs checkpoints; its name is the log's origin.
        kek: wraps data keys, 32 bytes.
        pseudonym: keys the hashes of names.
    """

    signer: Signer
    kek: bytes = field(repr=False)
    pseudonym: Mac = field(repr=False)

    def mark(self, kind: str, value: str) -> str:
        """Keyed hash of ``value``, hex: the same value of one kind always gives the same mark, and tells no more."""
        digest = self.pseudonym.digest(f"{kind}\0{value}".encode("utf-8", "surrogatepass"))
        return digest[:_MARK_SIZE].hex()


def create_or_load(folder: Path, origin: str) -> LogKeys:
    """The keys in ``folder``; made where there are none at all.

    ``origin`` names the log in its checkpoints, without scheme, as in ``gateway.example.org/log``.

    Raises:
        StateRefused: some are missing, malformed, readable by others, or of another origin.
    """
    if not is_key_name(origin):
        raise StateRefused(f"the log's origin {origin!r} may not hold white space or '+'")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # All or nothing: a lost key must never be replaced silently beside a log that was written with it.
    if not any((folder / name).exists() for name in _NAMES):
        _create(folder, origin)
    _put_in_place(folder)
    return _load(folder, origin)


def load_vkey(path: Path) -> VerifierKey:
    """The public key in a ``log.vkey`` file.

    Raises:
        StateRefused: missing or malformed.
    """
    try:
        return VerifierKey.parse(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise StateRefused(f"the log's public key {path} cannot be read: {error}") from None


def _create(folder: Path, origin: str) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(_new(folder, LOG_KEY), pem, 0o600)
    _write(_new(folder, PAYLOAD_KEK), os.urandom(KEY_SIZE), 0o600)
    _write(_new(folder, PSEUDONYM_KEY), os.urandom(KEY_SIZE), 0o600)
    _write(_new(folder, LOG_VKEY), (Signer(origin, private).key.text + "\n").encode(), 0o644)


def _put_in_place(folder: Path) -> None:
    # Only once all of them are on disk: who is killed while making them begins anew, who is killed here goes on here.
    for name in _NAMES:
        if _new(folder, name).exists() and not (folder / name).exists():
            try:
                _new(folder, name).rename(folder / name)
            except OSError as error:
                raise StateRefused(f"the key {folder / name} cannot be written: {error.strerror}") from None


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be written: {error.strerror}") from None


def _load(folder: Path, origin: str) -> LogKeys:
    try:
        private = load_pem_private_key(_secret(folder / LOG_KEY), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StateRefused(f"the key {folder / LOG_KEY} is no PEM private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise StateRefused(f"the key {folder / LOG_KEY} is no Ed25519 key")
    signer = Signer(origin, private)
    _check_public(folder, signer)
    return LogKeys(signer, _symmetric(folder / PAYLOAD_KEK), Mac(_symmetric(folder / PSEUDONYM_KEY)))


def _check_public(folder: Path, signer: Signer) -> None:
    public = load_vkey(folder / LOG_VKEY)
    if public.name != signer.name:
        raise StateRefused(f"this log's origin is {public.name}, not {signer.name}: an origin cannot be changed")
    if public.text != signer.key.text:
        raise StateRefused(f"{folder / LOG_VKEY} is not the public half of {folder / LOG_KEY}")


def _secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise StateRefused(f"the key {path} can be read by others: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be read: {error.strerror}; restore it from a backup") from None


def _symmetric(path: Path) -> bytes:
    key = _secret(path)
    if len(key) != KEY_SIZE:
        raise StateRefused(f"the key {path} is not {KEY_SIZE} bytes long; restore it from a backup")
    return key
