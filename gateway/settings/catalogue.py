"""Catalogue files: what operators declare about tools, as pydantic models, and the pinned tools made from them.

A SQL, HTTP or code tool is declared whole. An MCP tool is described by its upstream and pinned; an entry of the same
name adds what the gateway must not take from an upstream: effect class, labels, measures, limits, vendor data.
"""

import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from gateway.core.tool import (
    ConnectorKind,
    EffectClass,
    Kind,
    Measure,
    Tool,
    ToolLimits,
    Vendor,
    definition_digest,
    kind_of,
)
from gateway.settings import GatewaySettings, ServerName, SettingsError, hooks
from gateway.settings.sections import Section
from gateway.settings.upstreams import HookUpstream, HttpUpstream, McpUpstream, SqlUpstream

# What an MCP server has besides tools: a prompt, a resource or a template of them by its address, what completes or
# follows one.
# Behind ``hooks/`` it names what a coding agent does itself.
ToolName = Annotated[
    str,
    StringConstraints(
        pattern=r"^((prompts/|completions/prompts/|hooks/)?[A-Za-z0-9_.-]{1,128}"
        r"|((completions/)?resources|subscriptions)/[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,200})$"
    ),
]
Pointer = Annotated[str, StringConstraints(pattern=r"^(/[^/]+)+$")]


class MeasureEntry(Section):
    """A number of the arguments that adds up over a run."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    pointer: Pointer = Field(description="JSON pointer of an integer argument; money in minor units.")
    currency_pointer: Pointer | None = Field(None, description="JSON pointer of the currency.")


class LimitsEntry(Section):
    """Limits of one tool."""

    per_minute: int | None = Field(None, ge=1, description="Calls a minute and principal.")
    concurrency: int | None = Field(None, ge=1, description="Calls at a time.")
    timeout_s: float = Field(30.0, gt=0, le=600)
    max_output_bytes: int = Field(4 * 1024 * 1024, ge=64)


class VendorEntry(Section):
    """Who runs the upstream, where, and on what terms."""

    name: str = "unspecified"
    region: str = "unspecified"
    retention_days: int | None = Field(None, ge=0)
    price_micros: int = Field(0, ge=0, description="Price of a call in millionths of the currency.")
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "EUR"


class SqlBinding(Section):
    """One declared statement; parameters are bound, never pasted."""

    statement: str
    parameters: tuple[str, ...] = Field((), description="Argument names, bound as :name.")
    mode: Literal["read", "write"] = "read"
    max_rows: int = Field(1000, ge=1, le=100_000)
    columns: tuple[str, ...] | None = Field(None, description="Names the result's columns must have, in order.")


class HttpBinding(Section):
    """One request; the origin is the upstream's."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, StringConstraints(pattern=r"^/")] = Field(description="Template such as /orders/{id}.")
    query: tuple[str, ...] = Field((), description="Arguments sent in the query string.")
    body: tuple[str, ...] | Literal["rest"] = Field(
        (), description="Arguments sent as members of a JSON body; `rest` = all not named elsewhere."
    )
    success: tuple[int, ...] = Field((), description="Statuses that are a success; none given = 200 to 299.")
    idempotency_header: str | None = Field(None, description="Header field that carries the call id.")


class BoxEntry(Section):
    """Caps of the box that a code tool runs in."""

    memory_mb: int = Field(256, ge=32, le=65_536, description="Memory of all its processes and files, MiB.")
    pids: int = Field(32, ge=1, le=4096, description="Processes and threads at a time.")
    cpu_s: float = Field(10.0, gt=0, le=600, description="Processor time of all its processes.")
    wall_s: float = Field(20.0, gt=0, le=600, description="Time from start to end.")
    output_bytes: int = Field(256 * 1024, ge=64, le=4 * 1024 * 1024, description="Both outputs together; no more.")
    work_mb: int = Field(32, ge=1, le=4096, description="Files below /work, and as much below /tmp, MiB.")


