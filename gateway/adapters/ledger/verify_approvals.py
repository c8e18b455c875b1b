"""The part of verification that is about people: every signature in the log is good, and no approval was used twice.

A stranger needs nothing but the log for it: reviewers' public keys stand in their enrolments, the hash of what each
verdict is about stands beside its signature, and an approval moves by the same rules as when it was written.
"""

import sqlite3

import msgspec

from gateway.adapters.ledger.claims import COLUMNS, Stand, stand_of
from gateway.adapters.ledger.report import Report
from gateway.core.approval import (
    EVENTS,
    State,
    Verdict,
    approval_message,
    enrolment_message,
    is_signed,
    key_id,
    moved,
)
from gateway.core.records import EventType, RecordError


class ApprovalBody(msgspec.Struct, gc=False):
    """What the leaves of approvals and reviewers say, as far as verification needs it."""

    approval: str | None = None
    action: str | None = None
    action_hash: str | None = None
    document: str | None = None
    enrolled_by: str | None = None
    key: str | None = None
    person: str | None = None
    persons: int | None = None
    public: str | None = None
    signature: str | None = None
    state: str | None = None
    verdict: str | None = None


class ApprovalLeaf(msgspec.Struct, gc=False):
    """A leaf, as far as approvals go."""

    id: str
    type: EventType
    ts: int
    call_id: str | None
    body: ApprovalBody


_DECODER = msgspec.json.Decoder(ApprovalLeaf)
_REVIEWERS = frozenset({EventType.REVIEWER_ENROLLED, EventType.REVIEWER_REVOKED})


class Signatures:
    """Follows reviewers and approvals through one pass over a log."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._keys: dict[str, bytes] = {}
        self._holders: dict[str, str | None] = {}
        self._revoked: set[str] = set()
        self._stands: dict[str, Stand] = {}
        self._asked: dict[str, ApprovalBody] = {}
        self._approvers: dict[str, set[str | None]] = {}

    def record(self, kind: EventType, index: int, entry: bytes) -> None:
        """Take the record at ``index``; note a finding where it cannot have been written so."""
        if kind not in EVENTS and kind not in _REVIEWERS:
            return
        leaf = _DECODER.decode(entry)
        problem = self._reviewer(leaf) if kind in _REVIEWERS else self._approval(leaf, index)
        if problem is not None:
            self._report.add(index, leaf.id, problem)

    def finish(self, db: sqlite3.Connection) -> None:
        """Hold the list of approvals against what the records say."""
        stored = {row[0]: stand_of(row[1:]) for row in db.execute(f"select id, {COLUMNS} from approvals")}  # noqa: S608 - a literal
        if stored != self._stands:
            self._report.add(None, None, "the list of approvals is not what the records say")

    def _reviewer(self, leaf: ApprovalLeaf) -> str | None:
        said = leaf.body
        if leaf.type is EventType.REVIEWER_REVOKED:
            self._revoked.add(said.key or "")
            return None if said.key in self._keys else "a key is revoked that was never enrolled"
        public = _bytes(said.public)
        if key_id(public) != said.key:
            return "the enrolled key is not the one its id names"
        active = self._keys.keys() - self._revoked
        self._keys[said.key], self._holders[said.key] = public, said.person
        if said.enrolled_by is None:
            return "a key was enrolled that no enrolled key has signed" if active else None
        if said.enrolled_by not in active:
            return "the key that signed this enrolment was not enrolled"
        message = enrolment_message(_bytes(said.document))
        good = is_signed(self._keys[said.enrolled_by], _bytes(said.signature), message)
        return None if good else "the signature of this enrolment is not good"

    def _approval(self, leaf: ApprovalLeaf, index: int) -> str | None:
        approval_id = leaf.body.approval
        if approval_id is None:
            return None
        stand = self._stands.get(approval_id)
        try:
            state = moved(None if stand is None else stand.state, leaf.type, leaf.body.state)
        except RecordError as error:
            return str(error)
        self._stands[approval_id] = _next(stand, state, leaf, index)
        if leaf.type is EventType.APPROVAL_REQUESTED:
            self._asked[approval_id] = leaf.body
            return None
        return self._decision(leaf, approval_id) if leaf.type is EventType.APPROVAL_DECIDED else None

    def _decision(self, leaf: ApprovalLeaf, approval_id: str) -> str | None:
        said = leaf.body
        if said.key is None or said.key not in self._keys or said.key in self._revoked:
            return "the reviewer's key was not enrolled when this was decided"
        if not is_signed(self._keys[said.key], _bytes(said.signature), approval_message(_bytes(said.action_hash))):
            return "the reviewer's signature is not good"
        if said.person != self._holders[said.key]:
            return "the key is not that of the person who is said to have decided"
        if (said.verdict == Verdict.REJECT) is not (said.state == State.REJECTED):
            return "the verdict and the state it led to do not fit"
        return None if said.verdict == Verdict.REJECT else self._approved(said, approval_id)

    def _approved(self, said: ApprovalBody, approval_id: str) -> str | None:
        asked = self._asked[approval_id]
        if said.action_hash != asked.action_hash:
            return "what was approved is not the action that was asked for"
        persons = self._approvers.setdefault(approval_id, set())
        persons.add(said.person)
        if said.state == State.APPROVED and len(persons) < (asked.persons or 1):
            return "fewer persons approved than were asked for"
        return None


def _next(stand: Stand | None, state: State, leaf: ApprovalLeaf, index: int) -> Stand:
    if stand is None:
        return Stand(str(leaf.body.action), state, index, leaf.ts)
    call_id = leaf.call_id if leaf.type is EventType.TOOL_REQUESTED else stand.call_id
    return Stand(stand.action, state, stand.index, leaf.ts, call_id)


def _bytes(text: str | None) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        return b""
