"""From what upstreams and catalogue files say of tools to shelves: usable, compared with their pins, compiled."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from gateway.core import schema
from gateway.core.canonical import MAX_DEPTH
from gateway.core.catalog import Shelf
from gateway.core.connector import Discovering
from gateway.core.pinning import Approval, Cause, Described, Pin, Quarantine
from gateway.core.suspicion import Names, rules_of, suspicions
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

    def described(self, definition: Mapping[str, Any]) -> Described:
        """What an approval of ``definition`` binds, here.

        Raises:
            SettingsError: the definition cannot be used.
        """
        return Described(catalogue.place(self.upstream), definition, self.tool(definition).digest)


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


def approvals(source: Source, live: Definitions, names: Names, *, hold: bool) -> list[Approval]:
    """What trust on first use approves of an upstream's words; where ``hold``, nothing that is suspicious."""
    found = []
    for name, text in live.items():
        rules = rules_of(suspicions(source.name, text, names))
        if rules and hold:
            _LOG.warning("tool %s.%s is left to people: %s", source.name, name, ", ".join(rules))
            continue
        if rules:
            _LOG.warning("tool %s.%s is pinned on first use in spite of: %s", source.name, name, ", ".join(rules))
        found.append(Approval(f"{source.name}.{name}", source.described(text), rules=rules))
    return found


def pinned(source: Source, live: Definitions | None, pins: Mapping[str, Pin]) -> list[Shelf]:
    """The shelves of one upstream: each approved tool, quarantined where ``live`` is not what was approved.

    Args:
        source: the upstream.
        live: what it says now; None = it was not heard.
        pins: what was approved of it, by tool name.
    """
    # A pin that is no tool any more is left out like a tool that never was one.
    good = {name: pin for name, pin in pins.items() if _is_usable(source, pin.approved.definition)}
    return [_compared(source, name, pin, live) for name, pin in good.items()]


def quarantines(
    source: Source, live: Definitions | None, shelves: Sequence[Shelf], offered: Collection[Any] = ()
) -> list[Quarantine]:
    """What is to be recorded of shelves that are quarantined; ``offered``: also what makes no tool."""
    return [
        _case(source, live or {}, shelf, shelf.quarantine, offered) for shelf in shelves if shelf.quarantine is not None
    ]


def _case(source: Source, live: Definitions, shelf: Shelf, cause: Cause, offered: Collection[Any]) -> Quarantine:
    tool = shelf.tool
    said = live.get(tool.name)
    if cause is Cause.GONE and tool.name in offered:  # it is there, and not as it was approved
        cause = Cause.CHANGED
    now = None if said is None or cause is not Cause.CHANGED else source.described(said)
    if now is not None and now.digest == shelf.tool.digest:
        now = None  # taken back
    return Quarantine(tool.fqn, tool.digest, cause, now)


def _compared(source: Source, name: str, pin: Pin, live: Definitions | None) -> Shelf:
    tool = source.tool(pin.approved.definition)
    if tool.digest != pin.approved.digest:
        # The digest stays that of the pin: it names what was approved.
        return _discovered_shelf(replace(tool, digest=pin.approved.digest), Cause.ENDPOINT)
    is_other = live is not None and name in live and source.tool(live[name]).digest != tool.digest
    if pin.is_changed or is_other:
        return _discovered_shelf(tool, Cause.CHANGED)
    if live is not None and name not in live:
        return _discovered_shelf(tool, Cause.GONE)
    return _discovered_shelf(tool)


def _discovered_shelf(tool: Tool, quarantine: Cause | None = None) -> Shelf:
    # One upstream's bad schema must not keep the others' tools away: the tool stays visible and cannot be used.
    try:
        return replace(_compiled(tool), quarantine=quarantine)
    except schema.SchemaRefused:
        return Shelf(tool, lambda _: ["the tool's schema cannot be used"], Cause.UNUSABLE)


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
