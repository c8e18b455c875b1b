"""Records that the writer itself owes the log when it opens: what a dead process left open, what was put back."""

import logging
from collections.abc import Sequence

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.storage import custody
from gateway.core.records import Actor, Draft, EventType

_LOG = logging.getLogger("gateway.ledger")
_INTENT = "select leaf from records where call_id = ? and type = ?"


class Amends:
    """Drafts them."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe

    def ending(self, db: Database, call_id: str, kind: EventType, cause: str) -> Sequence[Draft]:
        """The end of a call that nobody else will end."""
        row = db.execute(_INTENT, (call_id, EventType.TOOL_REQUESTED)).fetchone()
        intent = msgspec.json.decode(row[0])
        subject = Subject(Actor(**intent["actor"]), intent["run_id"], call_id)
        said = {"cause": cause, "code": kind.removeprefix("tool."), "tool": intent["body"]["tool"]}
        if "approval" in intent["body"]:
            said["approval"] = intent["body"]["approval"]
        return [self._scribe.draft(kind, subject, said)]

    def erasures(self, db: Database) -> list[Sequence[Draft]]:
        """Data keys that were destroyed and are there again are destroyed again."""
        back = custody.returned(db)
        if back:
            _LOG.warning("%d destroyed data keys were back, from an older copy of the log: destroyed again", len(back))
        parts = (back[at : at + custody.MOST_KEYS] for at in range(0, len(back), custody.MOST_KEYS))
        return [
            [self._scribe.draft(EventType.ERASURE, Subject(), custody.erasure_body(custody.Cause.RETURNED, part))]
            for part in parts
        ]
