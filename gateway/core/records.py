"""Records of the signed log: their types, their envelope and their bytes.

A leaf is what the Merkle tree commits to for ever, so it holds ids, enumerations, numbers and keyed commitments only.
Arguments, goals, messages, upstream errors and whatever else a caller can write freely is payload: sealed, out of line,
and gone when its key is destroyed.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from gateway.core.canonical import MAX_SAFE_INTEGER, encode

VERSION = 1
SALT_SIZE = 16
MAX_LEAF = 65_535  # the entry length of C2SP tlog-tiles is a 16-bit number
MAX_REASONS = 32
_MAX_TEXT = 256
# What a body may be: no floats, no big integers, no long texts, one level of lists or objects.
_Integer = Annotated[int, msgspec.Meta(gt=-MAX_SAFE_INTEGER, lt=MAX_SAFE_INTEGER)]
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_TEXT)]
_Scalar = bool | _Integer | _Text | None
_SHAPE = msgspec.json.Decoder(dict[str, bool | _Integer | _Text | list[_Scalar] | dict[str, _Scalar] | None])
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/+-]{0,127}")


class EventType(StrEnum):
    """What a record says happened."""

    # Enum's own is Python, and each record is looked up by its type several times.
    __hash__ = str.__hash__

    # action added | retired, of a key that signs checkpoints.
    KEY = "key"
    # size, root, witness (vkey), time_s, signature: a witness's cosignature of a checkpoint.
    CHECKPOINT_WITNESSED = "checkpoint.witnessed"
    RUN_STARTED = "run.started"
    RUN_ENDED = "run.ended"
    # label, bytes: where a run stands; what its agent says of it is payload.
    STATE_SNAPSHOT = "state.snapshot"
    DECISION = "decision"
    # answer allow | ask | deny, else as a decision: what an agent was told that acts on its own. No record of a call.
    DECISION_ADVISORY = "decision.advisory"
    REQUEST_REFUSED = "request.refused"
    TOOL_REQUESTED = "tool.requested"
    TOOL_COMPLETED = "tool.completed"
    TOOL_FAILED = "tool.failed"
    TOOL_NOT_SENT = "tool.not_sent"
    TOOL_OUTCOME_UNKNOWN = "tool.outcome_unknown"
    REDACTION = "redaction"
    # kind elicitation | sampling | roots, decision_id, effect, reasons, revision, tool: asked of a client.
    INPUT_ASKED = "input.asked"
    # The same, of the client's answer.
    INPUT_ANSWERED = "input.answered"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_DECIDED = "approval.decided"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_VOID = "approval.void"
    REVIEWER_ENROLLED = "reviewer.enrolled"
    REVIEWER_REVOKED = "reviewer.revoked"
    API_KEY_CREATED = "key.created"
    API_KEY_REVOKED = "key.revoked"
    # day: days since the epoch; once a day and key.
    API_KEY_USED = "key.used"
    CREDENTIAL_LEASED = "credential.leased"
    CREDENTIAL_REVOKE_PENDING = "credential.revoke_pending"
    CREDENTIAL_REVOKED = "credential.revoked"
    # kind, subject; failed: cause.
    ROTATION_DONE = "rotation.done"
    ROTATION_FAILED = "rotation.failed"
    # action, kind, public, replica; offered: predecessor, signature, until_s. Of a key that gateways have in common.
    ROTATION_SHARED = "rotation.shared"
    # connection, scopes: a person lets the gateway act for them at a service; the actor is the person.
    CONNECTION_OPENED = "connection.opened"
    # connection: its person asked for its end, which a record of `connection.closed` says has come.
    CONNECTION_CLOSING = "connection.closing"
    # connection, cause asked | failed | refused; person (pseudonym) where a call found that it is broken.
    CONNECTION_CLOSED = "connection.closed"
    POLICY_ACTIVATED = "policy.activated"
    # tool, digest, was, basis, rules, key, signature: what was approved; the words themselves are payload.
    TOOL_PINNED = "tool.pinned"
    # tool, digest (of the pin), cause, now: a pinned tool that may not be used.
    TOOL_QUARANTINED = "tool.quarantined"
    ADMIN_CHANGE = "admin.change"
    QUERY = "query"
    # cause, subject (pseudonym) or None, keys: the data keys that were destroyed; why, in words, is payload.
    ERASURE = "erasure"
    # action set | released, target: run:ID or subject:PSEUDONYM; why, in words, is payload.
    LEGAL_HOLD = "legal_hold"
    # kind, mark of what is stopped, name where it is an id; who and why, in words, is payload. Its id names the kill.
    KILL_ENGAGED = "kill.engaged"
    # kill, calls, running, ended, not_ended, unverifiable: what one gateway did about it.
    KILL_CARRIED_OUT = "kill.carried_out"
    # kill, voter, votes, needed: one person asks to lift it.
    KILL_LIFT_ASKED = "kill.lift_asked"
    # kill, votes, needed.
    KILL_LIFTED = "kill.lifted"
    # view, roles, and which call, run, approvals or records (by index); no payload.
    PAYLOAD_VIEWED = "payload.viewed"


# The four ways an intent ends; each intent has exactly one of them.
ENDINGS = frozenset(
    {
        EventType.TOOL_COMPLETED,
        EventType.TOOL_FAILED,
        EventType.TOOL_NOT_SENT,
        EventType.TOOL_OUTCOME_UNKNOWN,
    }
)
# What must still be written when the disk is nearly full: what ends what was begun, and who looks into it.
CLOSINGS = ENDINGS | {
    EventType.QUERY,
    EventType.REDACTION,
    EventType.RUN_ENDED,
    EventType.CREDENTIAL_LEASED,
    EventType.CREDENTIAL_REVOKE_PENDING,
    EventType.CREDENTIAL_REVOKED,
    EventType.CONNECTION_CLOSING,
    EventType.CONNECTION_CLOSED,
    EventType.KILL_ENGAGED,
    EventType.KILL_CARRIED_OUT,
}


class Role(StrEnum):
    """What a payload is to its record."""

    RUN = "run"
    REQUEST = "request"
    REASONS = "reasons"
    ERROR = "error"
    RESULT = "result"
    CHANGE = "change"
    ACTION = "action"
    LEASE = "lease"
    QUERY = "query"
    STATE = "state"


class RecordError(ValueError):
    """A draft that may not become a record: it breaks the rules of the leaf."""


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who a record is about.

    Attributes:
        agent: the agent's id, or None.
        user: pseudonym of the user: a keyed hash, so erasing the key makes it nobody.
        authn: how the credential was checked; ``system`` for the gateway itself.
    """

    agent: str | None
    authn: str
    user: str | None


