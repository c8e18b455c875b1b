"""Decisions as plain data, and the fold that makes one from what the policy packages export.

Rego gathers, Python folds, in this order: engine fault -> deny; any deny -> deny; no allow -> deny; unmet requirement
-> needs approval; otherwise allow. So adding a package can never loosen anything unless it exports ``allow``.
"""

from dataclasses import dataclass
from enum import StrEnum

from gateway.core.errors import Reason


class Effect(StrEnum):
    """What policy says of one request."""

    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


@dataclass(frozen=True, slots=True)
class Requirement:
    """People whose approval is needed.

    Attributes:
        id: stable rule id.
        quorum: how many persons.
        roles: any of these roles counts; empty = any reviewer.
        msg: sentence for people.
    """

    id: str
    quorum: int
    roles: tuple[str, ...]
    msg: str


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must be done with an allowed call: the most restrictive merge of all packages; None = nothing asked.

    Attributes:
        timeout_s: longest the connector may take.
        per_minute: calls a minute of this tool by this principal.
    """

    timeout_s: float | None = None
    per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The folded word of policy on one request.

    Attributes:
        id: UUIDv7 of the decision.
        effect: what policy says.
        reasons: why, in the order deny, hint, allow; never empty for a deny.
        requirements: approvals asked for.
        obligations: what an allowed call is bound to.
        revision: digest of the policy bundle that was asked.
        engine: which engine answered.
        input_digest: SHA-256 of the input document, hex.
        enforced: False where observe mode lets a call pass that ``effect`` would stop. It is recorded and never set for
            money or destructive tools, nor where the engine failed.
    """

    id: str
    effect: Effect
    reasons: tuple[Reason, ...]
    requirements: tuple[Requirement, ...]
    obligations: Obligations
    revision: str
    engine: str
    input_digest: str
    enforced: bool = True

    @property
    def faulty(self) -> bool:
        """Whether this is no word of policy but the fold of an engine fault."""
        return self.reasons[0].id.startswith("engine.")

    @property
    def passes(self) -> bool:
        """Whether the call may go on."""
        return self.effect is Effect.ALLOW or not self.enforced


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the engine said to each input document.

    Attributes:
        results: for each input, the JSON text of ``data.gateway.main.decision``, or None where it is undefined or could
            not be evaluated within the deadline.
        faults: for each input, the fault as a stable id (``engine.timeout`` ...), or None.
        revision: digest of the bundle that answered.
        engine: engine and version.
    """

    results: tuple[bytes | None, ...]
    faults: tuple[str | None, ...]
    revision: str
    engine: str
