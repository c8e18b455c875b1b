"""``tools/list``, all pages, within bounds: an upstream's description of itself is untrusted input."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from connectors.mcp.faults import Lost
from connectors.mcp.results import decode
from gateway.core.mcpwire.jsonrpc import encode


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


async def all_tools(ask: Callable[[bytes, int], Awaitable[bytes]], limits: ListingLimits) -> list[dict[str, Any]]:
    """Every tool definition that has a name of its own, as the upstream wrote it.

    Args:
        ask: asks ``tools/list`` with these members of ``params`` and this cap in bytes; returns the result's text.
        limits: bounds.

    Raises:
        Lost: over the bounds, or not a listing.
    """
    tools: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    room, members = limits.bytes, b""
    for _ in range(limits.pages):
        body = await ask(members, room)
        room -= len(body)
        page = decode(body)
        for definition in _definitions(page):
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


def _definitions(page: dict[str, Any]) -> list[dict[str, Any]]:
    found = page.get("tools")
    if not isinstance(found, list):
        raise Lost("listing")
    # What has no name cannot be called; it does not keep the others away.
    return [item for item in found if isinstance(item, dict) and isinstance(item.get("name"), str)]
