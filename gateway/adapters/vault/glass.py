"""The break-glass credential: ends every lease of a template at once, whoever minted it, and lists what is left.

It logs in when it is used, and its token ends with the use: nobody holds what it can do in between.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from gateway.adapters.vault.client import VaultClient
from gateway.adapters.vault.wire import Ask
from gateway.core.errors import Unavailable
from gateway.core.kills import Cut
from gateway.core.leasing import Template, VaultCause, VaultFault

# How often the vault's list is read again, until it is empty.
_LOOKS, _PAUSE_S = 200, 0.025


class BreakGlass:
    """Implements ``BreakGlass`` of ``adapters/killing.py``.

    Failure mode: what the vault does not answer is counted as unverifiable, never as ended.
    """

    def __init__(
        self, client: Callable[[], AbstractAsyncContextManager[VaultClient]], templates: Mapping[str, Template]
    ) -> None:
        """``client``: a new one for each use, with the break-glass credential."""
        self._client = client
        self._templates = templates

    async def sweep(self, template: str) -> Cut:
        """End all leases of a template; what the vault still lists at the end is not ended."""
        prefix = self._templates[template].lease_prefix
        if prefix is None:
            return Cut()
        try:
            async with self._client() as vault:
                await _revoke_all(vault, prefix)
                return Cut(not_ended=await self._left(vault, prefix))
        except Unavailable:
            return Cut(unverifiable=1)

    async def check(self) -> None:
        """It is let in and may list the leases of each template.

        Raises:
            VaultFault: it is not, or may not.
        """
        async with self._client() as vault:
            for template in self._templates.values():
                if template.lease_prefix is not None:
                    await _leases_below(vault, template.lease_prefix)

    async def _left(self, vault: VaultClient, prefix: str) -> int:
        left = 0
        for _ in range(_LOOKS):
            left = await _leases_below(vault, prefix)
            if not left:
                break
            await asyncio.sleep(_PAUSE_S)
        return left


async def _revoke_all(vault: VaultClient, prefix: str) -> None:
    # The vault goes on by itself: waiting would end them one after the other.
    await vault.request(Ask(f"sys/leases/revoke-prefix/{prefix}", {"sync": False}, ("update", "sudo")))


async def _leases_below(vault: VaultClient, prefix: str) -> int:
    try:
        reply = await vault.request(Ask(f"sys/leases/lookup/{prefix}/?list=true", None, ("list", "sudo")))
    except VaultFault as fault:
        if fault.cause_code == VaultCause.NO_ROLE:  # how a vault says that a list is empty
            return 0
        raise
    keys = (reply.data or {}).get("keys")
    return len(keys) if isinstance(keys, list) else 0
