"""Upstreams as configured: connectors opened, tools discovered, compared with their pins and put on shelves."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from connectors import http, sql
from connectors.http import HttpApi, HttpApiOptions
from connectors.mcp.exchange import open_session
from connectors.mcp.http import HttpConnector
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector
from connectors.sql import SqliteConnector
from gateway import catalogue
from gateway.adapters.pins import Pins
from gateway.adapters.static_broker import SecretSource, read_secret
from gateway.core import schema
from gateway.core.catalog import Shelf
from gateway.core.connector import Connector, Discovering
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues, UnfitSecret
from gateway.core.tool import Tool
from gateway.settings import GatewaySettings, HttpUpstream, McpUpstream, SettingsError, SqlUpstream, Upstream

Definitions = Mapping[str, Mapping[str, Any]]
_LOG = logging.getLogger("ostiary.upstreams")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The open connectors of one gateway.

    Attributes:
        all: by server name.
        discovering: those whose upstream describes its own tools.
    """

    all: Mapping[str, Connector]
    discovering: Mapping[str, Discovering]


async def connect(settings: GatewaySettings, known: KnownValues, stack: AsyncExitStack) -> Upstreams:
    """Open every configured connector; ``stack`` closes them. An upstream that is down does not stop the others.

    Secrets of child processes are added to ``known``.

    Raises:
        SettingsError: an upstream cannot be used as it is configured.
    """
    client = await stack.enter_async_context(open_session())
    found: dict[str, Connector] = {}
    discovering: dict[str, Discovering] = {}
    for name, upstream in settings.upstreams.items():
        if isinstance(upstream, McpUpstream):
            discovering[name] = await stack.enter_async_context(_mcp(name, upstream, client, known))
            found[name] = discovering[name]
        else:
            found[name] = await stack.enter_async_context(_declared(name, upstream))
    return Upstreams(found, discovering)


async def stock(settings: GatewaySettings, upstreams: Upstreams, pins: Pins) -> list[Shelf]:
    """All tools of the catalogue in force, pinned.

    Raises:
        SettingsError: the catalogue cannot be used.
        Unavailable: the pins cannot be read or written.
    """
    entries = catalogue.load(settings.catalogue)
    tools = catalogue.declared(entries, settings)
    problems = [problem for tool in tools for problem in _misbound(tool, settings.upstreams[tool.server])]
    if problems:
        raise SettingsError([f"catalogue: {problem}" for problem in problems])
    shelves = [_declared_shelf(tool) for tool in tools]
    for name, connector in upstreams.discovering.items():
        upstream = settings.upstreams[name]
        assert isinstance(upstream, McpUpstream)
        source = Source(name, upstream, entries)
        shelves += _pinned(source, await _discover(source, connector), pins)
    return shelves


@dataclass(frozen=True, slots=True)
class Source:
    """Where MCP tools come from: the upstream, and what the operator says about its tools."""

    name: str
    upstream: McpUpstream
    entries: Sequence[catalogue.ToolEntry]

    def tool(self, definition: Mapping[str, Any]) -> Tool:
        """The tool that ``definition`` describes."""
        return catalogue.discovered(self.name, self.upstream, definition, self.entries)


def _mcp(
    name: str, upstream: McpUpstream, client: aiohttp.ClientSession, known: KnownValues
) -> HttpConnector | StdioConnector:
    if upstream.url is not None:
        return HttpConnector(upstream.url, client)
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_environment(name, upstream, known)}
    return StdioConnector(Command(upstream.command, environment, upstream.cwd), _child_log(name))


def _environment(server: str, upstream: McpUpstream, known: KnownValues) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, given in upstream.env.items():
        if isinstance(given, str):
            values[name] = given
            continue
        what = f"upstreams.{server}.env.{name}"
        try:
            values[name] = read_secret(what, SecretSource(env=given.env, file=given.file), os.environ)
            known.add(values[name])
        except Unavailable as error:
            raise SettingsError([error.detail]) from None
        except UnfitSecret as error:
            raise SettingsError([f"{what} cannot be kept out of outputs: {error}"]) from None
    return values


def _misbound(tool: Tool, upstream: Upstream) -> list[str]:
    if isinstance(upstream, SqlUpstream):
        return sql.check(tool, upstream.database)
    return http.check(tool) if isinstance(upstream, HttpUpstream) else []


def _declared(name: str, upstream: SqlUpstream | HttpUpstream) -> HttpApi | SqliteConnector:
    if isinstance(upstream, SqlUpstream):
        return SqliteConnector(upstream.database)
    try:
        return HttpApi(upstream.origin, HttpApiOptions(allow_networks=upstream.allow_networks))
    except ValueError as error:
        raise SettingsError([f"upstreams.{name}: {error}"]) from None


def _child_log(name: str) -> Callable[[str], None]:
    log = logging.getLogger(f"ostiary.upstream.{name}")
    # What a child writes is untrusted and may quote arguments: only for operators who turn debugging on.
    return lambda line: log.debug("%s", line)


async def _discover(source: Source, connector: Discovering) -> Definitions | None:
    try:
        found = await connector.discover()
    except Unavailable as error:
        _LOG.warning("upstream %s cannot be asked for its tools: %s", source.name, error.detail)
        return None
    return {definition["name"]: definition for definition in found if _is_usable(source, definition)}


def _is_usable(source: Source, definition: Mapping[str, Any]) -> bool:
    try:
        source.tool(definition)
    except SettingsError as error:
        _LOG.warning("a tool is left out: %s", error)
        return False
    return True


def _pinned(source: Source, live: Definitions | None, pins: Pins) -> list[Shelf]:
    known = dict(pins.of(source.name))
    if live is not None and source.upstream.trust == "first_use":
        fresh = {name: text for name, text in live.items() if name not in known}
        if fresh:
            known |= {name: {"digest": source.tool(text).digest, "definition": text} for name, text in fresh.items()}
            pins.add(source.name, known)
    elif live is not None and not known:
        _LOG.warning('upstream %s has no pinned tools; trust = "first_use" pins what it says now', source.name)
    return [_compared(source, name, pin, live) for name, pin in known.items()]


def _compared(source: Source, name: str, pin: Mapping[str, Any], live: Definitions | None) -> Shelf:
    tool = source.tool(pin["definition"])
    if tool.digest != pin["digest"]:
        return _discovered_shelf(tool, "the upstream's address is not the one this tool was approved at")
    if live is not None and name not in live:
        return _discovered_shelf(tool, "the upstream no longer offers this tool")
    if live is not None and source.tool(live[name]).digest != tool.digest:
        return _discovered_shelf(tool, "the upstream now describes this tool otherwise than approved")
    return _discovered_shelf(tool)


def _declared_shelf(tool: Tool) -> Shelf:
    try:
        return _compiled(tool)
    except schema.SchemaRefused as error:
        raise SettingsError([f"catalogue: {tool.fqn}: schema refused: {error}"]) from None


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
