"""A place in a kv engine, version 2, where gateways on one log lay sealed keys for each other."""

import os
from collections.abc import Mapping
from dataclasses import replace

from gateway.adapters.vault.client import VaultClient
from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.leasing import VaultCause, VaultFault

_CAPABILITIES: Mapping[str, tuple[str, ...]] = {"data": ("create", "read"), "metadata": ("delete",)}
_METHODS = {"metadata": "delete"}


class VaultShelf:
    """Implements ``core.key_sharing.KeyShelf``: one secret for each key, named by its public half, written once.

    Failure mode, closed: whatever is no clear yes raises ``VaultFault``.
    """

    def __init__(self, client: VaultClient, place: str) -> None:
        """``place``: ``MOUNT/PATH``."""
        self._client = client
        self._mount, _, self._path = place.partition("/")

    async def put(self, public: bytes, sealed: str) -> None:
        """See ``KeyShelf``."""
        reply = await self._asked("data", public, {"options": {"cas": 0}, "data": {"sealed": sealed}})
        if (reply.data or {}).get("version") != 1:
            raise self._strange()

    async def get(self, public: bytes) -> str | None:
        """See ``KeyShelf``."""
        try:
            reply = await self._asked("data", public)
        except VaultFault as fault:
            if fault.cause_code == VaultCause.NO_ROLE:
                return None
            raise
        data, metadata = (reply.data or {}).get("data"), (reply.data or {}).get("metadata")
        sealed = data.get("sealed") if isinstance(data, dict) else None
        if not isinstance(sealed, str) or not isinstance(metadata, dict):
            raise self._strange()
        return sealed

    async def clear(self, public: bytes) -> None:
        """All versions; see ``KeyShelf``."""
        await self._asked("metadata", public)

    async def prove(self) -> None:
        """Lay a value there, read it and remove it.

        Raises:
            VaultFault: the engine is not there, is another one, or the policy lacks a line.
        """
        name = os.urandom(32)
        await self.put(name, "nothing")
        found = await self.get(name)
        await self.clear(name)
        if found != "nothing" or await self.get(name) is not None:
            raise self._strange()

    async def _asked(self, what: str, public: bytes, body: Mapping[str, object] | None = None) -> Reply:
        place = f"{self._mount}/{what}/{self._path}"
        ask = Ask(f"{place}/{public.hex()}", body, _CAPABILITIES[what], method=_METHODS.get(what))
        try:
            return await self._client.request(ask)
        except VaultFault as fault:
            if fault.cause_code != VaultCause.DENIED:
                raise
            fix = f"allow it: {replace(ask, path=f'{place}/+').policy_line}; or correct [rotation] shared_keys"
            raise VaultFault(VaultCause.DENIED, fault.detail, fix=fix, undone=True) from None

    def _strange(self) -> VaultFault:
        fix = f"{self._mount}/ must be a kv engine of version 2: correct [rotation] shared_keys"
        return VaultFault(VaultCause.UNFIT, "the vault keeps no shared keys there", fix=fix, undone=True)