SYSTEM = Actor(None, "system", None)


class Payload(msgspec.Struct, frozen=True, gc=False):
    """Content to be sealed beside a record."""

    role: Role
    content: bytes
    mime: str = "application/json"


class PayloadRef(msgspec.Struct, frozen=True, gc=False, rename={"length": "len"}):
    """What the leaf says of a sealed payload.

    Attributes:
        commit: HMAC of the plaintext under a key derived from the data key, hex; says nothing once the key is gone.
        ct_sha256: digest of the stored (sealed) bytes, hex.
        dek: id of the data key.
        length: bytes of the plaintext; ``len`` in the leaf.
    """

    commit: str
    ct_sha256: str
    dek: str
    length: int
    mime: str
    role: str


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A record before the writer gives it its place.

    Attributes:
        id: UUIDv7.
        type: what happened.
        at_us: when, microseconds since the epoch.
        salt: random bytes, so that a leaf's hash does not betray a guessable record.
        actor: who.
        run_id: the run, or None outside any.
        call_id: the call, shared by all its records.
        body: what the type says; ids, enumerations, integers only.
        payloads: to be sealed.
        fences: keyed hashes of what would stop it: an intent that a kill in force covers is no record. Not written.
    """

    id: str
    type: EventType
    at_us: int
    salt: bytes
    actor: Actor
    run_id: str | None
    call_id: str | None
    body: Mapping[str, Any]
    payloads: tuple[Payload, ...] = ()
    fences: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, gc=False):
    """A record's place in its run.

    Attributes:
        seq_run: 0 for the first record of the run; None outside any run.
        prev_run: leaf hash of the run's record before it, hex; None for the first.
    """

    seq_run: int | None
    prev_run: str | None


class _Leaf(msgspec.Struct, frozen=True, gc=False):
    # In the order of their names, as are the members of all that stands in it: canonical without sorting.
    actor: Actor
    body: msgspec.Raw
    call_id: str | None
    id: str
    payloads: tuple[PayloadRef, ...]
    prev_run: str | None
    run_id: str | None
    salt: str
    seq_run: int | None
    ts: int
    type: str
    v: int


_IN_ORDER = msgspec.json.Encoder()


def leaf(draft: Draft, place: Place, refs: tuple[PayloadRef, ...]) -> bytes:
    """The record's canonical bytes, stored and hashed verbatim.

    Raises:
        RecordError: a float, a big integer, long or nested content, or too many bytes.
    """
    body = draft.body
    if draft.type is EventType.RUN_ENDED and place.seq_run is not None:
        # Said by the one who numbers: with it a run's timeline cannot be cut short unnoticed.
        body = {**body, "count": place.seq_run + 1}
    entry = _IN_ORDER.encode(
        _Leaf(
            actor=draft.actor,
            body=_checked(body),
            call_id=draft.call_id,
            id=draft.id,
            payloads=refs,
            prev_run=place.prev_run,
            run_id=draft.run_id,
            salt=draft.salt.hex(),
            seq_run=place.seq_run,
            ts=draft.at_us,
            type=draft.type._value_,
            v=VERSION,
        )
    )
    if len(entry) > MAX_LEAF:
        raise RecordError("the record is too long")
    return entry


def identifier(text: str) -> str:
    """``text`` where it looks like an id; otherwise the word ``irregular``, as free text may not stand in a leaf."""
    return text if _IDENTIFIER.fullmatch(text) else "irregular"


def _checked(body: Mapping[str, Any]) -> msgspec.Raw:
    try:
        encoded = encode(body)
        shaped = _SHAPE.decode(encoded)
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError) as error:
        raise RecordError(f"this may not stand in a record: {error}") from None
    if not encoded.isascii() and not all(key.isascii() for key in _keys(shaped)):
        raise RecordError("a key in the record is not ASCII")
    # The encoder writes null for what is no number.
    if encoded.find(b"null") >= 0 and any(isinstance(value, float) for value in _values(body)):
        raise RecordError("a float may not stand in a record")
    return msgspec.Raw(encoded)


def _keys(body: Mapping[str, Any]) -> Iterator[str]:
    yield from body
    for item in body.values():
        if isinstance(item, dict):
            yield from item


def _values(body: Mapping[str, Any]) -> Iterator[Any]:
    for item in body.values():
        if isinstance(item, dict):
            yield from item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            yield from item
        else:
            yield item
