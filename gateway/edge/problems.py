"""The one place where an error becomes an answer: RFC 9457 problem+json, JSON-RPC errors, MCP error results.

REST gets problem+json. MCP gets JSON-RPC errors for faults of the protocol only; whatever a model can act on is a tool
result with ``isError``, text only (structured content that misses the tool's output schema makes clients throw). About
a tool the caller may not see nothing is said but that there is none.
"""

from math import ceil
from typing import Any

from gateway.core.errors import (
    BudgetExhausted,
    Denied,
    GatewayError,
    InvalidArguments,
    Killed,
    MalformedRequest,
    NotConnected,
    NotFound,
    OutcomeUnknown,
    Pending,
    Quarantined,
    Tainted,
    Throttled,
    TooLarge,
    ToolFailed,
    Unauthenticated,
    Unavailable,
    UnknownTool,
)
from gateway.core.mcpwire import eras, jsonrpc
from gateway.core.mcpwire.eras import Era
from gateway.edge.faults import InsufficientScope, MethodNotAllowed, MethodNotFound, RpcFault
from gateway.edge.reply import PROBLEM, Header, Reply

URN = "urn:ostiary:problem:"
CALL_HEADER = b"ostiary-call-id"
INTERNAL = GatewayError("the gateway failed; its operator has the details")

# What a model can act on: change the arguments, wait, take another way, tell the person.
ACTIONABLE = (
    Pending,
    Denied,
    NotConnected,
    Killed,
    InvalidArguments,
    Throttled,
    BudgetExhausted,
    ToolFailed,  # and NotSent
    Tainted,
    Unavailable,
    OutcomeUnknown,
    Quarantined,
    TooLarge,
)
# JSON-RPC codes of ours, outside the band that JSON-RPC reserves: of that the specification wants new ones no more.
_UNAUTHENTICATED, _FORBIDDEN, _UNAVAILABLE, _NOT_FOUND = -31010, -31011, -31012, -31013
_RPC_CODES: tuple[tuple[type[GatewayError], int], ...] = (
    (UnknownTool, eras.INVALID_PARAMS),
    (MethodNotFound, eras.METHOD_NOT_FOUND),
    (Unauthenticated, _UNAUTHENTICATED),
    (NotFound, _NOT_FOUND),
    (Unavailable, _UNAVAILABLE),
    (Throttled, _UNAVAILABLE),
    (TooLarge, eras.INVALID_REQUEST),
    (MalformedRequest, eras.INVALID_REQUEST),
    (GatewayError, _FORBIDDEN),
)
# Causes of a MalformedRequest that mean: this is not JSON as we read it.
_NOT_JSON = frozenset({"json", "duplicate_key", "number", "nul", "surrogate"})


def problem(error: GatewayError, call_id: str | None) -> Reply:
    """``error`` as problem+json. A call that waits for people is no problem: it is said as plain JSON."""
    if isinstance(error, Pending):
        return Reply(error.status, jsonrpc.encode(waiting(error, call_id)), headers=headers_of(error, call_id))
    body: dict[str, Any] = {
        "type": URN + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "call_id": call_id,
        "reasons": _reasons(error),
        "retry_after": error.retry_after,
        "cause": _cause(error),
    }
    return Reply(error.status, jsonrpc.encode(_given(body)), PROBLEM, headers_of(error, call_id))


def rpc_failure(error: GatewayError, request_id: jsonrpc.Id | None, era: Era | None, call_id: str | None) -> Reply:
    """``error`` as a JSON-RPC error.

    ``era`` is None where the fault is one of HTTP, or before the request's id is known: the status then says it. In the
    handshake era an error of a known request travels as 200, since older clients drop the whole session on others.
    """
    code = rpc_code(error)
    data = waiting(error, call_id) if isinstance(error, Pending) else dict(getattr(error, "data", None) or {})
    data |= {"code": error.code, "cause": _cause(error), "call_id": call_id, "retry_after": error.retry_after}
    status = error.status
    if era is Era.HANDSHAKE:
        status = 200
    elif era is Era.STATELESS:
        status = eras.STATUS_OF_ERROR.get(code, error.status)
    body = jsonrpc.encode_failure(request_id, code, error.detail, _given(data))
    return Reply(status, body, headers=headers_of(error, call_id))


def tool_error(error: GatewayError, call_id: str) -> bytes:
    """``error`` as the JSON text of an MCP tool result, for the model to read."""
    if isinstance(error, Pending):
        return _text_result(waiting(error, call_id))
    words = {
        "error": error.code,
        "message": error.detail,
        "cause": _cause(error),
        "call_id": call_id,
        "reasons": _reasons(error),
        "retry_after": error.retry_after,
        "explain": f"ostiary explain {call_id}",
    }
    return _text_result(_given(words))


def _text_result(words: dict[str, Any]) -> bytes:
    text = jsonrpc.encode(words).decode()
    return jsonrpc.encode({"content": [{"type": "text", "text": text}], "isError": True})


def waiting(error: Pending, call_id: str | None) -> dict[str, Any]:
    """What an agent is told whose call waits for people, as JSON values."""
    return {
        "status": "pending",
        "approval_id": error.approval_id,
        "approval_url": error.url,
        "message": error.detail,
        "retry_after": error.retry_after,
        "instruction": "Nothing was executed yet. A person must approve this exact call. Do not change its arguments; "
        f"make the same call again after {ceil(error.retry_after or 1)} seconds, or wait with gateway__wait_approval. "
        "It is executed at most once.",
        "reasons": _reasons(error),
        "call_id": call_id,
    }


def rpc_code(error: GatewayError) -> int:
    """The JSON-RPC code of ``error``."""
    if isinstance(error, RpcFault):
        return error.rpc_code
    if isinstance(error, MalformedRequest) and error.cause_code in _NOT_JSON:
        return eras.PARSE_ERROR
    if error.status == INTERNAL.status:
        return eras.INTERNAL_ERROR
    return next(code for kind, code in _RPC_CODES if isinstance(error, kind))


def headers_of(error: GatewayError, call_id: str | None) -> tuple[Header, ...]:
    """The header fields that go with ``error`` on any surface."""
    found: list[Header] = [] if call_id is None else [(CALL_HEADER, call_id.encode())]
    if error.retry_after is not None:
        found.append((b"retry-after", str(ceil(error.retry_after)).encode()))
    if isinstance(error, Unauthenticated):
        found.append((b"www-authenticate", _challenge(error)))
    if isinstance(error, InsufficientScope):
        found.append((b"www-authenticate", b'Bearer realm="ostiary", error="insufficient_scope"'))
    if isinstance(error, MethodNotAllowed):
        found.append((b"allow", ", ".join(error.allowed).encode()))
    return tuple(found)


def _challenge(error: Unauthenticated) -> bytes:
    # RFC 6750: no error code for a request that brought no credential at all.
    if error.cause_code == "missing":
        return b'Bearer realm="ostiary"'
    return b'Bearer realm="ostiary", error="invalid_token"'


def _reasons(error: GatewayError) -> list[dict[str, Any]]:
    if isinstance(error, UnknownTool | NotFound):
        return []
    return [_given({"id": reason.id, "msg": reason.msg, "fact": reason.fact}) for reason in error.reasons]


def _cause(error: GatewayError) -> str | None:
    return None if error.cause_code == error.code or isinstance(error, UnknownTool) else error.cause_code


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None and value != []}
