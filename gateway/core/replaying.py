"""Decisions of the past under another policy: what was seen of a call before and after, and how the two differ.

Pure: whoever replays brings the recorded documents and what the engine said to them (``gateway/cli/policies``,
``gateway/adapters/rego/shadow.py``).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from gateway.core.approval import Signature, Verdict, satisfied
from gateway.core.canonical import encode
from gateway.core.decision import Decision, Effect, Obligations, Phase, Requirement, as_approved
from gateway.core.errors import Reason

# What phase ``call`` adds to a document (``policy_input.calling``); without it the document is that of phase ``list``.
_OF_CALLS = ("args", "args_digest", "approvals", "budget", "resource", "risk", "evidence")
_NO_INPUT = "no policy input"
_OF_RUNS = ("calls", "sums", "amounts")


class Seen(StrEnum):
    """What a caller sees of policy's word."""

    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DENY = "deny"
    HIDDEN = "hidden"
    LISTED = "listed"
    """The tool may be known of; the call itself was never put to policy, as its arguments had a fault."""


class Shift(StrEnum):
    """How a call fares under another policy, worst first."""

    FAULT = "fault"
    NEWLY_ALLOWED = "newly_allowed"
    NEWLY_DENIED = "newly_denied"
    CHANGED = "changed"
    REASONS = "reasons"
    SAME = "same"


_UNBOUND = Obligations()
_OPEN = frozenset({Seen.ALLOW, Seen.LISTED})
_SHUT = frozenset({Seen.DENY, Seen.HIDDEN})


@dataclass(frozen=True, slots=True)
class Word:
    """Policy's word on one recorded request, both phases together.

    Attributes:
        seen: what the caller sees.
        reasons: why; those of phase ``list`` where the tool is hidden.
        requirements: approvals asked for.
        obligations: what the call is bound to.
        faulty: whether this is an engine fault and no word of policy.
    """

    seen: Seen
    reasons: tuple[Reason, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    obligations: Obligations = _UNBOUND
    faulty: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """Reason ids, each once, in order."""
        return tuple(dict.fromkeys(reason.id for reason in self.reasons))


def word(listed: Decision, called: Decision | None) -> Word:
    """The word of both phases; ``called`` is None where only phase ``list`` was asked."""
    if called is None or listed.faulty or listed.effect is not Effect.ALLOW:
        seen = Seen.LISTED if listed.effect is Effect.ALLOW else Seen.HIDDEN
        return Word(seen, listed.reasons, faulty=listed.faulty)
    return of_call(called)


def of_call(called: Decision) -> Word:
    """The word of phase ``call`` alone, for a tool that may be known of."""
    return Word(Seen(called.effect), called.reasons, called.requirements, called.obligations, called.faulty)


def shift(before: Word, after: Word) -> Shift:
    """How a call fares: newly allowed is what may pass, or be known of, and could not before."""
    if before.faulty or after.faulty:
        return Shift.FAULT
    if after.seen is not before.seen:
        if after.seen in _OPEN:
            return Shift.NEWLY_ALLOWED
        return Shift.NEWLY_DENIED if after.seen in _SHUT and before.seen not in _SHUT else Shift.CHANGED
    if _asked(before) != _asked(after):
        return Shift.CHANGED
    return Shift.SAME if set(before.ids) == set(after.ids) else Shift.REASONS


def differences(before: Word, after: Word) -> tuple[str, ...]:
    """In words: what of requirements and obligations is asked otherwise, ``NAME: BEFORE -> AFTER``; sorted."""
    old, new = _asked(before), _asked(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return tuple(f"{name}: {old.get(name, 'nothing')} -> {new.get(name, 'nothing')}" for name in names)


def matrix(pairs: Iterable[tuple[Word, Word]]) -> Mapping[tuple[Seen, Seen], int]:
    """How many calls went from what is seen before to what is seen after; the sum is the number of pairs."""
    return Counter((before.seen, after.seen) for before, after in pairs)


def listing_of(document: bytes) -> bytes:
    """The phase ``list`` document of a call, from its phase ``call`` document; one of phase ``list`` stays as it is.

    Raises:
        ValueError: not a policy input.
    """
    facts = _facts(document)
    if facts.get("phase") == Phase.LIST:
        return document
    listed = {name: value for name, value in facts.items() if name not in _OF_CALLS}
    listed["run"] = {name: value for name, value in facts["run"].items() if name not in _OF_RUNS}
    return encode(listed | {"phase": Phase.LIST})


def approved(decision: Decision, document: bytes) -> Decision:
    """The decision with the signatures that stand in its own input: an approval asked for and given is an allow.

    Raises:
        ValueError: not a policy input.
    """
    if decision.effect is not Effect.NEEDS_APPROVAL:
        return decision
    try:
        given = msgspec.json.decode(document, type=_Signed).approvals
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError(_NO_INPUT) from None
    signatures = [Signature("", said.by, frozenset(said.roles), said.verdict, said.at_us) for said in given]
    return as_approved(decision) if satisfied(decision.requirements, signatures) else decision


def unlike(recorded: Mapping[str, Any], decision: Decision) -> tuple[str, ...]:
    """What of a recorded result (``effect``, ``reasons``, ``requirements``) the decision does not reproduce."""
    said: dict[str, tuple[Any, Any]] = {
        "effect": (recorded["effect"], str(decision.effect)),
        "reasons": (_ids(recorded["reasons"]), sorted({reason.id for reason in decision.reasons})),
        "requirements": (
            sorted(_need(need) for need in recorded["requirements"]),
            sorted((need.id, need.quorum, sorted(need.roles)) for need in decision.requirements),
        ),
    }
    return tuple(f"{name}: recorded {was!r}, now {now!r}" for name, (was, now) in said.items() if was != now)


class _Approval(msgspec.Struct, frozen=True):
    by: str
    roles: tuple[str, ...]
    verdict: Verdict
    at_us: int


class _Signed(msgspec.Struct, frozen=True):
    approvals: tuple[_Approval, ...] = ()


def _facts(document: bytes) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = dict(msgspec.json.decode(document, type=dict[str, msgspec.Raw]))
        phase = msgspec.json.decode(facts["phase"], type=Phase)
        run = msgspec.json.decode(facts["run"], type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        raise ValueError(_NO_INPUT) from None
    return facts | {"phase": phase, "run": run}


def _asked(said: Word) -> dict[str, str]:
    # What binds people and gateway; sentences may hold arguments and differ from call to call.
    found = {f"approval {need.id}": _binding(need) for need in said.requirements}
    bound = said.obligations
    if bound.timeout_s is not None:
        found["timeout"] = f"{bound.timeout_s:g} s"
    if bound.per_minute is not None:
        found["rate"] = f"{bound.per_minute} a minute"
    if bound.accept_missing:
        found["sandbox may lack"] = ", ".join(sorted(bound.accept_missing))
    return found


def _binding(need: Requirement) -> str:
    words = [f"{need.quorum} {'of ' + ', '.join(sorted(need.roles)) if need.roles else 'of anybody'}"]
    words += [f"not {name}" for name in sorted(need.exclude)]
    if not need.distinct:
        words.append("need not differ")
    if need.ttl_s is not None:
        words.append(f"good for {need.ttl_s} s")
    return ", ".join(words)


def _ids(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({reason["id"] for reason in reasons})


def _need(need: Mapping[str, Any]) -> tuple[str, int, list[str]]:
    return need["id"], need["quorum"], sorted(need["roles"])