class CodeBinding(Section):
    """Code the caller sends, run in a sandbox box of its own."""

    language: Literal["python"] = "python"
    code: str = Field("code", description="The argument that holds the program text.")
    input: str | None = Field(None, description="The argument whose JSON text the program reads on its input.")
    limits: BoxEntry = BoxEntry()


class ToolEntry(Section):
    """What the operator says about one tool."""

    server: ServerName
    name: ToolName
    effect: EffectClass = Field(
        EffectClass.DESTRUCTIVE, description="What it does to the world; never taken from hints."
    )
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    reversible: bool = False
    open_world: bool = True
    labels: tuple[str, ...] = ()
    measures: tuple[MeasureEntry, ...] = ()
    limits: LimitsEntry = LimitsEntry()
    vendor: VendorEntry = VendorEntry()
    big_integers: bool = Field(default=False, description="Admit integers beyond 2^53 (policy reads them as strings).")
    sql: SqlBinding | None = None
    http: HttpBinding | None = None
    code: CodeBinding | None = None

    @property
    def bindings(self) -> dict[ConnectorKind, Section]:
        """What it is bound to, by connector; a tool of an MCP server has nothing here."""
        said = {ConnectorKind.SQL: self.sql, ConnectorKind.HTTP: self.http, ConnectorKind.CODE: self.code}
        return {kind: binding for kind, binding in said.items() if binding is not None}

    @property
    def kind(self) -> ConnectorKind:
        """Which connector carries it out."""
        unbound = ConnectorKind.HOOK if kind_of(self.name) is Kind.HOOK else ConnectorKind.MCP
        return next(iter(self.bindings), unbound)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.bindings) > 1:
            raise ValueError("a tool is bound to one of sql, http and code")
        declared = bool(self.bindings)
        if kind_of(self.name) is Kind.HOOK:
            hooks.check(self.model_fields_set)
            return self
        if declared and (self.description is None or self.input_schema is None):
            raise ValueError("a sql, http or code tool needs description and input_schema")
        if not declared and (self.input_schema or self.output_schema or self.description):
            raise ValueError("an MCP tool's description and schemas come from its upstream and are pinned")
        return self


class CatalogueFile(Section):
    """One catalogue file."""

    tool: tuple[ToolEntry, ...] = ()


