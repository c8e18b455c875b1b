"""How an exchange with an upstream ends badly, and what that means for a call.

Three kinds, because a caller must know one thing above all: did anything leave? The upstream's own words stay in the
fault, out of every message: they are untrusted text that would reach logs and models.
"""

from typing import NoReturn, Self

from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.mcpwire import asking, eras
from gateway.core.mcpwire.jsonrpc import Failure


class Fault(Exception):
    """Base.

    Attributes:
        cause: stable name of what happened; safe to show and to log.
    """

    def __init__(self, cause: str) -> None:
        """Keep the cause; it is the whole message."""
        super().__init__(cause)
        self.cause = cause


class Unreached(Fault):
    """Nothing of the request left."""


class Lost(Fault):
    """The request may have arrived, and no usable answer came."""


class Parted(Lost):
    """The stream of an answer ended before the answer: it can be gone on with where its server said how."""


class Unprepared(Unreached):
    """No connection, era or session: the request itself did not leave, however far the handshake came."""


class Refused(Fault):
    """The upstream answered that it will not, or could not.

    Attributes:
        status: HTTP status; None where the refusal is not one of HTTP.
        code: JSON-RPC error code; None where there was none.
        words: what the upstream said; untrusted, never part of a message.
        addressed: whether the refusal names our request, so that it comes from the MCP layer and not from a door
            before it.
        offered: the stateless revision that both sides speak, where it says that it does not speak the one we used.
        further: scopes that it wants of a token that has too few.
    """

    def __init__(self, cause: str, *, status: int | None = None) -> None:
        """A refusal without a JSON-RPC error."""
        super().__init__(cause)
        self.status = status
        self.code: int | None = None
        self.words = ""
        self.addressed = False
        self.offered: str | None = None
        self.further: tuple[str, ...] = ()

    @classmethod
    def by(cls, failure: Failure, request_id: int, *, status: int | None = None) -> Self:
        """The refusal that a JSON-RPC error answer is."""
        lacking = asking.lacking(failure.data)
        refusal = cls("_".join(("undeclared", *lacking)) if lacking else f"jsonrpc_{failure.code}", status=status)
        if failure.code == eras.UNSUPPORTED_VERSION and isinstance(failure.data, dict):
            said = failure.data.get("supported")
            refusal.offered = eras.newest_mutual(said) if isinstance(said, list) else None
        refusal.code, refusal.words, refusal.addressed = failure.code, failure.message, failure.id == request_id
        return refusal


def call_error(fault: Fault) -> GatewayError:
    """What a fault means for a call."""
    if isinstance(fault, Unreached):
        return NotSent("the upstream could not be reached", cause_code=fault.cause)
    if isinstance(fault, Refused):
        return ToolFailed(f"the upstream refused the call ({fault.cause})", cause_code=fault.cause)
    return OutcomeUnknown(f"the upstream gave no usable answer ({fault.cause})", cause_code=fault.cause)


def raise_unavailable(fault: Fault) -> NoReturn:
    """Report a fault of discovery or of a ping.

    Raises:
        Unavailable: always.
    """
    raise Unavailable(f"the MCP upstream cannot serve ({fault.cause})", cause_code=fault.cause) from fault
