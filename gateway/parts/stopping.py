"""The kill switch, put together of the log, the minted credentials and the break-glass credential."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from gateway.adapters.credentials import Leases
from gateway.adapters.killing import KillMeter, KillSwitch, Means
from gateway.adapters.ledger.books.kills import KillRegistry
from gateway.core.errors import GatewayError
from gateway.core.known import KnownValues
from gateway.core.leasing import VaultFault
from gateway.core.ports import Clock
from gateway.core.tool import Tool
from gateway.findings import Finding
from gateway.parts import minting
from gateway.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class Supplies:
    """What the switch needs of the other parts."""

    leases: Leases | None
    tools: Callable[[], Sequence[Tool]]
    meter: KillMeter
    known: KnownValues
    clock: Clock


async def opened(
    settings: GatewaySettings, book: KillRegistry, supplies: Supplies, stack: AsyncExitStack
) -> KillSwitch:
    """The switch; ``stack`` lets what it began end."""
    glass = _glass(settings, supplies.known, supplies.clock)
    means = Means(supplies.leases, glass, tuple(settings.leases), supplies.tools, supplies.meter)
    return await stack.enter_async_context(KillSwitch(book, means))


async def trial(settings: GatewaySettings, known: KnownValues, clock: Clock) -> list[Finding]:
    """Whether the break-glass credential is let in and may list what it would end; it ends nothing."""
    glass = _glass(settings, known, clock)
    if glass is None:
        return []
    try:
        await glass.check()
    except VaultFault as fault:
        return [Finding("break_glass", ok=False, text=fault.detail, fix=f"docs/kill.md has its policy; {fault.fix}")]
    except GatewayError as error:
        return [Finding("break_glass", ok=False, text=error.detail, fix="see the gateway's log")]
    return [Finding("break_glass", ok=True, text="is let in and may list the leases of every template")]


def _glass(settings: GatewaySettings, known: KnownValues, clock: Clock) -> Any:
    vault = settings.vault
    if vault is None or vault.break_glass is None:
        return None
    module = importlib.import_module("gateway.adapters.vault.glass")
    return module.BreakGlass(
        lambda: minting.client(vault, known, clock, vault.break_glass), minting.templates(settings)
    )
