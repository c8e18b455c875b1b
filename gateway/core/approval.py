"""Approvals: what a person signs, when the signatures are enough, and the states an approval goes through.

An approval binds one action: the exact arguments, the pinned tool, the caller and the run. Whether a call may go on is
never the approval's word: policy is asked again, with the signatures.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.core.call import Channel, Principal, Reported, Resolved
from gateway.core.canonical import Arguments
from gateway.core.decision import Decision, Effect, Requirement, as_approved
from gateway.core.errors import Reason
from gateway.core.records import ENDINGS, EventType, RecordError
from gateway.core.signing import VERSION


class State(StrEnum):
    """Where an approval is. ``ended`` means that it was used: what came of it stands in the call's own records."""

    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    ENDED = "ended"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


OPEN = frozenset({State.PENDING, State.APPROVED, State.EXECUTING})
EVENTS = frozenset(
    {
        EventType.APPROVAL_REQUESTED,
        EventType.APPROVAL_DECIDED,
        EventType.APPROVAL_EXPIRED,
        EventType.APPROVAL_VOID,
        EventType.TOOL_REQUESTED,
        *ENDINGS,
    }
)
_UNDECIDED = frozenset({State.PENDING, State.APPROVED})
# Event -> states it may come in, and the state it leads to where the record does not say.
_MOVES: Mapping[EventType, tuple[frozenset[State | None], State]] = {
    EventType.APPROVAL_REQUESTED: (frozenset({None}), State.PENDING),
    EventType.APPROVAL_EXPIRED: (_UNDECIDED, State.EXPIRED),
    EventType.APPROVAL_VOID: (_UNDECIDED, State.VOID),
    EventType.TOOL_REQUESTED: (frozenset({State.APPROVED}), State.EXECUTING),
    # Nothing left: the approval is as good as before.
    EventType.TOOL_NOT_SENT: (frozenset({State.EXECUTING}), State.APPROVED),
    **{kind: (frozenset({State.EXECUTING}), State.ENDED) for kind in ENDINGS - {EventType.TOOL_NOT_SENT}},
}


class Verdict(StrEnum):
    """What a reviewer says."""

    APPROVE = "approve"
    REJECT = "reject"


def moved(state: State | None, kind: EventType, said: object = None) -> State:
    """The state after a record of type ``kind``; ``said`` is the state an ``approval.decided`` record leads to.

    The writer admits no record this refuses, and the verifier walks the same way.

    Raises:
        RecordError: an approval cannot go that way.
    """
    if kind is EventType.APPROVAL_DECIDED:
        # What was approved stays so whoever else approves; only a rejection takes it back.
        after = {State.PENDING: {"pending", "approved", "rejected"}, State.APPROVED: {"approved", "rejected"}}
        if state is None or said not in after.get(state, ()):
            raise RecordError("the approval is not open for a decision")
        return State(str(said))
    admitted, to = _MOVES[kind]
    if state not in admitted:
        raise RecordError(f"an approval that is {state or 'not there'} cannot take {kind}")
    return to


@dataclass(frozen=True, slots=True)
class Signature:
    """One reviewer's verified word on one approval.

    Attributes:
        key_id: the enrolled key.
        person: whose key it is; quorum counts persons.
        roles: the person's roles.
        at_us: when it was given, microseconds.
    """

    key_id: str
    person: str
    roles: frozenset[str]
    verdict: Verdict
    at_us: int


@dataclass(frozen=True, slots=True)
class Action:
    """A parked call: everything a reviewer is shown, and everything it takes to carry it out later.

    Attributes:
        id: UUIDv7 of the approval.
        origin: the log it is kept in; a signature is good for no other one.
        nonce: random hex, so that the hash of the action tells nothing of it.
        call_id: the call that was parked.
        principal: who called; their credential is not kept.
        tool: ``server.tool``.
        definition: the tool's pin.
        arguments: canonical, whole.
        requirements: what policy asked for.
        reasons: why, in sentences.
        revision: the policy revision that asked.
        requested_us: when, microseconds.
        expires_us: when it lapses, microseconds.
        reported: what the agent said of the call: it is decided again with the same.
    """

    id: str
    origin: str
    nonce: str
    call_id: str
    principal: Principal
    run: str
    channel: Channel
    tool: str
    definition: str
    arguments: Arguments
    requirements: tuple[Requirement, ...]
    reasons: tuple[Reason, ...]
    revision: str
    requested_us: int
    expires_us: int
    reported: Reported = field(default_factory=Reported)

    def statement(self) -> dict[str, Any]:
        """What the action is, as JSON values: what reviewers are shown and sign (``core/signing.py``)."""
        who = self.principal
        return {
            "v": VERSION,
            "origin": self.origin,
            "approval": self.id,
            "nonce": self.nonce,
            "tool": self.tool,
            "definition": self.definition,
            "arguments_sha256": self.arguments.digest,
            "issuer": who.issuer,
            "user": who.user,
            "agent": who.agent,
            "run": self.run,
            "revision": self.revision,
            "requested_us": self.requested_us,
            "expires_us": self.expires_us,
            "requirements": [
                {"id": need.id, "quorum": need.quorum, "roles": list(need.roles)} for need in self.requirements
            ],
        }

    def is_of(self, target: Resolved) -> bool:
        """Whether ``target`` is exactly the action: same caller and actors, run, pinned tool and arguments."""
        asked = (acting(target.caller.principal), target.caller.run.id, target.tool.fqn, target.tool.digest)
        own = (acting(self.principal), self.run, self.tool, self.definition)
        return asked == own and target.call.arguments.digest == self.arguments.digest


@dataclass(frozen=True, slots=True)
class Grant:
    """The signatures an action has when it is carried out."""

    action: Action
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Reviewer:
    """An enrolled key.

    Attributes:
        key_id: see ``signing.key_id``.
        public: raw Ed25519 public key, 32 bytes.
        person: who holds it.
        roles: what the person may approve as.
        accounts: (issuer, user) of the person where they also call or open runs; they approve none of their own.
        enrolled_by: key that signed the enrolment; None for the first.
        revoked: whether it counts no more.
    """

    key_id: str
    public: bytes = field(repr=False)
    person: str
    roles: frozenset[str]
    accounts: frozenset[tuple[str, str]]
    enrolled_by: str | None = None
    revoked: bool = False


def acting(principal: Principal) -> tuple[str, ...]:
    """The caller with whoever acts: what one chain of actors asked for and was told is not another one's."""
    return (principal.key, *principal.delegation)


def satisfied(requirements: Iterable[Requirement], signatures: Sequence[Signature]) -> bool:
    """Whether the signatures are enough: for each requirement, so many persons in one of its roles."""
    return all(missing(need, signatures) == 0 for need in requirements)


def missing(need: Requirement, signatures: Sequence[Signature]) -> int:
    """How many persons' signatures a requirement still lacks; one who rejected does not count."""
    against = {said.person for said in signatures if said.verdict is Verdict.REJECT}
    persons = {said.person for said in signatures if not need.roles or said.roles.intersection(need.roles)} - against
    return max(0, need.quorum - len(persons))


def with_approval(decision: Decision, grant: Grant | None, target: Resolved) -> Decision:
    """The decision as it stands with what people signed: an approval that is asked for and given is an allow.

    Only for exactly the action they signed, and only where policy now asks for no more than they gave.
    """
    if grant is None or decision.effect is not Effect.NEEDS_APPROVAL or not grant.action.is_of(target):
        return decision
    if not satisfied(decision.requirements, grant.signatures):
        return decision
    return as_approved(decision)
