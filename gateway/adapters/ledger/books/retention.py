"""Lets go of what is old, while the clock can be believed: what it destroys does not come back when the clock does."""

import logging
from typing import Protocol

from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.core.ports import Clock

_LOG = logging.getLogger("gateway.retention")
_DAY_US = 86_400_000_000
_ROUND_S = 3600.0
_UNEVEN_US = 600_000_000  # in a round; a clock that is kept by the network is moved by less
_CALM_S = 86_400.0


class Retiring(Protocol):
    """Destroys what is old."""

    async def retire(self, older_us: int) -> int:
        """Destroy the data keys of what is older; returns how many."""


class Retention(Tended):
    """Lets go of what is older than ``days``, once an hour; an async context manager.

    Not in its first hour, in which a clock that is wrong after a boot is usually put right; and for a day after the
    clock was seen to be set, in which somebody may put it back.
    """

    def __init__(self, custodian: Retiring, clock: Clock, days: int) -> None:
        self._custodian = custodian
        self._clock = clock
        self._age_us = days * _DAY_US
        self._seen = self._times()
        self._not_before = self._seen[0] + _ROUND_S
        self._rounds = Rounds(self._round, _ROUND_S, "retention could not do its round", at_once=True)

    async def once(self) -> int:
        """One round; how many data keys were destroyed.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        self._watch()
        if self._seen[0] < self._not_before:
            return 0
        return await self._custodian.retire(self._seen[1] - self._age_us)

    def _times(self) -> tuple[float, int]:
        return self._clock.monotonic(), self._clock.now_us()

    def _watch(self) -> None:
        before, self._seen = self._seen, self._times()
        passed_us = round((self._seen[0] - before[0]) * 1_000_000)
        moved_us = self._seen[1] - before[1] - passed_us
        if abs(moved_us) > _UNEVEN_US:
            self._not_before = self._seen[0] + _CALM_S
            _LOG.warning(
                "retention: the clock was set by %d s; nothing is let go of for a day", round(moved_us / 1_000_000)
            )

    async def _round(self) -> None:
        count = await self.once()
        if count:
            _LOG.info("retention: %d data keys were destroyed", count)
