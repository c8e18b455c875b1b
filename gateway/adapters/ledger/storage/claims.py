"""Where each approval stands, kept by the writer in the transaction that writes the record which moves it.

An intent that needs an approval claims it here: the intent and the claim are one transaction, so whoever comes second,
in this process or after a crash, finds that there is nothing left to claim.
"""

from dataclasses import dataclass, field
from typing import Any

from gateway.adapters.ledger.database import Database
from gateway.core.approval import EVENTS, OPEN, State, moved
from gateway.core.records import Draft, EventType, RecordError

COLUMNS = "action, state, idx, at_us, expires_us, call_id"


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one approval stands.

    Attributes:
        action: keyed mark of what it is for; one open approval each.
        index: record that requested it.
        at_us: when it was last moved.
        expires_us: from when on no intent may use it.
        call_id: the call that claimed it last, or None.
    """

    action: str
    state: State
    index: int
    at_us: int
    expires_us: int
    call_id: str | None = None

    def after(self, state: State, at_us: int, call_id: str | None) -> "Stand":
        """Where it stands after a move; ``call_id`` is the call that claims it, None for any other move."""
        return Stand(self.action, state, self.index, at_us, self.expires_us, call_id or self.call_id)


@dataclass(slots=True)
class Claims:
    """The approvals that one caller's drafts move, on top of those moved before in the same transaction.

    Attributes:
        before: moved earlier in the transaction.
        moved: by approval id.
    """

    db: Database
    before: dict[str, Stand] = field(default_factory=dict)
    moved: dict[str, Stand] = field(default_factory=dict)

    def take(self, draft: Draft, index: int) -> None:
        """Move the approval that the record at ``index`` names; records that name none move none.

        Raises:
            RecordError: it cannot be moved so: it is not approved, used already, or one like it is open.
        """
        approval_id = draft.body.get("approval")
        if approval_id is None or draft.type not in EVENTS:
            return
        stand = self._stand(approval_id)
        state = moved(None if stand is None else stand.state, draft.type, draft.body.get("state"))
        if stand is None:
            said = Stand(str(draft.body["action"]), state, index, draft.at_us, int(draft.body["expires_us"]))
            self._open(approval_id, said)
            return
        claims = draft.type is EventType.TOOL_REQUESTED
        if claims and draft.at_us >= stand.expires_us:
            raise RecordError("the approval has lapsed")
        self.moved[approval_id] = stand.after(state, draft.at_us, draft.call_id if claims else None)

    def _open(self, approval_id: str, stand: Stand) -> None:
        here = {**self.before, **self.moved}
        stored = self.db.execute(
            "select id from approvals where action = ? and state in ('pending', 'approved', 'executing')",
            (stand.action,),
        ).fetchall()
        open_elsewhere = {name for (name,) in stored if name not in here}
        open_here = {name for name, other in here.items() if other.action == stand.action and other.state in OPEN}
        if open_elsewhere | open_here:
            raise RecordError("an approval of the same action is open")
        self.moved[approval_id] = stand

    def _stand(self, approval_id: str) -> Stand | None:
        known = self.moved.get(approval_id) or self.before.get(approval_id)
        if known is not None:
            return known
        row = self.db.execute(f"select {COLUMNS} from approvals where id = ?", (approval_id,)).fetchone()  # noqa: S608 - a literal
        return None if row is None else stand_of(row)


def stand_of(row: tuple[Any, ...]) -> Stand:
    """A row of ``COLUMNS``."""
    return Stand(row[0], State(row[1]), row[2], row[3], row[4], row[5])


def store(db: Database, stands: dict[str, Stand]) -> None:
    """Write where the approvals of a transaction stand at its end."""
    # What closes first: in one transaction an approval may end and another of the same action be opened.
    for is_open in (False, True):
        db.executemany(
            db.dialect.put("approvals", f"id, {COLUMNS}"),
            [_row(name, stand) for name, stand in stands.items() if (stand.state in OPEN) is is_open],
        )


def _row(name: str, stand: Stand) -> tuple[Any, ...]:
    return (name, stand.action, str(stand.state), stand.index, stand.at_us, stand.expires_us, stand.call_id)
