"""Resources on the MCP wire: lists, templates, and the address of a read, which is decided on as it was written.

At its server's own endpoint a resource has its own address. On the aggregate it is ``ostiary:SERVER:ADDRESS``: two
servers may list one address, and a client must not take any of them for something to fetch by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.core import canonical, resources
from gateway.core.canonical import Arguments, Json
from gateway.core.mcpwire import jsonrpc
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import URI_SCHEME, Kind, Tool
from gateway.edge.faults import InvalidParams
from gateway.edge.mcp import tools
from gateway.edge.mcp.tools import Names

_PARTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def listed(offered: Sequence[Tool], server: str | None, era: Era) -> dict[str, Any]:
    """The result of ``resources/list``: one page, in catalogue order; what only a template makes is not in it."""
    own = [served(tool, server) for tool in offered if not tool.is_template]
    return _page({"resources": own}, era)


def listed_templates(offered: Sequence[Tool], server: str | None, era: Era) -> dict[str, Any]:
    """The result of ``resources/templates/list``: one page, in catalogue order."""
    own = [served(tool, server) for tool in offered if tool.is_template]
    return _page({"resourceTemplates": own}, era)


def served(resource: Tool, server: str | None) -> dict[str, Any]:
    """The approved description as clients get it, under the endpoint's address."""
    address = resource.wire_name if server is None else resource.own_name
    if resource.is_template:
        return {**resource.definition["resourceTemplate"], "uriTemplate": address}
    return {**resource.definition["resource"], "uri": address}


def asked(params: Json, server: str | None, names: Names) -> tuple[str, Arguments]:
    """What is read: the name inside, and the address at its server as the one argument.

    Raises:
        InvalidParams: ``params.uri`` can be no address.
    """
    uri = params.value.get("uri")
    if not isinstance(uri, str) or not 0 < len(uri) <= resources.MAX_URI or not uri.isprintable():
        raise InvalidParams("params.uri must be the address of a resource", cause_code="uri")
    at, own = (server, uri) if server is not None else of_wire(uri)
    members = {"uri": own}
    return inside(names, at, own), canonical.arguments(Json(members, members))


def inside(names: Names, server: str, uri: str) -> str:
    """The name inside of what is at an address: a resource of its own, or the template that makes it.

    Also where there is neither: that is the pipeline's to say.
    """
    found = names.found(uri, server, Kind.RESOURCE)
    if found is not None:
        return found
    template = resources.template_of(uri, names.templates(server))
    return names.inside(uri, server, Kind.RESOURCE) if template is None else template.fqn


def of_wire(uri: str) -> tuple[str, str]:
    """Server and address of an address on the aggregate; no server (``""``) has one that is written otherwise."""
    scheme, _, rest = uri.partition(":")
    server, colon, own = rest.partition(":")
    # A name with a dot is no server's, and would read as one of something else behind the dot.
    return (server, own) if scheme == URI_SCHEME and colon and "." not in server else ("", uri)


def result_for(body: bytes, server: str, era: Era, *, aggregate: bool) -> bytes:
    """A read's result as this client gets it: the upstream's own bytes as far as the era and the endpoint allow.

    What was decided for one caller is nobody else's: no shared cache may keep it, whatever the upstream says.
    """
    members = jsonrpc.members(body)
    if era is Era.STATELESS:
        head = {"resultType": "complete", "ttlMs": _ttl(members.get("ttlMs")), "cacheScope": "private"}
        members = {**members, **{key: msgspec.Raw(jsonrpc.encode(value)) for key, value in head.items()}}
    if aggregate:
        members["contents"] = msgspec.Raw(jsonrpc.encode(_on_wire(bytes(members["contents"]), server)))
    return jsonrpc.encode(members)


def _ttl(said: msgspec.Raw | None) -> int:
    try:
        ttl = 0 if said is None else msgspec.json.decode(said, type=int)
    except msgspec.MsgspecError:
        return 0
    return max(0, ttl)


def _on_wire(contents: bytes, server: str) -> list[Mapping[str, Any]]:
    # The address of a part is one of its server's, as any other on this endpoint.
    return [
        {**part, "uri": f"{URI_SCHEME}:{server}:{msgspec.json.decode(part['uri'], type=str)}"}
        for part in _PARTS.decode(contents)
    ]


def _page(page: dict[str, Any], era: Era) -> dict[str, Any]:
    return page | tools.stateless_head(0) if era is Era.STATELESS else page
