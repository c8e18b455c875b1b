"""Ends what an earlier process minted and did not end: killed, or unable to reach the vault when it stopped."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.adapters.credentials.reaper import Doubt, Reaper
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, LeaseJournal, Leftover, Template, Vault
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
        templates: by name, as they are now.
        reaper: looks for what mintings of those that were ended left.
        waiting: whether there is something left to be ended.
    """

    vault: Vault
    journal: LeaseJournal
    clock: Clock
    templates: Mapping[str, Template]
    reaper: Reaper
    waiting: bool = True
    _taken: set[str] = field(default_factory=set)
    _doubts: int = 0
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_waiting(self) -> bool:
        """Whether something of an earlier process may be left."""
        return self.waiting or self._doubts > 0

    async def run(self) -> None:
        """Sweep, again and again until nothing is left."""
        pause = _FIRST_PAUSE_S
        while self.waiting and not self._stopped.is_set():
            try:
                self.waiting = not await self._sweep()
            # Whatever it is: what is left must be tried again.
            except Exception as error:  # noqa: BLE001
                _LOG.warning("what an earlier process left cannot be looked up yet: %s", _cause(error))
            if self.waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause)
                pause = min(pause * 2, _MOST_PAUSE_S)

    def stop(self) -> None:
        """End ``run``."""
        self._stopped.set()

    async def _sweep(self) -> bool:
        # Whether nothing is left that can be ended. One that cannot must not keep the others alive.
        found = await self.journal.leftovers(self.clock.now_us() - _LOOK_BACK_US)
        ends = [
            await self._is_ended(leftover, leftover.accessor) for leftover in found if leftover.accessor is not None
        ]
        lost = len(found) - len(ends)
        if any(ends):
            _LOG.warning("ended %d minting tokens of an earlier process, and all their logins", sum(ends))
        if lost and all(ends):
            # Nobody can ask for their end, so nobody says that they have ended.
            _LOG.warning("the log cannot tell %d minting tokens any more: each ends after its period by itself", lost)
        return all(ends)

    async def _is_ended(self, leftover: Leftover, accessor: str) -> bool:
        try:
            await self.vault.revoke_token(accessor)
            self._ended(leftover, accessor)
        # Whatever it is: it must be tried again, and must not keep the others alive.
        except Exception as error:  # noqa: BLE001
            _LOG.warning("a credential of an earlier process cannot be ended yet: %s", _cause(error))
            return False
        return True

    def _ended(self, leftover: Leftover, accessor: str) -> None:
        if accessor in self._taken:
            return
        template = self.templates.get(leftover.template)
        name = leftover.name
        if name is None or template is None or template.reaper is None:
            self.journal.swept(leftover)
            return

        def done(reaped: bool) -> None:
            self._doubts -= 1
            self.journal.swept(leftover, reaped=reaped)

        def doubted(cause: str) -> None:
            self.journal.doubted(Holder(leftover.run_id), leftover.template, accessor, name, cause)

        # Nobody knows whether it was minting when its process was killed.
        self._doubts += 1
        self._taken.add(accessor)
        self.reaper.take(Doubt(template, leftover.run_id, accessor, name, done, doubted))


def _cause(error: Exception) -> str:
    return str(error.cause_code if isinstance(error, Unavailable) else type(error).__name__)
