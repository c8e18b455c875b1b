"""The signing keys of one log through time, as its own ``key`` records tell.

The log's first key is its name for life. Another one is added by a record that the key in force has signed; from then
on both sign every checkpoint, until a record retires the older one. So whoever has one of the keys from elsewhere can
follow the rest, and what only a retired key has signed says nothing about a tree that is larger than the one that
retired it.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.cosigning import TrustPolicy
from gateway.core.signing import is_signed
from gateway.core.tlog import Checkpoint, NoteError, Signer, VerifierKey, signers_of

ALGORITHM, USE = "ed25519", "checkpoint"
_VERSION = 1
_CONTEXT = b"ostiary.log-key/v1\n"
_MOST_ACTIVE = 2


class KeyAction(StrEnum):
    """What a ``key`` record does."""

    ADDED = "added"
    RETIRED = "retired"


class KeyRefused(ValueError):
    """A ``key`` record that may not stand where it does: the message says why."""


def rotation_message(first: VerifierKey, old: VerifierKey, new: VerifierKey) -> bytes:
    """The bytes the key in force signs to add another one to the log that ``first`` names."""
    word = {"v": _VERSION, "origin": first.text, "predecessor": old.text, "key": new.text}
    return _CONTEXT + hashlib.sha256(encode(word)).digest()


def first_body(key: VerifierKey, others: str | None = None) -> dict[str, Any]:
    """The record of a log's first key, which nobody signs for; ``others``: a keyed hash of the key of names."""
    return _body(KeyAction.ADDED, key) | ({} if others is None else {"others": others})


def added_body(first: VerifierKey, old: Signer, new: VerifierKey, retires_us: int) -> dict[str, Any]:
    """The record of a further key; ``retires_us`` is when the one before is to be retired."""
    signature = old.raw_sign(rotation_message(first, old.key, new)).hex()
    said = {"retires_us": retires_us, "signature": signature, "signed_by": old.key.id.hex()}
    return _body(KeyAction.ADDED, new) | said


def retired_body(key: VerifierKey) -> dict[str, Any]:
    """The record of a key that signs no more."""
    return _body(KeyAction.RETIRED, key)


def _body(action: KeyAction, key: VerifierKey) -> dict[str, Any]:
    said = {"action": action, "algorithm": ALGORITHM, "key_id": key.id.hex(), "public": key.raw.hex(), "use": USE}
    return said | {"retires_us": None, "signature": None, "signed_by": None}


