"""Approvals in a list: what waits, what was signed, what was refused and why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.cli.screen import Failed
from gateway.cli.watch.approvals import PendingView

ASKED_US = 1_750_000_000_000_000


def pending(approval_id: str = "ap-1", arguments: Any = None, **more: Any) -> PendingView:
    """An action that waits, complete."""
    view = PendingView(
        id=approval_id,
        tool="pay.transfer",
        agent="ap-agent",
        requester="clerk",
        requested_us=ASKED_US,
        expires_us=ASKED_US + 900_000_000,
        needed=1,
        reasons=(("money.second_person", "a person signs what moves money"),),
        arguments=json.dumps({"iban": "AT61", "amount": 5} if arguments is None else arguments, ensure_ascii=False),
        action="c0ffee",
    )
    return replace(view, **more)


@dataclass
class FakeReviewing:
    """Implements ``gateway.cli.watch.approvals.Approvals``.

    Attributes:
        waiting: complete views by id.
        signed: ids.
        refused: reasons by id.
    """

    waiting: dict[str, PendingView] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def pending(self) -> Sequence[PendingView]:
        """What waits, without arguments."""
        return tuple(replace(view, arguments=None, action=None) for view in self.waiting.values())

    def show(self, approval_id: str) -> PendingView:
        """One of them, complete."""
        return self._known(approval_id)

    def approve(self, seen: PendingView) -> None:
        """Sign it if it still is what was seen."""
        if self._known(seen.id) != seen:
            raise Failed("the action is not the one that was shown")
        self.signed.append(seen.id)
        del self.waiting[seen.id]

    def reject(self, approval_id: str, reason: str) -> None:
        """Refuse it."""
        self.refused[self._known(approval_id).id] = reason
        del self.waiting[approval_id]

    def _known(self, approval_id: str) -> PendingView:
        if approval_id not in self.waiting:
            raise Failed("no such approval is pending")
        return self.waiting[approval_id]
