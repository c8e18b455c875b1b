"""Whether a reviewer's word counts: the right key, of somebody who may, over exactly this action."""

from collections.abc import Sequence

from gateway.core.approval import (
    Action,
    Reviewer,
    Signature,
    State,
    Verdict,
    satisfied,
)
from gateway.core.desk import Ballot
from gateway.core.errors import Conflict, Forbidden, InvalidArguments
from gateway.core.signing import approval_message, is_signed


def counted(action: Action, ballot: Ballot, reviewer: Reviewer, at_us: int) -> Signature:
    """The ballot as a signature that counts.

    Raises:
        InvalidArguments: an approval with a reason.
        Forbidden: the signature is of something else, the reviewer's own call, or no role of theirs is asked for.
    """
    if ballot.key_id != reviewer.key_id or reviewer.revoked:
        raise Forbidden("the signing key is not enrolled here", cause_code="reviewer_key")
    if (ballot.reason is not None) and ballot.verdict is Verdict.APPROVE:
        raise InvalidArguments("a reason goes with a rejection only", cause_code="reason")
    message = approval_message(action.statement(), ballot.verdict, ballot.reason)
    if not is_signed(reviewer.public, ballot.signature, message):
        raise Forbidden("the signature is not of this action and verdict", cause_code="signature")
    if is_own(action, reviewer):
        raise Forbidden("nobody decides on a call made in their own name", cause_code="own_call")
    if not any(not need.roles or reviewer.roles.intersection(need.roles) for need in action.requirements):
        raise Forbidden("none of the reviewer's roles is asked for", cause_code="reviewer_role")
    return Signature(reviewer.key_id, reviewer.person, reviewer.roles, ballot.verdict, at_us)


def is_own(action: Action, reviewer: Reviewer) -> bool:
    """Whether the reviewer is the person the call was made for. Closed: an equal name counts as the same person."""
    who = action.principal
    return (who.issuer, who.user) in reviewer.accounts or who.user == reviewer.person


def added(action: Action, before: Sequence[Signature], word: Signature) -> tuple[tuple[Signature, ...], State]:
    """The signatures with one more, and where the approval stands then.

    Raises:
        Conflict: the person has approved already.
    """
    said = tuple(one for one in before if one.person != word.person)
    if word.verdict is Verdict.REJECT:
        return (*said, word), State.REJECTED
    if len(said) != len(before):
        raise Conflict("this person has signed already", cause_code="signed_already")
    after = (*said, word)
    return after, State.APPROVED if satisfied(action.requirements, after) else State.PENDING
