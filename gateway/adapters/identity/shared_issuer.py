"""The local issuer's key where several gateways on one log sign with it: handed over before it is used.

Each gateway has the next key in ``issuer-next.pem`` and takes its tokens before any gateway makes one. Once all have it
and the log says so, each gives it the name ``issuer.pem``; what the log says is enough to go on after a kill.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.adapters.identity.issuer_keys import HOUR_S, IssuerTerms, Learn, former, keep, sync, written_us
from gateway.adapters.identity.keys import KeyFileError, load_key, pem, write_key
from gateway.adapters.identity.local import LocalIdentity, LocalIssuer
from gateway.core.errors import Unavailable
from gateway.core.key_sharing import Handing, KeyHandover, Offer, Share
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs and checks tokens in this process."""

    issuer: LocalIssuer
    identity: LocalIdentity
    clock: Clock
    learn: Learn = field(repr=False)


class SharedIssuerKey:
    """Implements ``core.key_sharing.SharedKey`` and ``core.rotation.Rotatable`` for the local issuer's key."""

    kind = KeyKind.ISSUER_KEY
    subject = ""

    def __init__(self, folder: Path, signing: Signing, terms: IssuerTerms, handover: KeyHandover) -> None:
        """``folder`` holds the keys.

        Raises:
            KeyFileError: the key there cannot be used.
        """
        self._folder = folder
        self._path, self._next = folder / "issuer.pem", folder / "issuer-next.pem"
        self._signing = signing
        self._terms = terms
        self._handover = handover
        self.every_h = terms.every_h
        self._key = load_key(self._path)
        self._coming = self._left()

    @property
    def in_force(self) -> bytes:
        """The public half of the key that signs."""
        return _raw(self._key)

    async def since_us(self) -> int | None:
        """When its file was written."""
        return written_us(self._path)

    async def settle(self) -> None:
        """Remove a key that the log does not know of; see ``core.rotation.Rotatable``."""
        coming = self._coming
        if coming is None:
            with suppress(OSError):
                await to_thread.run_sync(lambda: self._next.unlink(missing_ok=True))
        elif not await self._handover.is_open(self.kind, _raw(coming)):
            await self.drop(_raw(coming))

    async def rotate(self) -> None:
        """Replace it at all gateways; see ``core.rotation.Rotatable``."""
        new, old = Ed25519PrivateKey.generate(), self._key
        until_s = self._signing.clock.now_us() // _MICRO + self._terms.overlap_h * HOUR_S
        offer = Offer(self.kind, _raw(new), _raw(old), until_s=until_s)
        await self._handover.hand_over(Handing(offer, new.private_bytes_raw(), old.sign))

    def roots(self) -> Iterable[bytes]:
        """The key in force and those before it; see ``SharedKey``."""
        now_s = self._signing.clock.now_us() // _MICRO
        return [_raw(self._key), *(old.public_bytes_raw() for old, _ in former(self._folder, now_s))]

    def needs(self, share: Share, *, is_newest: bool) -> bool:  # noqa: ARG002 - the signature is the Protocol's
        """The newest one only: of others the public half is enough; see ``SharedKey``."""
        return is_newest

    def has(self, public: bytes) -> bool:
        """See ``SharedKey``."""
        return public in {_raw(key) for key in (self._key, self._coming) if key is not None}

    async def take(self, private: bytes) -> None:
        """Beside the one in force; its tokens are taken from now on; see ``SharedKey``."""
        key = Ed25519PrivateKey.from_private_bytes(private)
        self._signing.learn(pem(key))
        try:
            await to_thread.run_sync(self._put_beside, key)
        except (OSError, KeyFileError) as error:
            raise _unkept(error) from None
        self._coming = key
        self._signing.identity.trust(key.public_key(), None)

    async def follow(self, agreed: Sequence[Share]) -> None:
        """Former ones count until their time is over, the newest one signs once it is here; see ``SharedKey``."""
        newest = agreed[-1].offer.public
        try:
            for share in agreed:
                await self._count(share)
            if newest == _raw(self._key) or not self.has(newest):
                return
            await to_thread.run_sync(self._put_in_place)
        except (OSError, KeyFileError) as error:
            raise _unkept(error) from None
        if self._coming is not None:
            self._key, self._coming = self._coming, None
            self._signing.issuer.use(self._key)

    async def drop(self, public: bytes) -> None:
        """See ``SharedKey``."""
        if self._coming is None or _raw(self._coming) != public:
            return
        try:
            await to_thread.run_sync(lambda: self._next.unlink(missing_ok=True))
        except OSError as error:
            raise _unkept(error) from None
        self._signing.identity.distrust(self._coming.public_key())
        self._coming = None

    def copying(self, public: bytes) -> str:  # noqa: ARG002 - the signature is the Protocol's
        """See ``SharedKey``."""
        return "issuer.pem and issuer-old"

    def _left(self) -> Ed25519PrivateKey | None:
        # One that this gateway has told the others it has: a token of it may come before anything else happens here.
        try:
            key = load_key(self._next)
        except KeyFileError:
            return None
        self._signing.identity.trust(key.public_key(), None)
        return key

    async def _count(self, share: Share) -> None:
        before, until_s = share.offer.predecessor, share.offer.until_s
        now_s = self._signing.clock.now_us() // _MICRO
        known = {old.public_bytes_raw() for old, _ in former(self._folder, now_s)}
        old = Ed25519PublicKey.from_public_bytes(before)
        if until_s <= now_s:
            # This gateway was down meanwhile, and began with it as the key in force: whoever has an old folder would be
            # anybody here.
            self._signing.identity.distrust(old)
            return
        if before in known:
            return
        await to_thread.run_sync(keep, self._folder, old, until_s, now_s)
        self._signing.identity.trust(old, until_s)

    def _put_beside(self, key: Ed25519PrivateKey) -> None:
        self._next.unlink(missing_ok=True)
        write_key(self._next, key)
        sync(self._folder)

    def _put_in_place(self) -> None:
        self._next.replace(self._path)
        sync(self._folder)


def _raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _unkept(error: Exception) -> Unavailable:
    return Unavailable(f"the issuer's key cannot be replaced: {error}", cause_code="issuer_key")
