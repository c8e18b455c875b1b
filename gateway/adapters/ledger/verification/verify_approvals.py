"""The part of verification that is about people: every signature in the log is good, and no approval was used twice.

A stranger needs nothing but the log for it: reviewers' public keys stand in their enrolments, and what each key signed
can be put together from the leaves (``core/signing.py``). Who can open the payloads checks, too, that they are what was
signed: names, arguments, roles. An approval moves by the same rules as when it was written.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.adapters.ledger.actiondoc import read_action
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.storage.claims import COLUMNS, Stand, stand_of
from gateway.adapters.ledger.verification.report import Report
from gateway.core.approval import EVENTS, OPEN, Action, Signature, State, Verdict, moved, satisfied
from gateway.core.errors import GatewayError
from gateway.core.records import EventType, RecordError, Role
from gateway.core.signing import (
    document_hash,
    enrolment_message,
    is_signed,
    is_sound_key,
    key_id,
    statement_hash,
    verdict_message,
)


class ApprovalBody(msgspec.Struct, gc=False):
    """What the leaves of approvals and reviewers say, as far as verification needs it."""

    approval: str | None = None
    action: str | None = None
    definition: str | None = None
    document: str | None = None
    enrolled_by: str | None = None
    expires_us: int | None = None
    key: str | None = None
    person: str | None = None
    persons: int | None = None
    public: str | None = None
    roles: list[str] = msgspec.field(default_factory=list)
    signature: str | None = None
    state: str | None = None
    statement: str | None = None
    tool: str | None = None
    verdict: str | None = None


class ApprovalLeaf(msgspec.Struct, gc=False):
    """A leaf, as far as approvals go."""

    id: str
    type: EventType
    ts: int
    run_id: str | None
    call_id: str | None
    body: ApprovalBody


_DECODER = msgspec.json.Decoder(ApprovalLeaf)
REVIEWING = frozenset({EventType.REVIEWER_ENROLLED, EventType.REVIEWER_REVOKED})
Opened = dict[str, bytes]


@dataclass(slots=True)
class _Holder:
    """An enrolled key so far."""

    public: bytes
    person: str | None
    roles: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class _Asked:
    """A requested approval so far."""

    body: ApprovalBody
    run_id: str | None
    action: Action | None
    words: list[Signature] = field(default_factory=list)


class Signatures:
    """Follows reviewers and approvals through one pass over a log.

    ``origin`` is the log's name in what reviewers sign.
    """

    def __init__(self, report: Report, origin: str) -> None:
        self._report = report
        self._origin = origin
        self._holders: dict[str, _Holder] = {}
        self._documents: set[str] = set()
        self._stands: dict[str, Stand] = {}
        self._asked: dict[str, _Asked] = {}

    def record(self, kind: EventType, index: int, entry: bytes, opened: Opened) -> None:
        """Take the record at ``index``, which names an approval or is one of ``REVIEWING``.

        Notes a finding where it cannot have been written so.

        ``opened`` are its payloads by role, as far as they were opened.
        """
        if kind not in EVENTS and kind not in REVIEWING:
            return
        leaf = _DECODER.decode(entry)
        if kind is EventType.REVIEWER_ENROLLED:
            problem = self._enrolled(leaf, index, opened)
        elif kind is EventType.REVIEWER_REVOKED:
            problem = self._revoked(leaf)
        else:
            problem = self._approval(leaf, index, opened)
        if problem is not None:
            self._report.add(index, leaf.id, problem)

    def finish(self, db: Database) -> None:
        """Hold the list of approvals against what the records say."""
        stored = {row[0]: stand_of(row[1:]) for row in db.execute(f"select id, {COLUMNS} from approvals")}  # noqa: S608 - a literal
        if stored != self._stands:
            self._report.add(None, None, "the list of approvals is not what the records say")

    def _revoked(self, leaf: ApprovalLeaf) -> str | None:
        holder = self._holders.get(leaf.body.key or "")
        if holder is None:
            return "a key is revoked that was never enrolled"
        holder.revoked = True
        return None

    def _enrolled(self, leaf: ApprovalLeaf, index: int, opened: Opened) -> str | None:
        said = leaf.body
        public = _bytes(said.public)
        if said.key is None or key_id(public) != said.key or not is_sound_key(public):
            return "the enrolled key is not the one its id names, or no sound key"
        if said.key in self._holders or said.document is None or said.document in self._documents:
            return "the key, or this very enrolment, was enrolled before"
        problem = self._unsigned(said, index) if said.enrolled_by is None else self._countersigned(said)
        self._holders[said.key] = _Holder(public, said.person, frozenset(said.roles))
        self._documents.add(said.document)
        return problem or _misnamed(said, opened)

    def _unsigned(self, said: ApprovalBody, index: int) -> str | None:
        if any(not holder.revoked for holder in self._holders.values()):
            return "a key was enrolled that no enrolled key has signed"
        if self._holders:
            self._report.notices.append(
                f"record {index}: all keys were revoked, and {said.key} was enrolled with no key's signature"
            )
        return None

    def _countersigned(self, said: ApprovalBody) -> str | None:
        signer = self._holders.get(said.enrolled_by or "")
        if signer is None or signer.revoked:
            return "the key that signed this enrolment was not enrolled"
        message = enrolment_message(self._origin, said.public or "", said.roles, said.document or "")
        good = is_signed(signer.public, _bytes(said.signature), message)
        return None if good else "the signature of this enrolment is not good"

    def _approval(self, leaf: ApprovalLeaf, index: int, opened: Opened) -> str | None:
        approval_id = leaf.body.approval
        if approval_id is None:
            return None
        stand = self._stands.get(approval_id)
        try:
            state = moved(None if stand is None else stand.state, leaf.type, leaf.body.state)
        except RecordError as error:
            return str(error)
        if stand is None:
            return self._requested(
                leaf, Stand(str(leaf.body.action), state, index, leaf.ts, leaf.body.expires_us or 0), opened
            )
        claims = leaf.type is EventType.TOOL_REQUESTED
        self._stands[approval_id] = stand.after(state, leaf.ts, leaf.call_id if claims else None)
        asked = self._asked[approval_id]
        if claims:
            return _misused(leaf, asked, opened)
        return self._decided(leaf, asked) if leaf.type is EventType.APPROVAL_DECIDED else None

    def _requested(self, leaf: ApprovalLeaf, stand: Stand, opened: Opened) -> str | None:
        twin = any(one.action == stand.action and one.state in OPEN for one in self._stands.values())
        self._stands[str(leaf.body.approval)] = stand
        content = opened.get(Role.ACTION)
        action = None if content is None else _action(content)
        self._asked[str(leaf.body.approval)] = _Asked(leaf.body, leaf.run_id, action)
        if twin:
            return "an approval of the same action was open"
        said = None if action is None else statement_hash(action.statement()).hex()
        is_other = content is not None and (action is None or said != leaf.body.statement)
        return "the sealed action is not the one the request speaks of" if is_other else None

    def _decided(self, leaf: ApprovalLeaf, asked: _Asked) -> str | None:
        said = leaf.body
        holder = self._holders.get(said.key or "")
        if holder is None or holder.revoked:
            return "the reviewer's key was not enrolled when this was decided"
        face = {"origin": self._origin, **{name: getattr(asked.body, name) for name in _FACE}}
        message = verdict_message(face, said.verdict or "", said.statement or "")
        if not is_signed(holder.public, _bytes(said.signature), message):
            return "the reviewer's signature is not good"
        if said.person != holder.person:
            return "the key is not that of the person who is said to have decided"
        if (said.verdict == Verdict.REJECT) is not (said.state == State.REJECTED):
            return "the verdict and the state it led to do not fit"
        return None if said.verdict == Verdict.REJECT else self._approved(leaf, asked, holder)

    def _approved(self, leaf: ApprovalLeaf, asked: _Asked, holder: _Holder) -> str | None:
        said = leaf.body
        if said.statement != asked.body.statement:
            return "what was approved is not the action that was asked for"
        asked.words.append(Signature(said.key or "", said.person or "", holder.roles, Verdict.APPROVE, leaf.ts))
        # A signature of a key that was revoked since is none: as when it was decided.
        words = [word for word in asked.words if not self._holders[word.key_id].revoked]
        if said.state != State.APPROVED:
            return None
        if len({word.person for word in words}) < (asked.body.persons or 1):
            return "fewer persons approved than were asked for"
        if asked.action is not None and not satisfied(asked.action.requirements, words):
            return "those who approved have not the roles that were asked for"
        return None


_FACE = ("approval", "tool", "definition", "expires_us")


def _misnamed(said: ApprovalBody, opened: Opened) -> str | None:
    content = opened.get(Role.CHANGE)
    if content is None:
        return None
    document: dict[str, Any] = msgspec.json.decode(content)
    same = document_hash(document) == said.document and document.get("public") == said.public
    return None if same and sorted(document.get("roles", ())) == sorted(said.roles) else _OTHER_ENROLMENT


_OTHER_ENROLMENT = "the sealed enrolment is not the one the record speaks of"


def _misused(leaf: ApprovalLeaf, asked: _Asked, opened: Opened) -> str | None:
    said, wanted = leaf.body, asked.body
    if (said.tool, said.definition, leaf.run_id) != (wanted.tool, wanted.definition, asked.run_id):
        return "the approval was used for another tool or in another run"
    if leaf.ts >= (wanted.expires_us or 0):
        return "the approval was used after it had lapsed"
    content = opened.get(Role.REQUEST)
    if content is None or asked.action is None:
        return None
    digest = msgspec.json.decode(content).get("digest")
    return None if digest == asked.action.arguments.digest else "other arguments were sent than were approved"


def _action(content: bytes) -> Action | None:
    try:
        return read_action(content)
    except (msgspec.MsgspecError, GatewayError):
        return None


def _bytes(text: str | None) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        return b""
