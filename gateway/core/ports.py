"""What the pipeline needs from the world, as Protocols. ``app.py`` builds the one ``Ports``.

Each Protocol says how it fails. The default is closed: any doubt raises ``Unavailable`` and nothing is executed.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.core.advice import Advice, Word
from gateway.core.approval import Action, Grant
from gateway.core.bell import Bell
from gateway.core.call import (
    Answer,
    Call,
    Caller,
    Intent,
    Lease,
    Live,
    Permit,
    Principal,
    Quota,
    Raw,
    Redacted,
    Resolved,
    Resumed,
    Verified,
)
from gateway.core.decision import Decision, Evaluation
from gateway.core.errors import GatewayError
from gateway.core.kills import Kills
from gateway.core.mcpwire.asking import Asks
from gateway.core.tool import Tool
from gateway.core.usage import Reservation, Usage


class Clock(Protocol):
    """Time, ids and randomness. Cannot fail."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""

    def uuid(self) -> str:
        """A new UUIDv7 in its canonical text form."""

    def random(self, size: int) -> bytes:
        """``size`` bytes from the system's cryptographic source."""


class Pingable(Protocol):
    """Anything readiness asks after."""

    async def ping(self) -> None:
        """Return when the part can serve now; raise ``Unavailable`` with a safe reason when it cannot."""


class Identity(Pingable, Protocol):
    """Checks credentials. Closed: whatever is not proven good raises ``Unauthenticated``."""

    async def authenticate(self, call: Call) -> Principal:
        """Verify the call's credential (signature, issuer, audience, type, time).

        Raises:
            Unauthenticated: anything wrong with it.
        """

    def vouches(self, principal: Principal) -> bool:
        """Whether the principal's credential would be taken now but for its age: of whom it is, and not revoked.

        A call that was parked is carried out only while that is so.
        """


class Section(Protocol):
    """A run's ledger while one call is being decided."""

    usage: Usage

    def reserve(self, target: Resolved) -> Reservation:
        """Count this call in, so that the next decision of the run sees it.

        Raises:
            BudgetExhausted: the run's own budget has no room for it.
        """


class Runs(Pingable, Protocol):
    """The runs and their ledgers. Closed: a run that cannot be read or written is ``Unavailable``."""

    async def enter(self, call: Call, principal: Principal) -> Caller:
        """The run the call names or its session implies (started durably if new); the only maker of ``Caller``.

        Calls that it names as evidence are looked up: those of the run that succeeded are the caller's ``proofs``.

        Raises:
            NotFound: named run does not exist, has ended, or is another principal's.
            Unavailable: the log cannot be read or written.
        """

    def section(self, caller: Caller) -> AbstractAsyncContextManager[Section]:
        """Hold the run's ledger for reading, deciding and reserving: one call of a run at a time."""


