"""The keys of one log: made once, kept in files only their owner may read.

``log.pem`` signs checkpoints (later ones are in ``log-KEYID.pem``, see ``ring``), ``payload.kek`` wraps the data keys
of payloads, ``pseudonym.key`` turns names into pseudonyms. ``log.vkey`` is the public half of the first signing key:
it is the log's name for ever, what an auditor checks the log with, and best kept somewhere else as well.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.keyring.key_files import (
    LOG_KEY,
    StateRefused,
    pem,
    read_secret,
    read_signers,
    sync_folder,
    write_durably,
)
from gateway.adapters.ledger.keyring.mac import Mac
from gateway.adapters.ledger.keyring.ring import KeyRing
from gateway.adapters.ledger.keyring.sealing import PayloadKey
from gateway.core.tlog import Signer, VerifierKey, is_key_name

KEY_SIZE = 32
LOG_VKEY = "log.vkey"
PAYLOAD_KEK = "payload.kek"
# Beside the payloads' key while that is being replaced: wraps what is new, and more and more of what was there.
NEXT_KEK = "payload.kek.next"
WRAPPED_KEK = "payload.kek.vault"
PSEUDONYM_KEY = "pseudonym.key"
_NAMES = (LOG_KEY, PAYLOAD_KEK, WRAPPED_KEK, PSEUDONYM_KEY, LOG_VKEY)
_MARK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Secret:
    """A key's file: its name and content."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The secrets of one log.

    Attributes:
        ring: signs checkpoints.
        kek: wraps data keys.
        pseudonym: keys the hashes of names.
        are_new: whether they were made just now, so that there can be no log of theirs yet.
    """

    ring: KeyRing
    kek: PayloadKey = field(repr=False)
    pseudonym: Mac = field(repr=False)
    are_new: bool = False

    @property
    def signer(self) -> Signer:
        """The signing key that was added last."""
        return self.ring.newest

    @property
    def name(self) -> VerifierKey:
        """The log's first key, which names it whatever key signs now."""
        return self.ring.history.first

    @property
    def common(self) -> str:
        """Keyed hash of the keys that do not sign, which all processes on one log have the same of."""
        return self.mark("keys", hashlib.sha256(b"kek" + self.kek.newest).hexdigest())

    @property
    def lasting(self) -> str:
        """Keyed hash that tells the key of names, which is never replaced, from any other."""
        return self.mark("keys", "names")

    @property
    def state_key(self) -> bytes:
        """Seals what clients keep for the gateways on this log between two requests, 32 bytes."""
        return self.pseudonym.digest(b"client state")

    @property
    def share_key(self) -> bytes:
        """Seals what gateways on this log hand over to each other by way of the vault, 32 bytes."""
        return self.pseudonym.digest(b"shared keys")

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
    are_new = make(folder, origin, Secret(PAYLOAD_KEK, os.urandom(KEY_SIZE)))
    if (folder / WRAPPED_KEK).exists() and not (folder / PAYLOAD_KEK).exists():
        raise StateRefused(f"{folder / WRAPPED_KEK} opens with a vault only: set [vault], and [audit] vault_key")
    return replace(load(folder, origin), are_new=are_new)


def make(folder: Path, origin: str, kek: Secret | None) -> bool:
    """Make the keys where there are none at all, with ``kek`` as the one of payloads; finish what a crash cut off.

    Returns whether they were made.

    Raises:
        StateRefused: they cannot be written; or without ``kek`` there is something to make.
    """
    if not is_key_name(origin):
        raise StateRefused(f"the log's origin {origin!r} may not hold white space or '+'")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # All or nothing: a lost key must never be replaced silently beside a log that was written with it.
    are_new = kek is not None and not any((folder / name).exists() for name in _NAMES)
    if kek is not None and are_new:
        _create(folder, origin, kek)
    _put_in_place(folder)
    return are_new


def load_vkey(path: Path) -> VerifierKey:
    """The public key in a ``log.vkey`` file.

    Raises:
        StateRefused: missing or malformed.
    """
    try:
        return VerifierKey.parse(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise StateRefused(f"the log's public key {path} cannot be read: {error}") from None


def _create(folder: Path, origin: str, kek: Secret) -> None:
    for name in _NAMES:  # of a start that was killed, perhaps under other settings
        _new(folder, name).unlink(missing_ok=True)
    private = Ed25519PrivateKey.generate()
    write_durably(_new(folder, LOG_KEY), pem(private), 0o600)
    write_durably(_new(folder, kek.name), kek.content, 0o600)
    write_durably(_new(folder, PSEUDONYM_KEY), os.urandom(KEY_SIZE), 0o600)
    write_durably(_new(folder, LOG_VKEY), (Signer(origin, private).key.text + "\n").encode(), 0o644)


def _put_in_place(folder: Path) -> None:
    # Only once all of them are on disk: who is killed while making them begins anew, who is killed here goes on here.
    names = [name for name in _NAMES if _new(folder, name).exists() and not (folder / name).exists()]
    for name in names:
        try:
            _new(folder, name).rename(folder / name)
            sync_folder(folder)
        except OSError as error:
            raise StateRefused(f"the key {folder / name} cannot be written: {error.strerror}") from None


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


def load(folder: Path, origin: str, kek: bytes | None = None) -> LogKeys:
    """The keys in ``folder``, with ``kek`` as the one of payloads; None = it is in its file.

    Raises:
        StateRefused: some are missing, malformed, readable by others, or of another origin.
    """
    first = load_vkey(folder / LOG_VKEY)
    if first.name != origin:
        raise StateRefused(f"this log's origin is {first.name}, not {origin}: an origin cannot be changed")
    ring = KeyRing(folder, first, read_signers(folder, first))
    payload_key = payload_key_in(folder) if kek is None else PayloadKey(kek)
    return LogKeys(ring, payload_key, Mac(read_symmetric(folder / PSEUDONYM_KEY)))


def payload_key_in(folder: Path) -> PayloadKey:
    """The key of payloads in its file; and the one that follows it, where a rotation is under way or was broken off.

    Raises:
        StateRefused: missing, of another length, or others may read it.
    """
    # The next one first: who ends a rotation meanwhile gives it the name that is looked at then.
    following = read_symmetric(folder / NEXT_KEK) if (folder / NEXT_KEK).exists() else None
    present = read_symmetric(folder / PAYLOAD_KEK)
    return PayloadKey(present) if following is None else PayloadKey(following, present)


def read_symmetric(path: Path) -> bytes:
    """A key of 32 bytes.

    Raises:
        StateRefused: missing, of another length, or others may read it.
    """
    key = read_secret(path)
    if len(key) != KEY_SIZE:
        raise StateRefused(f"the key {path} is not {KEY_SIZE} bytes long; restore it from a backup")
    return key
