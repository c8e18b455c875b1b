"""What follows resources and templates of them: entries of the catalogue made of theirs, under their pins."""

from collections.abc import Iterable
from typing import Any, Final

from gateway.core import schema
from gateway.core.catalog import Shelf
from gateway.core.tool import Kind
from gateway.parts.shelving import Source

# ``ends`` is ours: it tells an end from a begin, in the log and for policy, and does not reach the upstream.
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"uri": {"type": "string"}, "ends": {"const": True}},
    "required": ["uri"],
    "additionalProperties": False,
}


def subscriptions(source: Source, shelves: Iterable[Shelf]) -> list[Shelf]:
    """A shelf for each resource and template; as for what completes something, under the pin of what is followed."""
    problems = schema.compile(_SCHEMA).problems
    return [
        Shelf(source.tool({"name": name_of(shelf.tool.own_name), "inputSchema": _SCHEMA}), problems, shelf.quarantine)
        for shelf in shelves
        if shelf.tool.kind is Kind.RESOURCE
    ]


def name_of(address: str) -> str:
    """The name of what follows an address or a template, without the server."""
    return f"{Kind.SUBSCRIPTION.prefix}{address}"
