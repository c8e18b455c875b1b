"""MCP revisions, their two eras, and the names and numbers that go with them.

Source: the MCP specification, revisions 2024-11-05 to 2026-07-28. The constants are ours, so that the core does not
import a model library; a unit test compares them with the ``mcp-types`` package.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Era(StrEnum):
    """How a connection is set up: by an ``initialize`` handshake, or not at all (each request describes itself)."""

    __hash__ = str.__hash__  # Enum's own is Python

    HANDSHAKE = "handshake"
    STATELESS = "stateless"


HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STATELESS_VERSIONS: Final = ("2026-07-28",)
VERSIONS: Final = (*HANDSHAKE_VERSIONS, *STATELESS_VERSIONS)
LATEST_HANDSHAKE: Final = HANDSHAKE_VERSIONS[-1]
LATEST_STATELESS: Final = STATELESS_VERSIONS[-1]
# What a request without the version header means, by the revisions that introduced the header.
ASSUMED_VERSION: Final = "2025-03-26"

# Header names as they stand in a parsed request: lower case.
VERSION_HEADER: Final = "mcp-protocol-version"
SESSION_HEADER: Final = "mcp-session-id"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
PARAM_HEADER_PREFIX: Final = "mcp-param-"
# JSON Schema annotation of an argument that 2026 clients repeat in a header.
PARAM_ANNOTATION: Final = "x-mcp-header"
# Which member of ``params`` the name header repeats, by method.
NAME_MEMBER: Final[Mapping[str, str]] = MappingProxyType(
    {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
)

JSON_TYPE: Final = "application/json"
STREAM_TYPE: Final = "text/event-stream"

# Members of ``params._meta`` (2026: on each request; the first two are required there).
META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
# Member of ``result._meta``.
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CLIENT_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

# HTTP status of a 2026 JSON-RPC error; codes that are not listed go out as 200.
STATUS_OF_ERROR: Final[Mapping[int, int]] = MappingProxyType(
    {
        PARSE_ERROR: 400,
        INVALID_REQUEST: 400,
        INVALID_PARAMS: 400,
        HEADER_MISMATCH: 400,
        MISSING_CLIENT_CAPABILITY: 400,
        UNSUPPORTED_VERSION: 400,
        METHOD_NOT_FOUND: 404,
    }
)

# ``resultType`` of a 2026 result; one without it is complete.
RESULT_COMPLETE: Final = "complete"
RESULT_INPUT_REQUIRED: Final = "input_required"


def era_of(version: str) -> Era | None:
    """The era of a revision, or None where it is not one we know."""
    if version in HANDSHAKE_VERSIONS:
        return Era.HANDSHAKE
    return Era.STATELESS if version in STATELESS_VERSIONS else None


def answer_version(asked: str) -> str:
    """The revision a server answers an ``initialize`` with: the one asked for, or its newest of that era."""
    return asked if asked in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE


def newest_mutual(offered: Iterable[object]) -> str | None:
    """The newest stateless revision among those a peer offers, or None."""
    names = {name for name in offered if isinstance(name, str)}
    return next((version for version in reversed(STATELESS_VERSIONS) if version in names), None)
