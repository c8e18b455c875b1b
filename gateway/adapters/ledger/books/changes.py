"""What administrators do at the gateway itself, in the same log as what agents do through it."""

from collections.abc import Mapping
from typing import Any

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.ports import Clock
from gateway.core.records import EventType, Payload, Role, identifier


class ChangeLog:
    """Implements ``core.desk.Changes`` on the ledger."""

    def __init__(self, ledger: Ledger, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._scribe = Scribe(clock, keys)

    async def record(self, by: Principal, action: str, details: Mapping[str, Any]) -> None:
        """Write ``admin.change`` durably; see ``core.desk.Changes``."""
        payload = Payload(Role.CHANGE, encode(details))
        subject = Subject(self._scribe.actor(by))
        draft = self._scribe.draft(EventType.ADMIN_CHANGE, subject, {"action": identifier(action)}, payload)
        await self._ledger.append([draft])
