"""The local issuer's signing key, replaced while it is used: tokens of the old one stay good until they have ended.

``issuer.pem`` signs. The public halves of those before lie in ``issuer-old``, each named after the second from which
on it counts no more; their secret halves are gone, so no token of theirs can be made any more.
"""

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.adapters.identity.keys import KeyFileError, load_key, pem, write_key
from gateway.adapters.identity.local import LocalIdentity, LocalIssuer
from gateway.core.errors import Conflict, Unavailable
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind

_NAME = re.compile(r"(?P<until>[0-9]{1,12})-(?P<public>[0-9a-f]{64})\.pub")
HOUR_S = 3600
_MICRO = 1_000_000
Others = Callable[[], Awaitable[frozenset[str]]]
Learn = Callable[[bytes], None]


def _nothing(secret: bytes) -> None:
    """Tell nobody of a key."""


def former(folder: Path, now_s: int) -> list[tuple[Ed25519PublicKey, int]]:
    """The public keys that were replaced and still count, each with its last second."""
    found: list[tuple[Ed25519PublicKey, int]] = []
    for path in sorted(_old(folder).glob("*.pub")):
        match = _NAME.fullmatch(path.name)
        if match is not None and int(match["until"]) > now_s:
            found.append((Ed25519PublicKey.from_public_bytes(bytes.fromhex(match["public"])), int(match["until"])))
    return found


@dataclass(frozen=True, slots=True)
class IssuerTerms:
    """How the key is replaced.

    Attributes:
        every_h: hours between two rotations; 0 = on demand only.
        overlap_h: how long tokens of a key that was replaced stay good, hours.
        others: the further gateways on the same log, which would not know the new key.
        learn: is told of the file of a new key before it is written.
    """

    every_h: int
    overlap_h: int
    others: Others
    learn: Learn = _nothing


class IssuerKeyRotation:
    """Implements ``core.rotation.Rotatable`` for the local issuer's key."""

    kind = KeyKind.ISSUER_KEY
    subject = ""

    def __init__(
        self, folder: Path, clock: Clock, issuer: LocalIssuer, identity: LocalIdentity, terms: IssuerTerms
    ) -> None:
        """``folder`` holds the keys."""
        self._folder = folder
        self._path, self._next = folder / "issuer.pem", folder / "issuer-next.pem"
        self._clock = clock
        self._issuer = issuer
        self._identity = identity
        self._terms = terms
        self.every_h = terms.every_h

    async def since_us(self) -> int | None:
        """When its file was written."""
        return written_us(self._path)

    async def settle(self) -> None:
        """Remove a key that never came to sign; see ``core.rotation.Rotatable``."""
        await to_thread.run_sync(lambda: self._next.unlink(missing_ok=True))

    async def rotate(self) -> None:
        """Replace it; see ``core.rotation.Rotatable``."""
        if await self._terms.others():
            raise Conflict(
                "other gateways take these tokens: set [rotation] shared_keys, or stop them, rotate, copy the folder "
                "keys to them, start them again",
                cause_code="issuer_key_shared",
            )
        try:
            # 1. the new key, in no use, and the old public half, to be taken on after a crash, too; 2. tokens of both
            # are taken; 3. only now new ones can be made, by this process or by a command.
            key = Ed25519PrivateKey.generate()
            self._terms.learn(pem(key))
            old, until_s = await to_thread.run_sync(self._prepare, key)
            self._identity.trust(old, until_s)
            self._identity.trust(key.public_key(), None)
            await to_thread.run_sync(self._put)
        except (OSError, KeyFileError) as error:
            raise Unavailable(f"the issuer's key cannot be replaced: {error}", cause_code="issuer_key") from None
        self._issuer.use(key)

    def _prepare(self, key: Ed25519PrivateKey) -> tuple[Ed25519PublicKey, int]:
        self._next.unlink(missing_ok=True)  # of a rotation that was broken off; nothing was signed with it
        old = load_key(self._path).public_key()
        write_key(self._next, key)
        now_s = self._clock.now_us() // _MICRO
        until_s = now_s + self._terms.overlap_h * HOUR_S
        keep(self._folder, old, until_s, now_s)
        return old, until_s

    def _put(self) -> None:
        self._next.replace(self._path)
        sync(self._folder)


def written_us(path: Path) -> int | None:
    """When a key's file was written, microseconds; None = it is not there."""
    try:
        return int(path.stat().st_mtime * _MICRO)
    except OSError:
        return None


def keep(folder: Path, old: Ed25519PublicKey, until_s: int, now_s: int) -> None:
    """Let tokens of a replaced key count until ``until_s``, in later processes, too; forget keys whose time is over.

    Raises:
        OSError: it cannot be written.
    """
    place = _old(folder)
    place.mkdir(mode=0o700, exist_ok=True)
    (place / f"{until_s}-{old.public_bytes_raw().hex()}.pub").touch(0o600)
    for path in place.glob("*.pub"):
        match = _NAME.fullmatch(path.name)
        if match is not None and int(match["until"]) <= now_s:
            path.unlink()
    sync(place)
    sync(folder)


def _old(folder: Path) -> Path:
    return folder / "issuer-old"


def sync(folder: Path) -> None:
    """Make what was renamed and removed durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
