"""The log's signing keys as what all gateways on the log must have; see ``key_sharing``."""

from collections.abc import Iterable, Sequence

from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.adapters.ledger.keyring.key_files import StateRefused, file_name, pem
from gateway.adapters.ledger.keyring.ring import KeyRing
from gateway.core.errors import Unavailable
from gateway.core.key_sharing import Share
from gateway.core.rotation import KeyKind
from gateway.core.tlog import VerifierKey


class SharedLogKey:
    """Implements ``core.key_sharing.SharedKey``: the ``key`` records say which of them sign."""

    kind = KeyKind.LOG_KEY

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def roots(self) -> Iterable[bytes]:
        """Every key the log ever had; see ``SharedKey``."""
        return [reign.key.raw for reign in self._ring.history.reigns]

    def needs(self, share: Share, *, is_newest: bool) -> bool:  # noqa: ARG002 - two may be in force
        """Unless it was retired; see ``SharedKey``."""
        retired = {reign.key.raw for reign in self._ring.history.reigns if reign.until is not None}
        return share.offer.public not in retired

    def has(self, public: bytes) -> bool:
        """See ``SharedKey``."""
        return self._ring.has(self._named(public))

    async def take(self, private: bytes) -> None:
        """In its file, as a key of this gateway's own rotation; see ``SharedKey``."""
        key = Ed25519PrivateKey.from_private_bytes(private)
        self._ring.learn(pem(key))
        try:
            await to_thread.run_sync(self._ring.take, key)
        except StateRefused as error:
            raise Unavailable(str(error), cause_code="log_key") from None

    async def follow(self, agreed: Sequence[Share]) -> None:
        """The ``key`` record is the agreement; see ``SharedKey``."""

    async def drop(self, public: bytes) -> None:
        """See ``SharedKey``."""
        try:
            await to_thread.run_sync(self._ring.drop, self._named(public))
        except OSError as error:
            raise Unavailable(f"a key's file cannot be removed: {error.strerror}", cause_code="log_key") from None

    def copying(self, public: bytes) -> str:
        """See ``SharedKey``."""
        return file_name(self._named(public))

    def _named(self, public: bytes) -> VerifierKey:
        return VerifierKey(self._ring.history.first.name, Ed25519PublicKey.from_public_bytes(public))
