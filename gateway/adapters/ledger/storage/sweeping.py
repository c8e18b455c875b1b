"""Cleaning up after destroyed data keys: whatever copies of them a store keeps are gone before it says so."""

import logging

from gateway.adapters.ledger.database import FAULTS, Database
from gateway.adapters.ledger.storage.site import Site
from gateway.core.ports import Clock

_LOG = logging.getLogger("gateway.ledger")
_SWEEP_S = 1.0


class Sweeping:
    """Tries with each write, once a second at most.

    Attributes:
        swept: whether what destroyed data keys leave was cleaned up: in SQLite, that no copy is left.
    """

    def __init__(self, site: Site, clock: Clock) -> None:
        self.swept = False
        self._site = site
        self._clock = clock
        self._at: float | None = None

    def soiled(self) -> None:
        """Keys were destroyed just now."""
        self.swept, self._at = False, None

    def sweep(self, db: Database | None) -> None:
        """Clean up, where that is still to be done."""
        if self.swept or db is None:
            return
        now = self._clock.monotonic()
        if self._at is not None and now - self._at < _SWEEP_S:
            return
        self._at = now
        try:
            self.swept = self._site.sweep(db)
        except FAULTS:
            _LOG.warning("the write-ahead log cannot be emptied: tried again")