def load(paths: Iterable[Path]) -> tuple[ToolEntry, ...]:
    """Read catalogue files, ``.toml`` or ``.json``.

    Raises:
        SettingsError: unreadable, malformed, unknown keys, or a tool declared twice.
    """
    entries = tuple(entry for path in paths for entry in _file(path).tool)
    names = [f"{entry.server}.{entry.name}" for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError([f"catalogue: {name} is declared twice" for name in twice])
    return entries


def declared(entries: Sequence[ToolEntry], settings: GatewaySettings) -> list[Tool]:
    """The SQL, HTTP and code tools, pinned by their own declaration.

    Raises:
        SettingsError: an entry's server does not exist or is of another kind.
    """
    problems = [problem for entry in entries if (problem := _mismatch(entry, settings)) is not None]
    if problems:
        raise SettingsError(problems)
    return [
        _tool(entry, _definition(entry), _endpoint(entry, settings), _credential(entry, settings))
        for entry in entries
        if entry.bindings
    ]


def sketch(entry: ToolEntry) -> Tool:
    """A declared tool by its entry alone, before it is known where its upstream is; its digest is no pin's."""
    return _tool(entry, _definition(entry), "", None)


def advised(entries: Sequence[ToolEntry], settings: GatewaySettings) -> list[Tool]:
    """What coding agents ask about before they do it themselves: what is known of each, and what the catalogue says."""
    found = []
    for server, upstream in settings.upstreams.items():
        if isinstance(upstream, HookUpstream):
            own = {name: ToolEntry(server=server, name=name, **said) for name, said in hooks.known(upstream)}
            own |= {entry.name: entry for entry in entries if entry.server == server}
            tools = [_tool(entry, _definition(entry), _endpoint(entry, settings), None) for entry in own.values()]
            found += [replace(tool, binding={"approval": upstream.approval}) for tool in tools]
    return found


def discovered(server: str, upstream: McpUpstream, definition: Mapping[str, Any], entries: Sequence[ToolEntry]) -> Tool:
    """One MCP tool as its upstream describes it, with what the operator's entry adds; no entry = ``destructive``.

    Raises:
        SettingsError: the definition has no usable name or input schema.
    """
    name = definition.get("name")
    if not isinstance(name, str) or not isinstance(definition.get("inputSchema"), dict):
        raise SettingsError([f"upstreams.{server}: a tool without name or inputSchema"])
    try:
        own = {entry.name: entry for entry in entries if entry.server == server}
        entry = own.get(name) or ToolEntry(server=server, name=name)
    except ValidationError:
        raise SettingsError([f"upstreams.{server}: a tool name that is not of letters, digits, _ . -"]) from None
    return _tool(entry, definition, place(upstream), upstream.credential)


def place(upstream: McpUpstream) -> str:
    """Where an MCP server is reached: its URL, or its command line as a shell would take it."""
    return upstream.url or shlex.join(upstream.command)


def _file(path: Path) -> CatalogueFile:
    try:
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return CatalogueFile.model_validate(document)
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from None
    except ValidationError as error:
        raise SettingsError(
            [f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        ) from None
    except ValueError as error:  # JSON, TOML and UTF-8 errors
        raise SettingsError([f"{path}: {error}"]) from None


def _mismatch(entry: ToolEntry, settings: GatewaySettings) -> str | None:
    kind = entry.kind
    upstream = settings.upstreams.get(entry.server)
    if upstream is None:
        return f"catalogue: {entry.server}.{entry.name}: no [upstreams.{entry.server}]"
    if upstream.kind != kind:
        return f"catalogue: {entry.server}.{entry.name}: upstream {entry.server} is of kind {upstream.kind}, not {kind}"
    return None


def _endpoint(entry: ToolEntry, settings: GatewaySettings) -> str:
    # Digested into the pin, so that the same words at another place are another tool.
    place = {"kind", "origin", "database", "url", "client", "approval"}
    return settings.upstreams[entry.server].model_dump_json(include=place, exclude_none=True)


def _definition(entry: ToolEntry) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "name": entry.name,
        "description": entry.description or "",
        "inputSchema": {"type": "object"} if entry.input_schema is None else entry.input_schema,
    }
    if entry.title is not None:
        definition["title"] = entry.title
    if entry.output_schema is not None:
        definition["outputSchema"] = entry.output_schema
    read = entry.effect is EffectClass.READ
    definition["annotations"] = {"readOnlyHint": read, "destructiveHint": not read, "openWorldHint": entry.open_world}
    return definition


def _credential(entry: ToolEntry, settings: GatewaySettings) -> str | None:
    upstream = settings.upstreams[entry.server]
    if isinstance(upstream, SqlUpstream):
        is_write = entry.sql is not None and entry.sql.mode == "write"
        return upstream.write_lease if is_write else upstream.read_lease
    return upstream.credential if isinstance(upstream, HttpUpstream) else None


def _tool(entry: ToolEntry, definition: Mapping[str, Any], endpoint: str, credential: str | None) -> Tool:
    kind = entry.kind
    bound = entry.bindings[kind].model_dump() if entry.bindings else {}
    return Tool(
        server=entry.server,
        name=entry.name,
        connector=kind,
        definition=dict(definition),
        digest=definition_digest(entry.server, kind, endpoint, {"tool": definition, "binding": bound}),
        effect=entry.effect,
        reversible=entry.reversible,
        open_world=entry.open_world,
        labels=entry.labels,
        measures=tuple(Measure(**measure.model_dump()) for measure in entry.measures),
        limits=ToolLimits(**entry.limits.model_dump()),
        vendor=Vendor(**entry.vendor.model_dump()),
        credential=credential,
        big_integers=entry.big_integers,
        binding=bound,
    )
