"""Faults of the surface itself: what is wrong with a request before it is a call at all.

They are ``GatewayError``s: one mapping (``problems.py``) answers them and one door (``pipeline.refuse``) records them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gateway.core.errors import Forbidden, GatewayError, MalformedRequest, NotFound, Unauthenticated
from gateway.core.mcpwire import eras


class ClientGone(Exception):
    """The client left before its request was read or answered; there is nobody to answer."""


class MethodNotAllowed(MalformedRequest):
    """The path exists, the HTTP method does not."""

    code, title, status = "method_not_allowed", "Method not allowed", 405

    def __init__(self, allowed: tuple[str, ...]) -> None:
        """``allowed`` are the methods the path has."""
        super().__init__(f"this path takes {', '.join(allowed)}")
        self.allowed = allowed


class UnsupportedMediaType(MalformedRequest):
    """The body is not ``application/json``, or is compressed."""

    code, title, status = "unsupported_media_type", "Unsupported media type", 415


class NotAcceptable(MalformedRequest):
    """The client takes no ``application/json``."""

    code, title, status = "not_acceptable", "Not acceptable", 406


class Misdirected(MalformedRequest):
    """The Host header names somebody else: DNS rebinding, or a client that is lost."""

    code, title, status = "misdirected", "Misdirected request", 421


class ForeignOrigin(Forbidden):
    """A web page of another origin sent the request."""

    code, title, status = "foreign_origin", "Foreign origin", 403


class InsufficientScope(Forbidden):
    """The credential is good, and does not have the scope this needs (RFC 6750 section 3.1)."""

    code, title, status = "forbidden", "Forbidden", 403

    def __init__(self, scopes: tuple[str, ...]) -> None:
        """Any of ``scopes`` would do."""
        super().__init__(f"this needs a credential with the scope {' or '.join(scopes)}", cause_code="scope")
        self.scopes = scopes


class RpcFault(MalformedRequest):
    """A protocol fault with a JSON-RPC code of its own. ``data`` is for the client's machinery."""

    code, title, status = "invalid_request", "Invalid request", 400
    rpc_code: ClassVar[int] = eras.INVALID_REQUEST
    data: Mapping[str, Any] | None = None


class InvalidParams(RpcFault):
    """``params`` of a known method do not fit."""

    code, title = "invalid_params", "Invalid params"
    rpc_code = eras.INVALID_PARAMS


class HeaderMismatch(RpcFault):
    """A header that repeats a part of the body says something else, or is missing."""

    code, title = "header_mismatch", "Header mismatch"
    rpc_code = eras.HEADER_MISMATCH


class MissingCapability(RpcFault):
    """The upstream has to ask the client something that the client did not say it can be asked."""

    code, title = "missing_capability", "Missing client capability"
    rpc_code = eras.MISSING_CLIENT_CAPABILITY

    def __init__(self, lacking: Sequence[str], cause_code: str) -> None:
        """``lacking`` names the capabilities."""
        super().__init__("the tool has to ask what this client does not say it can be asked", cause_code=cause_code)
        self.data = {"requiredCapabilities": {name: {} for name in lacking}}


class UnsupportedVersion(RpcFault):
    """A protocol revision this gateway does not speak."""

    code, title = "unsupported_version", "Unsupported protocol version"
    rpc_code = eras.UNSUPPORTED_VERSION

    def __init__(self, requested: str) -> None:
        """``requested`` is named back to the client, as the specification asks."""
        super().__init__("unsupported protocol version")
        self.data = {"supported": list(eras.STATELESS_VERSIONS), "requested": requested}


class MethodNotFound(NotFound):
    """No such JSON-RPC method in the client's era."""

    code, title = "method_not_found", "Method not found"


class SessionNotFound(NotFound):
    """No such MCP session, or another principal's: the client starts a new one."""

    code, title = "session_not_found", "Session not found"


class ServerNotFound(NotFound):
    """No server of that name, or one without a tool this caller may see: the two cannot be told apart."""

    code, title = "server_not_found", "Server not found"


# Looking for what is not there is ordinary traffic (clients probe methods, sessions end): answered, not recorded.
UNRECORDED: tuple[type[GatewayError], ...] = (MethodNotFound, SessionNotFound)
# Faults that HTTP says by its status, whatever the JSON-RPC era.
OF_HTTP: tuple[type[GatewayError], ...] = (
    Unauthenticated,
    Forbidden,
    SessionNotFound,
    ServerNotFound,
    MethodNotAllowed,
    UnsupportedMediaType,
    NotAcceptable,
)
