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
    """

    pages: int = 100
    bytes: int = 16 * 1024 * 1024


async def all_tools(ask: Callable[[bytes, int], Awaitable[bytes]], limits: ListingLimits) -> list[dict[str, Any]]:
    """Every tool definition, as the upstream wrote it.

    Args:
        ask: asks ``tools/list`` with these members of ``params`` and this cap in bytes; returns the result's text.
        limits: bounds.

    Raises:
        Lost: over the bounds, not a listing, or a name that occurs twice.
    """
    tools: dict[str, dict[str, Any]] = {}
    room, members = limits.bytes, b""
    for _ in range(limits.pages):
        body = await ask(members, room)
        room -= len(body)
        page = decode(body)
        for definition in _definitions(page):
            if definition["name"] in tools:
                raise Lost("duplicate_tool")
            tools[definition["name"]] = definition
        cursor = page.get("nextCursor")
        if cursor is None:
            return list(tools.values())
        if not isinstance(cursor, str):
            raise Lost("listing")
        members = b'"cursor":' + encode(cursor)
    raise Lost("too_many_pages")


def _definitions(page: dict[str, Any]) -> list[dict[str, Any]]:
    found = page.get("tools")
    if not isinstance(found, list):
        raise Lost("listing")
    for definition in found:
        if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
            raise Lost("listing")
    return found