class Catalog(Pingable, Protocol):
    """The pinned tools and the one way to their connectors."""

    def resolve(self, caller: Caller) -> Resolved:
        """Pinned tool, or an unlisted one; nothing of the arguments is looked at, so both cost the same."""

    def checked(self, target: Resolved) -> Resolved:
        """Pinned tool with checked arguments; a bad argument is kept in the result, not raised.

        Only for callers who may know of the tool: how long it takes depends on the tool's schema.
        """

    def tools(self) -> Sequence[Tool]:
        """All pinned tools, in a stable order; the same sequence until there is a new generation."""

    @property
    def bell(self) -> Bell:
        """Rings when ``tools`` gives another sequence than before."""

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call: the one place a connector is invoked.

        Raises:
            NotSent: the upstream was not reached; nothing happened.
            ToolFailed: it answered with a failure.
            OutcomeUnknown: it may have happened; also for anything unforeseen.
        """


class PolicyEngine(Pingable, Protocol):
    """Evaluates Rego. Closed: a fault is reported and folds to deny, an unreachable engine is ``Unavailable``."""

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """Evaluate the input documents (``gateway.input/v1`` JSON) under one revision.

        Raises:
            Unavailable: no worker could take the question (queue full, worker died).
            TooLarge: an input is over the cap.
        """

    def known(self, about: bytes) -> Evaluation | None:
        """What it says of any call of a tool that may be known of, by ``policy_input.Met.listing``; None = ask it."""


class Approvals(Pingable, Protocol):
    """Calls that wait for people. Closed: what cannot be kept durably is not parked, and nothing is executed."""

    async def principal(self, origin: Resumed) -> Principal:
        """Who called, of a parked call that is being resumed.

        Raises:
            NotFound: no such approval, or it is not approved any more.
        """

    async def grant(self, call: Call) -> Grant | None:
        """The action a resumed call carries out, with its signatures; None for a live call.

        Raises:
            NotFound: as ``principal`` does.
        """

    async def park(self, target: Resolved, decision: Decision) -> GatewayError:
        """What is said to a call that needs approval: an identical call waits already, or this one is parked durably.

        Returns:
            ``Pending``, or ``Denied`` where people or time have said no, or where a resumed call's approval no longer
            covers what policy asks for.

        Raises:
            Unavailable: the log cannot be written.
            Throttled: too many of the caller's calls wait already.
        """

    async def outcome(self, approval_id: str, patience_s: float) -> Answer:
        """What became of a parked call, told again (``Answer.replayed``); waits for it up to ``patience_s`` seconds.

        Raises:
            Pending: nothing yet.
            GatewayError: how it failed, was rejected or lapsed.
        """

    async def check_own(self, principal: Principal, approval_id: str) -> Action:
        """The parked call, which is ``principal``'s own.

        Raises:
            NotFound: it is not, or there is no such approval: the two cannot be told apart.
        """

    async def approved(self) -> Action:
        """Wait for the next action that may be carried out; each is given once until ``settle``."""

    async def settle(self, approval_id: str, error: GatewayError | None) -> bool:
        """Note how an attempt to carry it out ended.

        Returns:
            Whether it may be tried again: nothing left the gateway, and what stood in the way passes.
        """


class Limits(Protocol):
    """Rate and concurrency. Closed: no room raises ``Throttled``."""

    def spend(self, permit: Permit) -> AbstractAsyncContextManager[Quota]:
        """Take a place under every limit of the tool and of the decision; given back on exit.

        Raises:
            Throttled: with ``retry_after``.
        """


class Broker(Pingable, Protocol):
    """Credentials. Closed: a credential that cannot be provided raises ``Unavailable``, before anything is sent."""

    def lease(self, intent: Intent) -> AbstractAsyncContextManager[Lease]:
        """The credential for this one call; revoked on every exit. A failing revocation never loses the answer."""


class Verifier(Protocol):
    """Output contracts. Closed: an output that breaks its contract is withheld."""

    def verify(self, raw: Raw) -> Verified:
        """Check shape, size and the pinned output schema.

        Raises:
            Tainted: contract broken.
        """


class Redactor(Protocol):
    """Takes secrets out. Closed: what cannot be redacted is withheld."""

    async def holds(self, body: bytes) -> bool:
        """Whether a JSON text holds a value the gateway keeps secret, or that cannot be told."""

    def notice(self, origin: Live | Resumed, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        """What an upstream says during a call of this origin (JSON text), without secrets, and the counts.

        Raises:
            Tainted: cannot be redacted within bounds.
        """

    async def redact(self, verified: Verified) -> Redacted:
        """The result without known secret values and without values under secret-named keys.

        What was taken out of notices of the call is counted with it.

        Raises:
            Tainted: cannot be redacted within bounds.
        """


class Stage(StrEnum):
    """How far a question of an upstream has come."""

    ASKED = "asked"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Said:
    """One stage of a question, as it is recorded.

    Attributes:
        asks: what is asked.
        decision: whether it may be handed on.
        content: JSON text of the question's params or of the answer.
    """

    stage: Stage
    asks: Asks
    decision: Decision
    content: bytes


class Entry(Protocol):
    """The log's view of one call. Leaving its bracket by an error records how the call ended."""

    def entered(self, caller: Caller) -> Caller:
        """Note the run; returns what it was given."""

    def decided(self, target: Resolved, decision: Decision) -> None:
        """Note the decision, so that a refusal is recorded with it."""

    async def commit(self, quota: Quota) -> Intent:
        """Write decision and intent durably, before any effect; keeps the reservation.

        Raises:
            Unavailable: the log cannot be written; nothing may be executed.
        """

    async def note(self, said: Said) -> None:
        """Write durably what is asked of the client, before it is shown, or what it answers, before that leaves.

        Raises:
            Unavailable: the log cannot be written.
            NotFound: the run has ended meanwhile.
        """

    async def complete(self, output: Redacted) -> Answer:
        """Write the completion durably; only then is there an answer.

        Raises:
            OutcomeUnknown: the completion could not be written after an effect; the output is withheld.
        """


class Consultation(Protocol):
    """The log's view of one question about what an agent will do itself. It can neither intend nor complete a call."""

    def entered(self, caller: Caller) -> Caller:
        """Note the run; returns what it was given."""

    def decided(self, target: Resolved, decision: Decision) -> None:
        """Note the decision, so that a refusal is recorded with it."""

    async def advise(self, word: Word) -> Advice:
        """Write ``decision.advisory`` durably; only then is there an answer.

        Raises:
            Unavailable: the log cannot be written.
        """


class AuditLog(Pingable, Protocol):
    """The signed log. Closed: what cannot be written is not done."""

    def open(self, call: Call, principal: Principal) -> AbstractAsyncContextManager[Entry]:
        """An entry for one authenticated call: one ending is recorded on every path, shielded from cancellation."""

    def consult(self, call: Call, principal: Principal) -> AbstractAsyncContextManager[Consultation]:
        """An entry for one authenticated question: one record on every path, none of which is a call's."""


class Pace(Protocol):
    """A hidden tool and a name of no tool are refused at the same moment, whatever lay in between. Cannot fail."""

    def begin(self) -> float: ...  # noqa: D102 -- what the beats of one call are counted from
    async def beat(self, began: float) -> None:
        """Return at the next of the beats counted from ``began``: who is refused by ``UnknownTool`` waits for it."""


class Meter(Protocol):
    """Counts and timings for operators. Cannot fail; never part of a decision."""

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """One call ended: ``outcome`` is ``completed`` or an error code."""

    def decided(self, effect: str, reason: str, seconds: float) -> None:
        """One decision was made; ``reason`` is the first reason id."""

    def unauthenticated(self, code: str) -> None:
        """A request without a good credential: counted, never logged."""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What the pipeline itself is configured with.

    Attributes:
        environment: deployment name policy sees, e.g. ``production``.
        region: region policy sees.
        observe: record decisions without enforcing them (reads and writes only, never money or destructive).
        hold_s: longest a surface holds a call that waits for approval before it says to ask again, seconds.
    """

    environment: str = "development"
    region: str = "unspecified"
    observe: bool = False
    hold_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the pipeline may touch."""

    clock: Clock
    identity: Identity
    kills: Kills
    runs: Runs
    catalog: Catalog
    policy: PolicyEngine
    approvals: Approvals
    limits: Limits
    broker: Broker
    verifier: Verifier
    redactor: Redactor
    audit: AuditLog
    pace: Pace
    meter: Meter
    settings: PipelineSettings
