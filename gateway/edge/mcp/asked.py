"""What a request of the pipeline's asks for, by kind, and how the answer of each kind goes back."""

from collections.abc import Mapping
from typing import Any

from gateway.core import canonical
from gateway.core.call import Call
from gateway.core.canonical import Arguments, Json
from gateway.core.errors import InvalidArguments
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import Kind, kind_of
from gateway.edge.auth import named_run, run_name
from gateway.edge.faults import HeaderMismatch, InvalidParams
from gateway.edge.heads import Head
from gateway.edge.mcp import resources, tools
from gateway.edge.mcp.tools import Names

RUN_META = "ostiary/run"


def named(kind: Kind, params: Json, server: str | None, names: Names) -> tuple[str, Arguments]:
    """The name inside of a tool or prompt, and its arguments.

    Raises:
        InvalidParams: ``params`` has no name, or arguments that are no object.
    """
    name = params.value.get("name")
    if not tools.is_name(name):
        raise InvalidParams(f"params.name must be the name of a {kind}", cause_code="name")
    arguments = arguments_of(params)
    return names.inside(name, server, kind), arguments


def arguments_of(params: Json) -> Arguments:
    """The arguments of a tool or prompt.

    Raises:
        InvalidParams: they are no object.
    """
    try:
        return canonical.arguments(params.member("arguments"))
    except InvalidArguments as error:
        raise InvalidParams(error.detail, cause_code="arguments") from None


def result_for(call: Call, body: bytes, server: str | None, era: Era) -> bytes:
    """The result of ``call`` as the client at this endpoint gets it."""
    at, _, name = call.tool.partition(".")
    if kind_of(name) is Kind.RESOURCE:
        return resources.result_for(body, at, era, aggregate=server is None)
    return tools.result_for(body, era)


def run_of(head: Head, meta: Mapping[str, Any]) -> str | None:
    """The run that a request names, by header or in its ``_meta``.

    Raises:
        HeaderMismatch: it names two.
    """
    by_header = named_run(head)
    named = meta.get(RUN_META)
    by_body = None if named is None else run_name(named)
    if by_header is not None and by_body is not None and by_header != by_body:
        raise HeaderMismatch(f"the header and _meta[{RUN_META!r}] name two runs", cause_code="run")
    return by_header or by_body
