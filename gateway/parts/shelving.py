"""From what upstreams and catalogue files say of tools to shelves: usable, compared with their pins, compiled."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from gateway.adapters.pins import Pins
from gateway.core import schema
from gateway.core.canonical import MAX_DEPTH
from gateway.core.catalog import Shelf
from gateway.core.connector import Discovering
from gateway.core.tool import Tool
from gateway.findings import Finding
from gateway.settings import SettingsError, catalogue
from gateway.settings.upstreams import McpUpstream

Definitions = Mapping[str, Mapping[str, Any]]
_LOG = logging.getLogger("ostiary.stock")
_NAMES_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Source:
    """Where MCP tools come from.

    Attributes:
        name: server name.
        upstream: how it is configured.
        entries: what the operator says about tools, of all servers.
        connector: asks the upstream.
    """

    name: str
    upstream: McpUpstream
    entries: Sequence[catalogue.ToolEntry]
    connector: Discovering

    def tool(self, definition: Mapping[str, Any]) -> Tool:
        """The tool that ``definition`` describes.

        Raises:
            SettingsError: the definition cannot be used.
        """
        return catalogue.discovered(self.name, self.upstream, definition, self.entries)


def declared_shelf(tool: Tool) -> Shelf:
    """The shelf of a tool that the catalogue declares whole.

    Raises:
        SettingsError: its schema cannot be used.
    """
    try:
        return _compiled(tool)
    except schema.SchemaRefused as error:
        raise SettingsError([f"catalogue: {tool.fqn}: schema refused: {error}"]) from None


def usable(source: Source, found: Sequence[Mapping[str, Any]]) -> Definitions:
    """Those definitions that can be tools, by name; the others are left out with a warning."""
    return {definition["name"]: definition for definition in found if _is_usable(source, definition)}


def _is_usable(source: Source, definition: Mapping[str, Any]) -> bool:
    try:
        if _is_deep(definition):
            raise SettingsError([f"upstreams.{source.name}: a tool definition nested deeper than {MAX_DEPTH} levels"])
        source.tool(definition)
    except SettingsError as error:
        _LOG.warning("a tool is left out: %s", error)
        return False
    return True


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def pinned(source: Source, live: Definitions | None, pins: Pins) -> list[Shelf]:
    """The shelves of one upstream: each approved tool, quarantined where ``live`` is not what was approved.

    Args:
        source: the upstream; where it is trusted on first use and nothing was approved yet, ``live`` is approved here.
        live: what it says now; None = it was not heard.
        pins: what was approved.

    Raises:
        Unavailable: the pins cannot be written; nothing is approved.
    """
    known = dict(pins.of(source.name))
    fresh = {} if live is None else {name: text for name, text in live.items() if name not in known}
    if fresh and not known and source.upstream.trust == "first_use":
        known = {name: {"digest": source.tool(text).digest, "definition": text} for name, text in fresh.items()}
        pins.add(source.name, known)
    elif fresh and not known:
        _LOG.warning('upstream %s has no pinned tools; trust = "first_use" pins what it says now', source.name)
    elif fresh:  # a server that was taken over later must not widen what it may do
        _LOG.warning("upstream %s has %d new tools, which nobody approved: left out", source.name, len(fresh))
    # A pin that is no tool any more is left out like a tool that never was one.
    usable = {name: pin for name, pin in known.items() if _is_usable(source, pin["definition"])}
    return [_compared(source, name, pin, live) for name, pin in usable.items()]


def _compared(source: Source, name: str, pin: Mapping[str, Any], live: Definitions | None) -> Shelf:
    tool = source.tool(pin["definition"])
    if tool.digest != pin["digest"]:
        return _discovered_shelf(tool, "the upstream's address is not the one this tool was approved at")
    if live is not None and name not in live:
        return _discovered_shelf(tool, "the upstream no longer offers this tool")
    if live is not None and source.tool(live[name]).digest != tool.digest:
        return _discovered_shelf(tool, "the upstream now describes this tool otherwise than approved")
    return _discovered_shelf(tool)


def _discovered_shelf(tool: Tool, quarantine: str | None = None) -> Shelf:
    # One upstream's bad schema must not keep the others' tools away: the tool stays visible and cannot be used.
    try:
        return replace(_compiled(tool), quarantine=quarantine)
    except schema.SchemaRefused:
        return Shelf(tool, lambda _: ["the tool's schema cannot be used"], "the tool's schema cannot be used")


def _compiled(tool: Tool) -> Shelf:
    if tool.definition.get("outputSchema") is not None:
        schema.compile(tool.definition["outputSchema"])
    return Shelf(tool, schema.compile(tool.definition["inputSchema"]).problems)


def strays(source: Source, names: set[str]) -> list[Finding]:
    """A finding for each catalogue entry of a tool that is not among the upstream's ``names``."""
    entries = [entry for entry in source.entries if entry.server == source.name and entry.name not in names]
    return [
        Finding(
            f"catalogue:{entry.server}.{entry.name}",
            ok=False,
            text="the upstream has no tool of this name, so the entry says nothing about any",
            fix=_spelling(entry.name, sorted(names)),
        )
        for entry in entries
    ]


def _spelling(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, _NAMES_TOLD)
    if near:
        return f"correct the entry's name in the catalogue; near it: {', '.join(near)}"
    more = ", ..." if len(names) > _NAMES_TOLD else ""
    there = f"{', '.join(names[:_NAMES_TOLD])}{more}" if names else "nothing"
    return f"correct the entry's name in the catalogue, or take it out; the upstream has: {there}"
