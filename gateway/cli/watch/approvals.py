"""What the watch needs of approvals: a seam, and what stands in it where this gateway has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from gateway.cli.reach import Reach
from gateway.cli.screen import Failed


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


class NoApprovals:
    """A gateway without approvals: nothing ever waits, and nothing can be signed."""

    def pending(self) -> Sequence[PendingView]:
        """Nothing."""
        return ()

    def show(self, approval_id: str) -> PendingView:  # noqa: ARG002 - the seam's signature
        """Refuse."""
        _none()

    def approve(self, seen: PendingView) -> None:  # noqa: ARG002 - the seam's signature
        """Refuse."""
        _none()

    def reject(self, approval_id: str, reason: str) -> None:  # noqa: ARG002 - the seam's signature
        """Refuse."""
        _none()


def _none() -> NoReturn:
    raise Failed("approvals are not available on this gateway")


def approvals_of(reach: Reach) -> Approvals:  # noqa: ARG001 - what stands behind the seam asks by it
    """The approvals of the gateway at ``reach``."""
    return NoApprovals()
