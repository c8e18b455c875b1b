"""JSON-RPC messages on their way through the bridge: looked into for routing, never written anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.core.mcpwire import eras, headers

AWAY: Final = -32000  # of the range that JSON-RPC leaves to implementations
Names = Mapping[str, Mapping[headers.Path, str]]


@dataclass(frozen=True, slots=True)
class Message:
    """One line from the client.

    Attributes:
        raw: as it came.
        id: of a request; None where it is none, or cannot be told.
        method: None for an answer, and where it cannot be told.
        params: empty where there are none.
    """

    raw: bytes
    id: str | int | None = None
    method: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_request(self) -> bool:
        """Whether an answer is owed."""
        return self.id is not None and self.method is not None

    @property
    def version(self) -> str | None:
        """The revision that a request of the stateless era names."""
        said = self.meta.get(eras.META_VERSION)
        return said if isinstance(said, str) else None

    @property
    def meta(self) -> Mapping[str, Any]:
        """``_meta`` of its parameters."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read(line: bytes) -> Message:
    """What can be told of a line; one that is no message is carried all the same, for the gateway to refuse."""
    raw = line.strip()
    value = _object(raw)
    named, params, method = value.get("id"), value.get("params"), value.get("method")
    return Message(
        raw,
        named if isinstance(named, str | int) and not isinstance(named, bool) else None,
        method if isinstance(method, str) else None,
        params if isinstance(params, dict) else {},
    )


def listing(meta: Mapping[str, Any], cursor: str | None) -> Message:
    """A ``tools/list`` of the bridge's own, in the name of a client that says ``meta`` of itself."""
    params = {"_meta": meta} if cursor is None else {"_meta": meta, "cursor": cursor}
    body = {"jsonrpc": "2.0", "id": "ostiary-bridge", "method": "tools/list", "params": params}
    return read(json.dumps(body).encode())


def stateless_fields(message: Message, names: Names) -> dict[str, str]:
    """The header fields that repeat a stateless message; ``names`` are the annotated arguments by tool."""
    fields = {eras.VERSION_HEADER: message.version or "", eras.METHOD_HEADER: message.method or ""}
    repeated = eras.NAME_MEMBER.get(message.method or "")
    name = None if repeated is None else message.params.get(repeated)
    if isinstance(name, str):
        fields[eras.NAME_HEADER] = headers.wrap(name)
        given = message.params.get("arguments")
        fields |= headers.param_fields(names.get(name, {}), given if isinstance(given, dict) else {})
    return fields


def annotated(body: bytes) -> tuple[dict[str, Mapping[headers.Path, str]], str | None]:
    """Of an answer to ``tools/list``: the arguments that are repeated in headers, by tool; and the next cursor."""
    result = member(body, "result")
    found = result if isinstance(result, dict) else {}
    tools, cursor = found.get("tools"), found.get("nextCursor")
    named = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    fields: dict[str, Mapping[headers.Path, str]] = {
        str(tool.get("name")): headers.annotated(tool.get("inputSchema")) for tool in named
    }
    return fields, cursor if isinstance(cursor, str) else None


def member(body: bytes, name: str) -> Any:
    """A member of a JSON object; None where there is no object, or no such member."""
    return _object(body).get(name)


def answers(body: bytes, message: Message) -> bool:
    """Whether ``body`` is the answer to ``message``; one that names no request answers what is no request."""
    value = _object(body)
    return "id" in value and "method" not in value and value["id"] == message.id


def failure(message: Message, problem: str, fix: str | None = None) -> bytes:
    """A JSON-RPC error to ``message``."""
    error: dict[str, Any] = {"code": AWAY, "message": problem}
    if fix is not None:
        error["data"] = {"fix": fix}
    return readdressed(message, error)


def readdressed(message: Message, error: Mapping[str, Any]) -> bytes:
    """``error``, which names no request, as the answer to ``message``."""
    return json.dumps({"jsonrpc": "2.0", "id": message.id, "error": error}).encode()


def on_one_line(body: bytes) -> bytes:
    """A message as a line; in JSON a line end can only stand between tokens."""
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
