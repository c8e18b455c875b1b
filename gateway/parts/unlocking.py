"""The log's keys, opened: from their files alone, or with a vault that holds the key of payloads."""

import importlib

from gateway.adapters.ledger.keyring.keys import LogKeys, create_or_load
from gateway.adapters.ledger.keyring.wrapped_keys import create_or_unwrap
from gateway.core.known import KnownValues
from gateway.core.ports import Clock
from gateway.parts import minting
from gateway.settings import GatewaySettings


async def log_keys(settings: GatewaySettings, known: KnownValues, clock: Clock) -> LogKeys:
    """The keys in the state folder; made where there are none at all.

    Raises:
        StateRefused: they cannot be used.
        Unavailable: the vault is not there, or refuses.
    """
    folder, origin, audit = settings.state / "keys", settings.audit.origin, settings.audit
    if settings.vault is None or audit.vault_key is None:
        return create_or_load(folder, origin)
    transit = importlib.import_module("gateway.adapters.vault.transit").Transit
    async with minting.client(settings.vault, known, clock) as client:
        return await create_or_unwrap(folder, origin, transit(client, audit.vault_mount, audit.vault_key))
