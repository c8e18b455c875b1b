"""Keys that gateways on one log give each other by way of the vault, as ``[rotation] shared_keys`` says."""

import importlib
from contextlib import AsyncExitStack
from typing import Any

from gateway.adapters.identity import IssuerTerms, SharedIssuerKey, Signing
from gateway.adapters.ledger.books.key_sharing import KeySharing
from gateway.adapters.ledger.books.shared_log_key import SharedLogKey
from gateway.adapters.ledger.books.unshared import UnsharedKeys
from gateway.settings import GatewaySettings


def shelf(settings: GatewaySettings, vault: Any) -> Any:
    """Where they lie in the vault; None where no place is named. ``vault``: its client."""
    place = settings.rotation.shared_keys
    if place is None:
        return None
    return importlib.import_module("gateway.adapters.vault.shelf").VaultShelf(vault, place)


async def opened(
    settings: GatewaySettings, vault: Any, parts: tuple[Any, Signing, IssuerTerms], stack: AsyncExitStack
) -> SharedIssuerKey | None:
    """The issuer's key, which is handed over like the log's keys; None where no place is named. ``stack`` ends it.

    Raises:
        Unavailable: a key in force is not here, and the vault has no copy any more, or is not to be asked.
    """
    place = shelf(settings, vault)
    record, signing, terms = parts
    if place is None:
        await _settle(settings, record, signing, terms)
        return None
    sharing = KeySharing(record.rotations, record.others, place, settings.rotation.shared_keys_h)
    issuer = SharedIssuerKey(settings.state / "keys", signing, terms, sharing)
    sharing.hold((SharedLogKey(record.rotations.scribe.keys.ring), issuer))
    await stack.enter_async_context(sharing)
    record.keys.hand_over_by(sharing)
    return issuer


async def _settle(settings: GatewaySettings, record: Any, signing: Signing, terms: IssuerTerms) -> None:
    """Where keys are handed over no more, or not to this gateway, it has those that were."""
    unshared = UnsharedKeys(record.rotations)
    key = SharedIssuerKey(settings.state / "keys", signing, terms, unshared)
    await unshared.settle(key, key.in_force)
    await key.settle()
