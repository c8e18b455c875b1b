"""What is stopped, as the log says it; the writer follows it in its own transaction, so no intent slips past a kill."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.errors import Conflict, NotFound
from gateway.core.kills import Kind, Target, refusal, targets_of
from gateway.core.leasing import Holder
from gateway.core.records import Draft, EventType

KINDS = frozenset(
    {EventType.KILL_ENGAGED, EventType.KILL_CARRIED_OUT, EventType.KILL_LIFT_ASKED, EventType.KILL_LIFTED}
)
# One question for each type, as each of them is one range of the index.
_OF_TYPE = f"select idx, leaf from records where {RARE_TYPE} and type = ? and idx > ? order by idx"  # noqa: S608 - literals only
_KNOWN_MARKS, _KNOWN_HOLDERS = 8192, 2048
_Names = tuple[str | None, str | None, tuple[str, ...], str | None, str | None]


@dataclass(frozen=True, slots=True)
class Stand:
    """A kill in force: what it covers, and who has asked to lift it."""

    kind: Kind
    mark: str
    voters: frozenset[str] = frozenset()


Stands = Mapping[str, Stand]


class Marks:
    """Keyed hashes of what kills name; the same names come again with every call."""

    def __init__(self, keys: LogKeys) -> None:
        self._keys = keys
        self._known: dict[Target, str] = {}
        self._stopping: dict[_Names, tuple[str, ...]] = {}

    def of(self, target: Target) -> str:
        """The mark of what is named."""
        mark = self._known.get(target)
        if mark is None:
            if len(self._known) >= _KNOWN_MARKS:
                self._known.clear()
            mark = self._known[target] = self._keys.mark("kill", f"{target.kind}\0{target.name}")
        return mark

    def stopping(self, holder: Holder) -> tuple[str, ...]:
        """The marks of whatever would stop it, the widest first."""
        names = holder.user, holder.agent, holder.delegation, holder.run_id, holder.tool
        marks = self._stopping.get(names)
        if marks is None:
            if len(self._stopping) >= _KNOWN_HOLDERS:
                self._stopping.clear()
            marks = self._stopping[names] = tuple(map(self.of, targets_of(holder)))
        return marks


def follow(stands: Stands, draft: Draft) -> Stands:
    """What is in force after ``draft``.

    Raises:
        NotFound: it names a kill that is not in force.
        Conflict: the same person has asked already, or too few have.
    """
    body = draft.body
    if draft.type is EventType.KILL_ENGAGED:
        return {**stands, draft.id: Stand(Kind(body["kind"]), body["mark"])}
    if draft.type is EventType.KILL_CARRIED_OUT:
        return stands
    stand = stands.get(body["kill"])
    if stand is None:
        raise NotFound("no such kill is in force", cause_code="kill")
    if draft.type is EventType.KILL_LIFT_ASKED:
        if body["voter"] in stand.voters:
            raise Conflict("they have asked for this kill to be lifted already", cause_code="kill_voter")
        return {**stands, body["kill"]: replace(stand, voters=stand.voters | {body["voter"]})}
    if len(stand.voters) < max(1, body["needed"]):
        raise Conflict("too few persons have asked for this kill to be lifted", cause_code="kill_quorum")
    return {name: other for name, other in stands.items() if name != body["kill"]}


def admit(stands: Stands, draft: Draft) -> None:
    """Refuse an intent that a kill in force covers.

    Raises:
        Killed: one does.
    """
    if not stands:
        return
    for name, stand in stands.items():
        if stand.mark in draft.fences:
            raise refusal(stand.kind, name)


def load(db: Database) -> Stands:
    """What is in force by all records."""
    stands: dict[str, Stand] = {}
    for _, record in records(db):
        body = record["body"]
        if record["type"] == EventType.KILL_ENGAGED:
            stands[record["id"]] = Stand(Kind(body["kind"]), body["mark"])
        elif record["type"] == EventType.KILL_LIFTED:
            stands.pop(body["kill"], None)
        elif record["type"] == EventType.KILL_LIFT_ASKED and body["kill"] in stands:
            stand = stands[body["kill"]]
            stands[body["kill"]] = replace(stand, voters=stand.voters | {body["voter"]})
    return stands


def records(db: Database, after: int = -1) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records about kills behind the one at ``after``, in log order."""
    found = [row for kind in KINDS for row in db.execute(_OF_TYPE, (kind, after)).fetchall()]
    for index, entry in sorted(found, key=lambda row: row[0]):
        yield index, msgspec.json.decode(entry)
