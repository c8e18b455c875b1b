"""The evidence chain for tests that start in the middle of it: every link is real, only its origin is the test."""

from collections.abc import Mapping
from typing import Any

from gateway.core import canonical
from gateway.core.call import (
    Call,
    Caller,
    Channel,
    Intent,
    Lease,
    Live,
    Permit,
    Principal,
    Quota,
    Resolved,
    Run,
    RunKind,
)
from gateway.core.canonical import Arguments, Json
from gateway.core.decision import Decision, Effect, Obligations
from gateway.core.errors import Reason
from gateway.core.tool import ConnectorKind, EffectClass, Tool, ToolLimits, definition_digest
from gateway.core.usage import Usage

AT_US = 1_770_000_000_000_000
_OBJECT: Mapping[str, Any] = {"type": "object"}


def make_arguments(value: Mapping[str, Any] | bytes | None = None) -> Arguments:
    """Arguments from a plain dict, or from JSON text where lexemes matter."""
    text = value if isinstance(value, bytes) else canonical.encode(dict(value or {}))
    document: Json = canonical.parse(text)
    return canonical.arguments(document)


def make_tool(
    name: str = "echo",
    *,
    server: str = "up",
    schema: Mapping[str, Any] = _OBJECT,
    limits: ToolLimits | None = None,
    **other: Any,
) -> Tool:
    """A pinned MCP tool; ``other`` are further ``Tool`` fields."""
    definition = {"name": name, "inputSchema": dict(schema)}
    fields: dict[str, Any] = {"connector": ConnectorKind.MCP, "definition": definition, "effect": EffectClass.READ}
    fields |= {"limits": limits or ToolLimits(), **other}
    digest = definition_digest(server, fields["connector"], "test", fields["definition"])
    return Tool(server=server, name=name, digest=digest, **fields)


def make_principal(**other: Any) -> Principal:
    """An agent working for ``alice``; ``other`` replaces fields."""
    fields: dict[str, Any] = {
        "issuer": "urn:test",
        "user": "alice",
        "agent": "test-agent",
        "groups": frozenset[str](),
        "scopes": frozenset({"tools"}),
        "auth_method": "local",
        "jti": "jti-1",
        "expires_us": AT_US + 3_600_000_000,
    }
    return Principal(**(fields | other))


def make_run(principal: Principal | None = None, **other: Any) -> Run:
    """A run the principal may use; ``other`` replaces fields."""
    whose = principal or make_principal()
    fields: dict[str, Any] = {
        "id": "018f0000-0000-7000-8000-000000000001",
        "kind": RunKind.IMPLICIT,
        "principal_key": whose.key,
        "opened_by": whose.user,
        "goal": None,
        "scope": (),
        "budget": {},
        "plan": (),
        "started_us": AT_US,
        "expires_us": AT_US + 3_600_000_000,
    }
    return Run(**(fields | other))


def make_call(tool: str = "up.echo", arguments: Mapping[str, Any] | bytes | None = None, **other: Any) -> Call:
    """A call as it arrived; ``other`` replaces fields."""
    fields: dict[str, Any] = {
        "id": "018f0000-0000-7000-8000-0000000000ca",
        "at_us": AT_US,
        "origin": Live("not-a-token"),
        "channel": Channel.MCP,
        "tool": tool,
        "arguments": make_arguments(arguments),
    }
    return Call(**(fields | other))


def make_caller(call: Call | None = None, principal: Principal | None = None, run: Run | None = None) -> Caller:
    """A call inside a run of its principal."""
    whose = principal or make_principal()
    return Caller(call or make_call(), whose, run or make_run(whose))


def make_decision(effect: Effect = Effect.ALLOW, **other: Any) -> Decision:
    """A decision; ``other`` replaces fields."""
    fields: dict[str, Any] = {
        "id": "018f0000-0000-7000-8000-0000000000de",
        "effect": effect,
        "reasons": (Reason(f"test.{effect}", "test", "because the test says so"),),
        "requirements": (),
        "obligations": Obligations(),
        "revision": "0" * 64,
        "engine": "test",
        "document": b"{}",
    }
    return Decision(**(fields | other))


def make_permit(target: Resolved | None = None, decision: Decision | None = None) -> Permit:
    """A permit with a reservation in a ledger of its own."""
    whose = target or Resolved(make_caller(), make_tool(), None)
    return Permit(whose, decision or make_decision(), Usage().reserve(whose.tool.fqn, {}))


def make_intent(permit: Permit | None = None) -> Intent:
    """The durable intent of a permitted call."""
    return Intent(Quota(permit or make_permit()), "018f0000-0000-7000-8000-0000000000e1")


def lease(
    tool: Tool, arguments: Mapping[str, Any] | bytes | None = None, headers: Mapping[str, str] | None = None
) -> Lease:
    """What a connector is invoked with: this tool, these arguments, these credential header fields."""
    caller = make_caller(make_call(tool.fqn, arguments))
    return Lease(make_intent(make_permit(Resolved(caller, tool, None))), dict(headers or {}))
