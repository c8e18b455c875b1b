"""The ledger, opened; with keys that came into force while this gateway was down, where the vault still has them."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.adapters.ledger.books.key_sharing import restore
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.ring import KeyMissing
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.known import KnownValues
from gateway.core.ports import Clock
from gateway.parts import minting, sharing
from gateway.settings import GatewaySettings

# Two keys may be in force, and while they are fetched another rotation may come to its end.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Means:
    """What it takes to ask the vault."""

    settings: GatewaySettings
    keys: LogKeys
    known: KnownValues
    clock: Clock


async def ledger(means: Means, made: Callable[[], Ledger], stack: AsyncExitStack) -> Ledger:
    """What ``made`` makes, open; ``stack`` closes it.

    Raises:
        StateRefused: the log cannot be used.
        Unavailable: a key in force is not here, and the vault is not there or has no copy any more.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await stack.enter_async_context(made())
        except KeyMissing as missing:
            if means.settings.rotation.shared_keys is None:
                raise
            await _fetch(means, missing)
    return await stack.enter_async_context(made())


async def _fetch(means: Means, missing: KeyMissing) -> None:
    vault = means.settings.vault
    assert vault is not None  # the settings say so
    async with minting.client(vault, means.known, means.clock) as client:
        shelf = sharing.shelf(means.settings, client)
        assert shelf is not None  # the same
        await restore(shelf, means.keys, missing)
