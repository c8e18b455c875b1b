"""Completion on the MCP wire: what a user types goes to the server, so it is decided on like any other call."""

from gateway.core import canonical
from gateway.core.canonical import Arguments, Json
from gateway.core.tool import Kind
from gateway.edge.faults import InvalidParams
from gateway.edge.mcp import resources, tools
from gateway.edge.mcp.tools import Names

_PROMPT, _RESOURCE = "ref/prompt", "ref/resource"


def asked(params: Json, server: str | None, names: Names) -> tuple[str, Arguments]:
    """What completes the prompt or template that is referred to, and what was typed, with what is known besides.

    Raises:
        InvalidParams: ``params.ref`` can refer to nothing.
    """
    completed = _completed(params.member("ref"), server, names)
    at, _, own = completed.partition(".")
    given = {name: params.member(name) for name in ("argument", "context") if name in params.value}
    said = Json({name: part.value for name, part in given.items()}, {name: part.exact for name, part in given.items()})
    return f"{at}.{Kind.COMPLETION.prefix}{own}", canonical.arguments(said)


def _completed(reference: Json, server: str | None, names: Names) -> str:
    kind, name, uri = (reference.member(key).value for key in ("type", "name", "uri"))
    if kind == _PROMPT and tools.is_name(name):
        return names.inside(name, server, Kind.PROMPT)
    if kind == _RESOURCE and tools.is_name(uri):
        at, own = (server, uri) if server is not None else resources.of_wire(uri)
        return names.inside(own, at, Kind.RESOURCE)
    raise InvalidParams("params.ref must refer to a prompt or to a template of resources", cause_code="ref")
