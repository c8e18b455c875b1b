"""What the watch needs of approvals: a seam, and the reviewer's desk behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gateway.cli import reviewer_key
from gateway.cli.approving import Reviewing
from gateway.cli.reach import Reach
from gateway.cli.screen import Failed
from gateway.core.approval import Verdict
from gateway.core.signing import statement_hash

_FACTS = ("issuer", "run", "revision", "definition", "arguments_sha256")


@dataclass(frozen=True, slots=True)
class PendingView:
    """An action that waits for signatures, as its approver sees it.

    Attributes:
        id: the approval's id.
        tool: ``server.tool``.
        agent: who would act.
        requester: for whom.
        requested_us: since when it waits, microseconds.
        expires_us: until when, microseconds.
        needed: signatures still missing.
        facts: what else is signed or known of it: (name, value).
        reasons: why policy asks for a person: (rule, message).
        arguments: the complete canonical JSON text; None in a list, never None from ``show``.
        action: digest of what a signature covers; None in a list.
    """

    id: str
    tool: str
    agent: str
    requester: str
    requested_us: int
    expires_us: int
    needed: int
    facts: tuple[tuple[str, str], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    arguments: str | None = None
    action: str | None = None


class Approvals(Protocol):
    """The approvals of a gateway, for one approver. Closed: a failure means that nothing was signed."""

    def pending(self) -> Sequence[PendingView]:
        """What waits, oldest first.

        Raises:
            Failed: it cannot be told.
        """

    def show(self, approval_id: str) -> PendingView:
        """One of them with its complete arguments.

        Raises:
            Failed: there is none, or it may not be seen.
        """

    def approve(self, seen: PendingView) -> None:
        """Sign exactly what the person has ``seen``, as ``show`` gave it, and nothing that came later.

        Raises:
            Failed: it is not pending any more, is not what was seen, or may not be signed.
        """

    def reject(self, approval_id: str, reason: str) -> None:
        """Refuse it; the agent reads the reason.

        Raises:
            Failed: it is not pending any more, or may not be refused.
        """


class SignedApprovals:
    """The approvals of a gateway, signed with the reviewer's own key, which is opened when it is needed."""

    def __init__(self, reach: Reach, key_file: Path | None) -> None:
        self._desk = Reviewing(reach, None)
        self._key_file = key_file

    def pending(self) -> Sequence[PendingView]:
        """What waits; see ``Approvals``."""
        return tuple(_listed(found) for found in self._desk.waiting())

    def show(self, approval_id: str) -> PendingView:
        """One of them, whole; see ``Approvals``."""
        return _whole(self._desk.show(approval_id))

    def approve(self, seen: PendingView) -> None:
        """Sign what was seen; see ``Approvals``."""
        found = self._desk.show(seen.id)
        if _whole(found).action != seen.action:
            raise Failed("the action is not the one that was shown", "do not approve; tell the gateway's operator")
        self._signing().decide(found, Verdict.APPROVE)

    def reject(self, approval_id: str, reason: str) -> None:
        """Refuse it; see ``Approvals``."""
        self._signing().decide(self._desk.show(approval_id), Verdict.REJECT, reason)

    def _signing(self) -> Reviewing:
        return replace(self._desk, key=reviewer_key.load(self._key_file))


def _listed(found: dict[str, Any]) -> PendingView:
    return PendingView(
        id=found["id"],
        tool=found["tool"],
        agent=found.get("agent") or "(person)",
        requester=found["user"],
        requested_us=found["requested_us"],
        expires_us=found["expires_us"],
        needed=found["missing"],
    )


def _whole(found: dict[str, Any]) -> PendingView:
    statement = found["statement"]
    facts = [(name, str(statement[name])) for name in _FACTS if statement.get(name) is not None]
    if found.get("goal"):
        facts.insert(0, ("goal", found["goal"]))
    needs = [
        ("needs", f"{need['quorum']} signed {' or '.join(need['roles'])}: {need['msg']}")
        for need in found["requirements"]
    ]
    lacking = max((need["missing"] for need in found["requirements"]), default=0)
    return replace(
        _listed({**statement, "id": found["id"], "missing": lacking}),
        facts=(*facts, *needs, *(("signed", f"{one['person']}: {one['verdict']}") for one in found["signatures"])),
        reasons=tuple((reason["id"], reason["msg"]) for reason in found["reasons"]),
        arguments=found["arguments_json"],
        action=statement_hash(statement).hex(),
    )
