"""Tools on the MCP wire: their names, their definitions, and their results in the client's era.

On the aggregate a tool is ``server__tool``; at its server's own endpoint it has its upstream name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.core.mcpwire import eras, headers
from gateway.core.mcpwire.eras import Era
from gateway.core.ports import Catalog
from gateway.core.tool import Kind, Tool, kind_of
from gateway.edge.mcp import waiting

REPLAYED_META = "ostiary/replayed"
_MAX_NAME = 256


class _ResultHead(msgspec.Struct, rename="camel"):
    result_type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    structured_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_HEAD = msgspec.json.Decoder(_ResultHead)
_PLAIN = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COMPLETE = b'"complete"'


Headers = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class _Index:
    source: Sequence[Tool]
    generation: object
    by_wire: Mapping[tuple[Kind, str | None, str], str]
    tools: Mapping[str, Tool]
    annotated: Mapping[str, Headers]
    templates: Mapping[str, Sequence[Tool]]


class Names:
    """Wire names to tools, for one generation of the catalogue at a time."""

    def __init__(self, catalog: Catalog) -> None:
        """The catalogue keeps returning the same sequence until it has a new generation."""
        self._catalog = catalog
        self._index = _Index((), object(), {}, {}, {}, {})

    def inside(self, name: str, server: str | None, kind: Kind = Kind.TOOL) -> str:
        """``server.tool`` for a name on the wire, also where there is no such tool: that is the pipeline's to say.

        A name this endpoint does not have never reaches a tool, whatever separators stand in it: where it would read as
        the name of one, it becomes a name that none has (that of a server is never empty).
        """
        index = self._current()
        found = index.by_wire.get((kind, server, name))
        if found is not None:
            return found
        at, separator, own = (server, ".", name) if server is not None else name.partition("__")
        # What would read as another kind's name is none of this kind.
        said = f"{at}.{kind.prefix}{own}" if separator else name
        return f".{said}" if said in index.tools or kind_of(said.partition(".")[2]) is not kind else said

    def generation(self) -> object:
        """Another object for each generation of the catalogue: what is said of names holds as long as it does."""
        index = self._index
        return (index if self._catalog.tools() is index.source else self._current()).generation

    def found(self, name: str, server: str, kind: Kind) -> str | None:
        """``server.tool`` for a name that this server's own endpoint has, or None."""
        return self._current().by_wire.get((kind, server, name))

    def tool(self, fqn: str) -> Tool | None:
        """What has this name inside; whoever may see it."""
        return self._current().tools.get(fqn)

    def templates(self, server: str) -> Sequence[Tool]:
        """The server's templates of resources; whoever may see them."""
        return self._current().templates.get(server, ())

    def annotated(self, fqn: str) -> Headers | None:
        """The headers that a tool wants arguments repeated in; whoever may see it."""
        return self._current().annotated.get(fqn)

    def _current(self) -> _Index:
        tools = self._catalog.tools()
        if tools is not self._index.source:
            wanted = ((tool, headers.annotated(tool.definition.get("inputSchema"))) for tool in tools)
            self._index = _Index(
                tools,
                object(),
                {(tool.kind, None, tool.wire_name): tool.fqn for tool in tools}
                | {(tool.kind, tool.server, tool.own_name): tool.fqn for tool in tools},
                {tool.fqn: tool for tool in tools},
                {tool.fqn: names for tool, names in wanted if names},
                _templates(tools),
            )
        return self._index


def _templates(tools: Sequence[Tool]) -> Mapping[str, Sequence[Tool]]:
    by_server: dict[str, list[Tool]] = {}
    for tool in tools:
        if tool.is_template and tool.kind is Kind.RESOURCE:
            by_server.setdefault(tool.server, []).append(tool)
    return by_server


def is_name(name: object) -> bool:
    """Whether ``name`` can name a tool at all."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()


def served(tool: Tool, server: str | None, era: Era) -> dict[str, Any]:
    """The approved definition as this client gets it: under the endpoint's name, in its era's terms."""
    definition = {**tool.definition, "name": tool.wire_name if server is None else tool.name}
    schema = definition.get("outputSchema")
    # Before 2026 an output schema describes an object; clients refuse the whole list over another one.
    if era is Era.HANDSHAKE and isinstance(schema, Mapping) and schema.get("type") != "object":
        del definition["outputSchema"]
    return definition


def result_for(body: bytes, era: Era) -> bytes:
    """A tool result as this client gets it: the upstream's own bytes wherever its era allows them."""
    head = _HEAD.decode(body)
    if era is Era.HANDSHAKE:
        structure = head.structured_content
        is_fit = structure is msgspec.UNSET or bytes(structure).lstrip().startswith(b"{")
        return body if is_fit else _without_structure(body)
    if head.result_type is msgspec.UNSET:
        rest = body.lstrip()[1:].lstrip()
        return b'{"resultType":"complete"%b%b' % (b"" if rest.startswith(b"}") else b",", rest)
    if bytes(head.result_type) == _COMPLETE:
        return body
    # What the log holds is a finished result; a client must not take it for a question.
    return msgspec.json.encode({**_PLAIN.decode(body), "resultType": "complete"})


def told_again(result: bytes) -> bytes:
    """A tool result with the mark that it is the recorded outcome of an earlier execution."""
    members: dict[str, Any] = dict(_PLAIN.decode(result))
    meta = msgspec.json.decode(members["_meta"]) if "_meta" in members else {}
    members["_meta"] = {**(meta if isinstance(meta, dict) else {}), REPLAYED_META: True}
    return msgspec.json.encode(members)


def header_fault(names: Headers, arguments: Mapping[str, Any], fields: Mapping[str, str | None]) -> str | None:
    """Which ``Mcp-Param-*`` header says something else than the body, or None.

    Args:
        names: the headers the tool wants, by argument path.
        arguments: of the body.
        fields: the request's ``mcp-param-*`` headers, lower case; None for one that came twice.
    """
    expected = headers.param_values(names, arguments)
    for name in names.values():
        said = fields.get(name)
        if (name in fields) != (name in expected) or (name in fields and not _says(said, expected[name])):
            return name
    return None


def _says(field: str | None, value: headers.Scalar) -> bool:
    return field is not None and headers.says(field, value)


def _without_structure(body: bytes) -> bytes:
    # 2025 clients refuse structured content that is no object; the text content says the same.
    members = _PLAIN.decode(body)
    members.pop("structuredContent", None)
    return msgspec.json.encode(members)


def listed(tools: Sequence[Tool], server: str | None, era: Era) -> dict[str, Any]:
    """The result of ``tools/list``: one page, in catalogue order; on the aggregate the gateway's own tool last."""
    own = [waiting.served()] if server is None else []
    page: dict[str, Any] = {"tools": [*(served(tool, server, era) for tool in tools), *own]}
    if era is Era.STATELESS:
        page |= stateless_head(0)
    return page


def stateless_head(ttl_ms: int) -> dict[str, Any]:
    """Members every listing of the stateless era needs. Private: what a caller may see is theirs alone."""
    return {"resultType": eras.RESULT_COMPLETE, "ttlMs": ttl_ms, "cacheScope": "private"}
