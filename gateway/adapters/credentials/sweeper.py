"""Ends what an earlier process minted and did not end: killed, or unable to reach the vault when it stopped."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.core.errors import Unavailable
from gateway.core.leasing import LeaseJournal, Template, Vault
from gateway.core.ports import Clock

_LOG = logging.getLogger("ostiary.credentials")
# Tokens older than this have ended by themselves: their longest life is shorter (docs/credentials.md).
_LOOK_BACK_US = 24 * 3600 * 1_000_000
_FIRST_PAUSE_S = 0.25
_MOST_PAUSE_S = 10.0


@dataclass(slots=True)
class Sweeper:
    """One sweep when the gateway starts, repeated until it has succeeded.

    Attributes:
        waiting: whether there is something left to be ended.
    """

    vault: Vault
    journal: LeaseJournal
    clock: Clock
    templates: Iterable[Template]
    waiting: bool = True
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Sweep, again and again until nothing is left."""
        pause = _FIRST_PAUSE_S
        while self.waiting and not self._stopped.is_set():
            try:
                await self._sweep()
                self.waiting = False
            except Unavailable as error:
                _LOG.warning("credentials of an earlier process cannot be ended yet: %s", error.cause_code)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause)
                pause = min(pause * 2, _MOST_PAUSE_S)

    def stop(self) -> None:
        """End ``run``."""
        self._stopped.set()

    async def _sweep(self) -> None:
        found = await self.journal.leftovers(self.clock.now_us() - _LOOK_BACK_US)
        for leftover in found:
            if leftover.accessor is not None:
                await self.vault.revoke_token(leftover.accessor)
            self.journal.swept(leftover)
        if found:
            _LOG.warning("ended %d minting tokens of an earlier process, and all their logins", len(found))
