"""One approval in memory."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.adapters.ledger.books.cases import Case
from gateway.core.approval import Action, Reviewer, Signature, State, Verdict, missing
from gateway.core.call import Answer
from gateway.core.desk import Dossier
from gateway.core.errors import Denied, GatewayError, Pending, Reason

_PENDING_RETRY_S = 5.0
_RUNNING_RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class Parked:
    """A parked call and where its approval stands.

    Attributes:
        mark: keyed hash of what the action is; identical calls have the same.
        why: why it was rejected or could not be used, for the agent.
        outcome: what came of it, once it was used.
        at_us: when it moved last.
        in_hand: somebody is carrying it out, or will try again.
        release: lets its run go; None where nothing holds it.
        turn: held while a reviewer's word is taken.
        moved: set when it moves; then there is another one.
    """

    action: Action
    mark: str
    state: State
    at_us: int
    signatures: tuple[Signature, ...] = ()
    why: str | None = None
    call_id: str | None = None
    outcome: Answer | GatewayError | None = None
    in_hand: bool = False
    release: Callable[[], None] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def move(self, state: State, at_us: int) -> None:
        """Note where it stands now, and tell who waits."""
        self.state, self.at_us = state, at_us
        self.moved.set()
        self.moved = asyncio.Event()

    def let_go(self) -> None:
        """Hold the run no longer."""
        if self.release is not None:
            self.release()
            self.release = None

    def word(self, url: str) -> Pending | Denied | None:
        """What a call is told that waits for this; None where there is an outcome to tell. ``url``: the gateway's."""
        match self.state:
            case State.PENDING:
                lacking = max((missing(need, self.signatures) for need in self.action.requirements), default=0)
                return self._pending(f"waiting for {_persons(lacking)} to approve", url, _PENDING_RETRY_S)
            case State.APPROVED | State.EXECUTING:
                return self._pending("approved; it is being carried out", url, _RUNNING_RETRY_S)
            case State.REJECTED:
                return self._denied("a reviewer rejected this call", "approval_rejected", "approval.rejected")
            case State.EXPIRED:
                return self._denied("nobody approved this call in time", "approval_expired", "approval.expired")
            case State.VOID:
                return self._denied("the approval could not be used any more", "approval_void", "approval.void")
            case State.ENDED:
                return None

    def told(self, url: str) -> Pending:
        """What a call is told where there is an outcome: to ask for it, there it is."""
        return self._pending("there is an outcome to tell", url, _RUNNING_RETRY_S)

    def dossier(self) -> Dossier:
        """As people see it."""
        lacking = tuple(missing(need, self.signatures) for need in self.action.requirements)
        return Dossier(self.action, self.state, self.signatures, lacking, self.why, self.call_id)

    def _pending(self, detail: str, url: str, retry_after: float) -> Pending:
        place = f"{url}/v1/approvals/{self.action.id}"
        return Pending(detail, self.action.id, url=place, retry_after=retry_after, reasons=self.action.reasons)

    def _denied(self, detail: str, cause: str, rule: str) -> Denied:
        said = detail if self.why is None else f"{detail}: {self.why}"
        return Denied(said, reasons=(Reason(rule, "gateway", said),), cause_code=cause)


def restored(case: Case, action: Action, persons: Callable[[str], Reviewer | None]) -> Parked:
    """An approval as the log has it; ``persons`` tells who holds a key (None where it is not known any more)."""
    signatures: list[Signature] = []
    why = case.why
    for word in case.words:
        known = persons(str(word.body["key"]))
        if known is not None:
            verdict = Verdict(word.body["verdict"])
            signatures.append(Signature(known.key_id, known.person, known.roles, verdict, word.at_us))
        why = word.reason or why
    return Parked(
        action, case.stand.action, case.stand.state, case.stand.at_us, tuple(signatures), why, case.stand.call_id
    )


def _persons(count: int) -> str:
    return "one person" if count == 1 else f"{count} persons"
