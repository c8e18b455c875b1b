"""A vault's transit engine as the keeper of a key: what is wrapped there is opened there only."""

import base64
import binascii

from gateway.adapters.vault.client import VaultClient
from gateway.core.leasing import VaultCause, VaultFault


class Transit:
    """Implements ``core.wrapping.KeyWrapper``: AES-256-GCM in the vault, bound to the context."""

    def __init__(self, client: VaultClient, mount: str, key: str) -> None:
        """``key`` is the transit engine's, at ``mount``."""
        self.name = f"the vault's key {mount}/keys/{key}"
        self._client = client
        self._mount = mount
        self._key = key

    async def wrap(self, key: bytes, context: str) -> str:
        """See ``core.wrapping.KeyWrapper``."""
        body = {"plaintext": _base64(key), "associated_data": _base64(context.encode())}
        found = await self._client.update(f"{self._mount}/encrypt/{self._key}", body)
        wrapped = found.get("ciphertext")
        if not isinstance(wrapped, str) or not wrapped.isascii() or not wrapped.startswith("vault:"):
            raise self._strange()
        return wrapped

    async def unwrap(self, wrapped: str, context: str) -> bytes:
        """See ``core.wrapping.KeyWrapper``."""
        body = {"ciphertext": wrapped, "associated_data": _base64(context.encode())}
        found = await self._client.update(f"{self._mount}/decrypt/{self._key}", body)
        try:
            return base64.b64decode(found["plaintext"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise self._strange() from None

    def _strange(self) -> VaultFault:
        fix = f"bao read {self._mount}/keys/{self._key} must show a key of type aes256-gcm96"
        return VaultFault(VaultCause.FAILED, "the vault's transit engine gives no key", fix=fix)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
