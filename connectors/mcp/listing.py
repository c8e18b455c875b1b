"""What an upstream lists, all pages, within bounds: its description of itself is untrusted.

Tools are there or the upstream is of no use. What else it has (prompts, resources, templates of resources) is left out
where it cannot be listed, so that ten thousand files keep nobody from the tools beside them.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from anyio import move_on_after

from connectors.mcp.faults import Lost, Refused
from connectors.mcp.results import decode
from gateway.core import resources
from gateway.core.mcpwire import eras, headers
from gateway.core.mcpwire.jsonrpc import encode
from gateway.core.tool import Kind, kind_of

Page = Callable[[str, bytes, int], Awaitable[bytes]]
_LOG = logging.getLogger("ostiary.mcp")
_ADDRESSED: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"uri": {"type": "string"}},
    "required": ["uri"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Bounds of a listing; one that passes them is refused whole.

    Attributes:
        pages: most pages.
        bytes: most bytes over all pages.
        tools: most of a kind; every definition is looked at whenever one changes.
        others_s: longest that listing a kind other than tools may take, seconds.
    """

    pages: int = 100
    bytes: int = 4 * 1024 * 1024
    tools: int = 1000
    others_s: float = 5.0


async def all_offered(ask: Page, limits: ListingLimits, offers: Collection[str]) -> list[dict[str, Any]]:
    """Every definition that has a name of its own: tools as the upstream wrote them, others as the catalogue has them.

    Of a tool that is listed twice only the name: it is there, and makes no tool.

    Args:
        ask: asks a method with these members of ``params`` and this cap in bytes; returns the result's text.
        limits: bounds, for each kind.
        offers: what besides tools the upstream says that it has.

    Raises:
        Lost: the tools are over the bounds or no listing, or the upstream is gone.
        Refused: it does not list its tools.
    """
    tools, twice = await _all(partial(ask, "tools/list"), _Listed("tools", "name"), limits)
    # One that is named like what is no tool would be taken for it, with a definition that it has not.
    found = [
        definition for definition in [*tools, *map(_bare, sorted(twice))] if kind_of(definition["name"]) is Kind.TOOL
    ]
    for offer, method, listed, made in _OTHERS:
        if offer in offers:
            others = await _others(partial(ask, method), listed, limits)
            found += [definition for item in others if (definition := made(item)) is not None]
    return found


def well_annotated(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of those whose arguments may not be repeated in headers as they say only the names: they make no tools."""
    bad = {definition["name"] for definition in found if headers.is_misannotated(definition.get("inputSchema"))}
    if bad:
        _LOG.warning("an upstream annotates %d tools with headers that cannot be: they are left out", len(bad))
    return [_bare(definition["name"]) if definition["name"] in bad else definition for definition in found]


def _bare(name: str) -> dict[str, Any]:
    return {"name": name}


@dataclass(frozen=True, slots=True)
class _Listed:
    """A kind of listing: the member that holds the items, and the one that names an item."""

    member: str
    key: str


async def _others(
    ask: Callable[[bytes, int], Awaitable[bytes]], listed: _Listed, limits: ListingLimits
) -> list[dict[str, Any]]:
    cause = "timeout"
    with move_on_after(limits.others_s):
        try:
            return (await _all(ask, listed, limits))[0]
        except (Lost, Refused) as fault:
            cause = fault.cause
            if isinstance(fault, Refused) and fault.code == eras.METHOD_NOT_FOUND:
                return []  # many have resources and no templates
    _LOG.warning("an upstream cannot list its %s (%s): they are left out", listed.member, cause)
    return []


def as_resource(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """A resource as the catalogue has it, without what changes with its contents; None where its address is no good."""
    if not resources.is_listable(said["uri"]):
        return None
    return _addressed(said["uri"], "resource", said)


def as_template(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """A template of resources as the catalogue holds it; None where it is none."""
    text = said["uriTemplate"]
    if len(text) > resources.MAX_LISTED or resources.variables(text) is None:
        return None
    return _addressed(text, "resourceTemplate", said)


def _addressed(address: str, member: str, said: Mapping[str, Any]) -> dict[str, Any]:
    # What changes with the contents is left out: what is approved stays as it is.
    kept = {key: value for key, value in said.items() if key != "size"}
    if isinstance(kept.get("annotations"), dict):
        kept["annotations"] = {key: value for key, value in kept["annotations"].items() if key != "lastModified"}
    return {"name": f"{Kind.RESOURCE.prefix}{address}", "inputSchema": dict(_ADDRESSED), member: kept}


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


_OTHERS: Final[tuple[tuple[str, str, _Listed, Callable[[Mapping[str, Any]], dict[str, Any] | None]], ...]] = (
    ("prompts", "prompts/list", _Listed("prompts", "name"), as_definition),
    ("resources", "resources/list", _Listed("resources", "uri"), as_resource),
    ("resources", "resources/templates/list", _Listed("resourceTemplates", "uriTemplate"), as_template),
)


async def _all(
    ask: Callable[[bytes, int], Awaitable[bytes]], listed: _Listed, limits: ListingLimits
) -> tuple[list[dict[str, Any]], set[str]]:
    tools: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    room, members = limits.bytes, b""
    for _ in range(limits.pages):
        body = await ask(members, room)
        room -= len(body)
        page = decode(body)
        for definition in _definitions(page, listed):
            name = definition[listed.key]
            if name in tools:
                twice.add(name)
            tools[name] = definition
        if len(tools) > limits.tools:
            raise Lost("too_many_tools")
        cursor = page.get("nextCursor")
        if cursor is None:
            # Of two with one name nobody can tell which one a call would reach.
            return [definition for name, definition in tools.items() if name not in twice], twice
        if not isinstance(cursor, str):
            raise Lost("listing")
        members = b'"cursor":' + encode(cursor)
    raise Lost("too_many_pages")


def _definitions(page: dict[str, Any], listed: _Listed) -> list[dict[str, Any]]:
    found = page.get(listed.member)
    if not isinstance(found, list):
        raise Lost("listing")
    # What has no name cannot be called; it does not keep the others away.
    return [item for item in found if isinstance(item, dict) and isinstance(item.get(listed.key), str)]
