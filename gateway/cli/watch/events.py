"""What reaches the watch from the gateway, and what the watch wishes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.cli.watch.approvals import PendingView


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records of the log with their indexes, in order; ``fresh`` where the log is another than before."""

    records: Sequence[tuple[int, Mapping[str, Any]]]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """The actions that wait for signatures."""

    pending: Sequence[PendingView]


@dataclass(frozen=True, slots=True)
class Explained:
    """A call's explanation, as lines."""

    call_id: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """An action with its complete arguments."""

    view: PendingView


@dataclass(frozen=True, slots=True)
class Said:
    """One line for the person; ``bad`` where something did not succeed."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """Whether the gateway answers; ``problem`` says what is wrong, None = nothing."""

    problem: str | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The talk is over: ``error`` is raised once the terminal is restored."""

    error: Exception


Event = Arrived | Waiting | Explained | Opened | Said | Link | Broken


@dataclass(frozen=True, slots=True)
class Explain:
    """Tell why this call ended as it did."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Show:
    """Give this action with its complete arguments."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class Approve:
    """Sign this, as it was shown."""

    seen: PendingView


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse this action."""

    approval_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Quit:
    """End."""


Wish = Explain | Show | Approve | Reject | Quit
