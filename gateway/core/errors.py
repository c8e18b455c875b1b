"""Every way a call can be refused or fail: one class per remedy.

An error carries a stable ``code``, a ``detail`` that is safe to show to the caller (never an upstream's words, a secret
or a path), the HTTP ``status`` and, where waiting helps, ``retry_after`` in seconds. ``edge/problems.py`` is the one
place that turns them into problem+json or MCP results.
"""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Ending(StrEnum):
    """How an intent ends when it does not end well. Each is a record type of the log."""

    FAILED = "tool.failed"
    NOT_SENT = "tool.not_sent"
    UNKNOWN = "tool.outcome_unknown"


class Reason(Struct, frozen=True, gc=False):
    """Why policy decided as it did.

    Attributes:
        id: stable rule id, e.g. ``scope.not_granted``; an enumeration, so it may stand in a log leaf.
        package: policy package that gave the reason.
        msg: sentence for people; may quote input, so it is payload, never leaf.
        fact: the fact that was missing or wrong, e.g. ``data.gateway.scope.agents.ap-agent.allow``.
    """

    id: str
    package: str
    msg: str
    fact: str | None = None


class GatewayError(Exception):
    """Base of every error a caller can see.

    Attributes:
        code: stable machine-readable name of the problem.
        title: the problem in a few words, the same for each occurrence.
        status: HTTP status.
        ending: how an intent that is already durable ends when this error is raised after it.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    ending: ClassVar[Ending] = Ending.FAILED

    def __init__(
        self,
        detail: str,
        *,
        reasons: tuple[Reason, ...] = (),
        retry_after: float | None = None,
        cause_code: str | None = None,
    ) -> None:
        """Keep the safe detail; ``cause_code`` is a finer enumeration than ``code`` (it is written to the log leaf)."""
        super().__init__(detail)
        self.detail = detail
        self.reasons = reasons
        self.retry_after = retry_after
        self.cause_code = cause_code or self.code


class Unauthenticated(GatewayError):
    """No credential, or one that is expired, forged, for another audience or of the wrong type."""

    code, title, status = "unauthenticated", "Authentication required", 401


class MalformedRequest(GatewayError):
    """The bytes are not the protocol: bad JSON, duplicate keys, wrong envelope. Nothing was looked up."""

    code, title, status = "malformed_request", "Malformed request", 400


class UnknownTool(GatewayError):
    """No such tool, or one this caller may not know of: the two cannot be told apart."""

    code, title, status = "unknown_tool", "Unknown tool", 404


class NotFound(GatewayError):
    """No such call, run or record, or one this caller may not see."""

    code, title, status = "not_found", "Not found", 404


class Pending(GatewayError):
    """Policy asks for people's approval of this call. Nothing was executed; the same call again asks after it.

    Attributes:
        approval_id: what a person approves, and what to ask after.
        url: where to look at it.
    """

    code, title, status = "pending", "Waiting for approval", 202

    def __init__(
        self, detail: str, approval_id: str, *, url: str, retry_after: float, reasons: tuple[Reason, ...] = ()
    ) -> None:
        """Keep which approval it is."""
        super().__init__(detail, retry_after=retry_after, reasons=reasons, cause_code="approval_pending")
        self.approval_id = approval_id
        self.url = url


class Conflict(GatewayError):
    """What is asked for does not fit what there is: decided already, enrolled already."""

    code, title, status = "conflict", "Conflict", 409


class Denied(GatewayError):
    """Policy says no to this call of a tool the caller may see."""

    code, title, status = "denied", "Denied by policy", 403


class NotConnected(GatewayError):
    """The call needs the person's own account at another service, and they have not connected it, or not far enough."""

    code, title, status = "connection_required", "Account not connected", 403
    ending = Ending.NOT_SENT


class Killed(GatewayError):
    """Operators have stopped this agent, user, tool or run; nothing was sent. Only they lift it."""

    code, title, status = "killed", "Stopped by operators", 403
    ending = Ending.NOT_SENT


class Forbidden(GatewayError):
    """The credential is good but lacks the scope this surface asks for."""

    code, title, status = "forbidden", "Insufficient scope", 403


class Quarantined(GatewayError):
    """The upstream's definition of the tool is not the pinned one."""

    code, title, status = "quarantined", "Tool quarantined", 409


class TooLarge(GatewayError):
    """Body, depth, argument or policy input over its cap."""

    code, title, status = "too_large", "Too large", 413


class InvalidArguments(GatewayError):
    """The arguments do not match the pinned schema, or hold values no schema may admit."""

    code, title, status = "invalid_arguments", "Invalid arguments", 422


class Throttled(GatewayError):
    """A rate or concurrency limit; try again after ``retry_after``."""

    code, title, status = "throttled", "Too many requests", 429


class BudgetExhausted(GatewayError):
    """The run's budget is used up; waiting does not help."""

    code, title, status = "budget_exhausted", "Budget exhausted", 429


class ToolFailed(GatewayError):
    """The upstream answered with a failure: it acted, or refused to."""

    code, title, status = "tool_failed", "Tool failed", 502


class NotSent(ToolFailed):
    """The upstream was never reached: nothing happened there, trying again is safe."""

    code, title = "not_sent", "Tool not reached"
    ending = Ending.NOT_SENT


class Tainted(GatewayError):
    """The tool's output broke its contract and is withheld; the effect may have happened."""

    code, title, status = "tainted", "Output withheld", 502


class Unavailable(GatewayError):
    """A part the call needs is down; nothing was done."""

    code, title, status = "unavailable", "Temporarily unavailable", 503
    ending = Ending.NOT_SENT


class OutcomeUnknown(GatewayError):
    """The call left and its end is not known: an effect may have happened. Do not retry blindly."""

    code, title, status = "outcome_unknown", "Outcome unknown", 504
    ending = Ending.UNKNOWN


def recalled(code: str, detail: str, cause_code: str) -> GatewayError:
    """The error that was recorded with ``code``, made anew to be told again; an unknown code is ``OutcomeUnknown``."""
    kinds: tuple[type[GatewayError], ...] = (
        ToolFailed,
        NotSent,
        NotConnected,
        Killed,
        Tainted,
        Unavailable,
        OutcomeUnknown,
    )
    kind = next((kind for kind in kinds if kind.code == code), OutcomeUnknown)
    return kind(detail, cause_code=cause_code)