@dataclass(frozen=True, slots=True)
class Reign:
    """How long a key signs.

    Attributes:
        since: size of the first tree it signs.
        since_us: time of the record that added it; 0 until that is known.
        retires_us: when the key before it is to be retired, or None.
        until: size of the first tree it does not sign any more, or None.
        until_us: time of the record that retired it, or None.
    """

    key: VerifierKey
    since: int
    since_us: int = 0
    retires_us: int | None = None
    until: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """Every key of a log so far, oldest first."""

    reigns: tuple[Reign, ...]

    @classmethod
    def begun(cls, first: VerifierKey) -> "KeyHistory":
        """That of a log whose first record is still to come."""
        return cls((Reign(first, 0),))

    @property
    def first(self) -> VerifierKey:
        """The key that names the log."""
        return self.reigns[0].key

    @property
    def newest(self) -> Reign:
        """The key that was added last; it always signs."""
        return self.reigns[-1]

    @property
    def in_force(self) -> tuple[Reign, ...]:
        """Those that sign now: one, or two while they overlap, the older first."""
        return tuple(reign for reign in self.reigns if reign.until is None)

    def signing(self, size: int) -> tuple[VerifierKey, ...]:
        """The keys that all have to sign the tree of ``size`` records."""
        return tuple(
            reign.key for reign in self.reigns if reign.since <= size and (reign.until is None or size < reign.until)
        )

    def after(self, index: int, at_us: int, body: Mapping[str, Any]) -> "KeyHistory":
        """The history with the ``key`` record at ``index``.

        Raises:
            KeyRefused: it may not stand there.
        """
        key = key_of(self.first.name, body)
        if index == 0:
            if key != self.first or body.get("action") != KeyAction.ADDED:
                raise KeyRefused("the log was begun with another key")
            return KeyHistory((replace(self.reigns[0], since_us=at_us), *self.reigns[1:]))
        if body.get("action") == KeyAction.ADDED:
            return self._added(Reign(key, index + 1, at_us, _moment(body.get("retires_us"))), body)
        return self._retired(key, index + 1, at_us)

    def open(self, note: str) -> Checkpoint:
        """The checkpoint of ``note``, which every key that signs a tree of its size has signed, and no other one has.

        Raises:
            NoteError: malformed, of another log, not signed by all of them, signed by another key of the log as well,
                or signed wrongly.
        """
        text, signers = signers_of(note, [reign.key for reign in self.reigns])
        checkpoint = Checkpoint.parse(text)
        if not hmac.compare_digest(checkpoint.origin.encode(), self.first.name.encode()):
            raise NoteError("the checkpoint is of another log")
        needed = self.signing(checkpoint.size)
        if not signers:
            raise NoteError("the note has no signature by a known key")
        # Nobody signs for a retirement. A record of one that was made up is given the lie by what the key signed since.
        if any(key not in needed for key in signers):
            raise NoteError("the note is signed by a key that was retired before, or added later")
        lacking = [key.id.hex() for key in needed if key not in signers]
        if lacking:
            raise NoteError(f"the signature of key {', '.join(lacking)} is missing")
        return checkpoint

    def _added(self, reign: Reign, body: Mapping[str, Any]) -> "KeyHistory":
        active = self.in_force
        if len(active) >= _MOST_ACTIVE:
            raise KeyRefused("a key is still to be retired before another one is added")
        if any(reign.key.raw == one.key.raw or reign.key.id == one.key.id for one in self.reigns):
            raise KeyRefused("the key was in use before")
        old = active[0].key
        message = rotation_message(self.first, old, reign.key)
        if body.get("signed_by") != old.id.hex() or not is_signed(old.raw, _bytes(body.get("signature")), message):
            raise KeyRefused("the new key was not signed for by the one in force")
        return KeyHistory((*self.reigns, reign))

    def _retired(self, key: VerifierKey, size: int, at_us: int) -> "KeyHistory":
        active = self.in_force
        if len(active) < _MOST_ACTIVE or active[0].key != key:
            raise KeyRefused("only the older of two keys in force can be retired")
        ended = replace(active[0], until=size, until_us=at_us)
        return KeyHistory(tuple(ended if reign.key == key else reign for reign in self.reigns))


def key_of(name: str, body: Mapping[str, Any]) -> VerifierKey:
    """The key that a record of the log ``name`` is about.

    Raises:
        KeyRefused: it holds none.
    """
    public = _bytes(body.get("public"))
    try:
        key = VerifierKey(name, Ed25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise KeyRefused("the record holds no Ed25519 key") from None
    if body.get("algorithm") != ALGORITHM or body.get("use") != USE or body.get("key_id") != key.id.hex():
        raise KeyRefused("the record is of another kind of key, or its id does not fit")
    return key


def _moment(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise KeyRefused("the record does not say until when the key before signs, too")
    return value


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""


class KeyDesk(Protocol):
    """The log's signing keys. Closed: what cannot be recorded did not happen."""

    def all(self) -> tuple[Reign, ...]:
        """Every key the log ever had, oldest first."""

    def policy(self) -> TrustPolicy:
        """What others may check the log with now: the keys in force, the witnesses and their quorum."""

    async def rotate(self, by: Principal) -> Reign:
        """Add a key that signs from now on, beside the one in force until that is retired.

        Raises:
            Conflict: two keys are in force already.
            Unavailable: the key cannot be stored, or the log cannot be written.
        """

    async def retire(self, by: Principal) -> Reign:
        """Let the older of two keys sign no more, before its time is up, and destroy its secret half.

        Raises:
            Conflict: one key is in force only.
            Unavailable: the log cannot be written.
        """
