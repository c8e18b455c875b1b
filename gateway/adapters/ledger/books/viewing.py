"""Who looked at payloads, in the same log."""

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.call import Principal
from gateway.core.custody import Seen
from gateway.core.ports import Clock
from gateway.core.records import EventType


class ViewLog:
    """Implements ``core.custody.Views`` on the ledger."""

    def __init__(self, ledger: Ledger, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._scribe = Scribe(clock, keys)

    async def record(self, by: Principal, seen: Seen) -> None:
        """Write ``payload.viewed``; see ``core.custody.Views``."""
        body = {"roles": sorted(seen.roles), "view": seen.view, **seen.which}
        # In no run: a run's chain is closed by its end, and who looks later is no part of what happened in it.
        await self._ledger.append([self._scribe.draft(EventType.PAYLOAD_VIEWED, Subject(self._scribe.actor(by)), body)])
