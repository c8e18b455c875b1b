"""Connections of persons that were opened and closed, in the same log: implements ``ConnectionJournal``."""

import logging
from collections.abc import Sequence

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.handing import Durable
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.call import Principal
from gateway.core.connections import Person
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, EventType, identifier

_LOG = logging.getLogger("gateway.ledger")


class ConnectionLog:
    """The journal on the ledger. The person stands in the leaf by pseudonym; no token is in it."""

    def __init__(self, ledger: Ledger, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._scribe = Scribe(clock, keys)

    async def opened(self, by: Principal, name: str, scopes: Sequence[str]) -> None:
        """Durably; see ``core.connections.ConnectionJournal``."""
        body = {"connection": identifier(name), "scopes": [identifier(scope) for scope in scopes]}
        subject = Subject(self._scribe.actor(by))
        await self._ledger.append([self._scribe.draft(EventType.CONNECTION_OPENED, subject, body)])

    async def closing(self, by: Principal, name: str) -> None:
        """Durably; see ``core.connections.ConnectionJournal``."""
        subject = Subject(self._scribe.actor(by))
        body = {"connection": identifier(name)}
        await self._ledger.append([self._scribe.draft(EventType.CONNECTION_CLOSING, subject, body)])

    async def closed(self, by: Principal, name: str, cause: str) -> None:
        """Durably, or as soon as the log can be written; see ``core.connections.ConnectionJournal``."""
        body = {"cause": identifier(cause), "connection": identifier(name)}
        draft = self._scribe.draft(EventType.CONNECTION_CLOSED, Subject(self._scribe.actor(by)), body)
        try:
            await self._ledger.append([draft])
        except Unavailable:
            self._ledger.owe([draft])
            raise

    def broken(self, person: Person, holder: Holder, name: str) -> None:
        """Handed to the log; see ``core.connections.ConnectionJournal``."""
        body = {
            "cause": "refused",
            "connection": identifier(name),
            "person": self._keys.mark("user", f"{person.issuer}|{person.user}"),
        }
        subject = Subject(SYSTEM, holder.run_id, holder.call_id)
        draft = self._scribe.draft(EventType.CONNECTION_CLOSED, subject, body)

        def settle(durable: Durable) -> None:
            if durable.exception() is not None:
                _LOG.warning("the record of a broken connection could not be written yet")
                self._ledger.owe([draft])

        self._ledger.submit([draft]).add_done_callback(settle)
