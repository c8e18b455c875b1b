"""The keys of one log: made once, kept in files only their owner may read.

``log.pem`` signs checkpoints (later ones are in ``log-KEYID.pem``, see ``ring``), ``payload.kek`` wraps the data keys
of payloads, ``pseudonym.key`` turns names into pseudonyms. ``log.vkey`` is the public half of the first signing key:
it is the log's name for ever, what an auditor checks the log with, and best kept somewhere else as well.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.key_files import LOG_KEY, StateRefused, pem, read_secret, read_signers, write_durably
from gateway.adapters.ledger.mac import Mac
from gateway.adapters.ledger.ring import KeyRing
from gateway.core.tlog import Signer, VerifierKey, is_key_name

KEY_SIZE = 32
LOG_VKEY = "log.vkey"
PAYLOAD_KEK = "payload.kek"
PSEUDONYM_KEY = "pseudonym.key"
_NAMES = (LOG_KEY, PAYLOAD_KEK, PSEUDONYM_KEY, LOG_VKEY)
_MARK_SIZE = 16


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The secrets of one log.

    Attributes:
        ring: signs checkpoints.
        kek: wraps data keys, 32 bytes.
        pseudonym: keys the hashes of names.
    """

    ring: KeyRing
    kek: bytes = field(repr=False)
    pseudonym: Mac = field(repr=False)

    @property
    def signer(self) -> Signer:
        """The signing key that was added last."""
        return self.ring.newest

    @property
    def name(self) -> VerifierKey:
        """The log's first key, which names it whatever key signs now."""
        return self.ring.history.first

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
    write_durably(_new(folder, LOG_KEY), pem(private), 0o600)
    write_durably(_new(folder, PAYLOAD_KEK), os.urandom(KEY_SIZE), 0o600)
    write_durably(_new(folder, PSEUDONYM_KEY), os.urandom(KEY_SIZE), 0o600)
    write_durably(_new(folder, LOG_VKEY), (Signer(origin, private).key.text + "\n").encode(), 0o644)


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


def _load(folder: Path, origin: str) -> LogKeys:
    first = load_vkey(folder / LOG_VKEY)
    if first.name != origin:
        raise StateRefused(f"this log's origin is {first.name}, not {origin}: an origin cannot be changed")
    ring = KeyRing(folder, first, read_signers(folder, first))
    return LogKeys(ring, _symmetric(folder / PAYLOAD_KEK), Mac(_symmetric(folder / PSEUDONYM_KEY)))


def _symmetric(path: Path) -> bytes:
    key = read_secret(path)
    if len(key) != KEY_SIZE:
        raise StateRefused(f"the key {path} is not {KEY_SIZE} bytes long; restore it from a backup")
    return key
