"""Who searched the log, and for what, in the same log."""

from collections import OrderedDict
from typing import Any

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.inquiry import Query, Searched
from gateway.core.ports import Clock
from gateway.core.records import EventType, Payload, Role, identifier

FOLLOWING_S = 900.0
_MAX_FOLLOWERS = 1024


class SearchLog:
    """Implements ``core.desk.Searches`` on the ledger.

    The leaf says which fields were searched by and how many records were found; what they were searched for is sealed,
    as a query can hold whatever its writer put there.
    """

    def __init__(self, ledger: Ledger, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._scribe = Scribe(clock, keys)
        self._clock = clock
        self._following: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def record(self, by: Principal, searched: Searched) -> None:
        """Write ``query`` durably; see ``core.desk.Searches``."""
        fields = searched.query.fields
        reader = (by.key, by.auth_method)
        now = self._clock.monotonic()
        if searched.follows and now - self._following.get(reader, -FOLLOWING_S) < FOLLOWING_S:
            return
        body = {
            "after": searched.query.after,
            "door": identifier(searched.door),
            "fields": list(fields),
            "results": searched.results,
        }
        payload = Payload(Role.QUERY, encode(_wording(searched)))
        draft = self._scribe.draft(EventType.QUERY, Subject(self._scribe.actor(by)), body, payload)
        await self._ledger.append([draft])
        if searched.follows:
            self._following[reader] = now
            self._following.move_to_end(reader)
            if len(self._following) > _MAX_FOLLOWERS:
                self._following.popitem(last=False)


def _wording(searched: Searched) -> dict[str, Any]:
    query: Query = searched.query
    terms = [
        {"field": term.field, "negated": term.negated, "value": term.value.encode("utf-8", "replace").decode()}
        for term in query.conditions
    ]
    return {
        "limit": query.limit,
        "malformed": searched.is_malformed,
        "since_us": query.since_us,
        "terms": terms,
        "text": searched.text,
        "until_us": query.until_us,
    }
