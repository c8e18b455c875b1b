"""Prompts on the MCP wire: named as tools are, and carried by the same pipeline under their own kind."""

from collections.abc import Sequence
from typing import Any

from gateway.core.mcpwire import jsonrpc
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import Tool
from gateway.edge.mcp import tools


def served(prompt: Tool, server: str | None) -> dict[str, Any]:
    """The approved description as clients get it: under the endpoint's name, without the schema that was made of it."""
    definition = {**prompt.definition, "name": prompt.wire_name if server is None else prompt.own_name}
    del definition["inputSchema"]
    return definition


def listed(prompts: Sequence[Tool], server: str | None, era: Era) -> dict[str, Any]:
    """The result of ``prompts/list``: one page, in catalogue order."""
    page: dict[str, Any] = {"prompts": [served(prompt, server) for prompt in prompts]}
    return page | tools.stateless_head(0) if era is Era.STATELESS else page


def readable(outcome: bytes) -> bytes:
    """What came of a call, as a tool result: a prompt's messages, which are none, become its text."""
    if "content" in jsonrpc.members(outcome):
        return outcome
    return jsonrpc.encode({"content": [{"type": "text", "text": outcome.decode()}]})
