"""``tools/list`` and ``prompts/list``, all pages, within bounds: an upstream's description of itself is untrusted."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectors.mcp.faults import Lost
from connectors.mcp.results import decode
from gateway.core.mcpwire.jsonrpc import encode
from gateway.core.tool import Kind

Page = Callable[[str, bytes, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Bounds of a listing; one that passes them is refused whole.

    Attributes:
        pages: most pages.
        bytes: most bytes over all pages.
        tools: most tools; every definition is looked at whenever one changes.
    """

    pages: int = 100
    bytes: int = 4 * 1024 * 1024
    tools: int = 1000


async def all_offered(ask: Page, limits: ListingLimits, *, prompts: bool) -> list[dict[str, Any]]:
    """Every definition that has a name of its own, as the upstream wrote it; prompts as ``as_definition`` has them.

    Args:
        ask: asks a method with these members of ``params`` and this cap in bytes; returns the result's text.
        limits: bounds, for each kind.
        prompts: whether the upstream says that it has prompts.

    Raises:
        Lost: over the bounds, or not a listing.
    """
    tools = await _all(partial(ask, "tools/list"), "tools", limits)
    if not prompts:
        return tools
    return tools + [as_definition(prompt) for prompt in await _all(partial(ask, "prompts/list"), "prompts", limits)]


def as_definition(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt as the catalogue holds it: under its name inside, with a schema of its arguments, which are texts."""
    said = prompt.get("arguments")
    described = [item for item in said if isinstance(item, dict)] if isinstance(said, list) else []
    named = {item["name"]: item for item in described if isinstance(item.get("name"), str)}
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in named},
        "required": [name for name, item in named.items() if item.get("required") is True],
        "additionalProperties": False,
    }
    return {**prompt, "name": f"{Kind.PROMPT.prefix}{prompt['name']}", "inputSchema": schema}


async def _all(
    ask: Callable[[bytes, int], Awaitable[bytes]], member: str, limits: ListingLimits
) -> list[dict[str, Any]]:
    tools: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    room, members = limits.bytes, b""
    for _ in range(limits.pages):
        body = await ask(members, room)
        room -= len(body)
        page = decode(body)
        for definition in _definitions(page, member):
            name = definition["name"]
            if name in tools:
                twice.add(name)
            tools[name] = definition
        if len(tools) > limits.tools:
            raise Lost("too_many_tools")
        cursor = page.get("nextCursor")
        if cursor is None:
            # Of two with one name nobody can tell which one a call would reach.
            return [definition for name, definition in tools.items() if name not in twice]
        if not isinstance(cursor, str):
            raise Lost("listing")
        members = b'"cursor":' + encode(cursor)
    raise Lost("too_many_pages")


def _definitions(page: dict[str, Any], member: str) -> list[dict[str, Any]]:
    found = page.get(member)
    if not isinstance(found, list):
        raise Lost("listing")
    # What has no name cannot be called; it does not keep the others away.
    return [item for item in found if isinstance(item, dict) and isinstance(item.get("name"), str)]
