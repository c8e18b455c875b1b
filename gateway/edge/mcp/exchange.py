"""One POST on its way, and how it is told that it is refused."""

from msgspec import Struct
from starlette.types import Receive, Scope

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.mcpwire import jsonrpc
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Id, Request
from gateway.edge import problems
from gateway.edge.auth import Visit
from gateway.edge.faults import OF_HTTP, MissingCapability
from gateway.edge.heads import Head, Said
from gateway.edge.mcp import methods, tools
from gateway.edge.mcp.calls import Made
from gateway.edge.mcp.session import Session
from gateway.edge.mcp.stream import Stream
from gateway.edge.reply import Reply

# How a call fails whose upstream needs capabilities that the client did not declare: their names follow.
_UNDECLARED = "undeclared"


class Exchange(Struct):
    """One POST on its way: what is known of it so far also decides how an error is put.

    ``call`` is the request as it is recorded, and for ``tools/call`` the call itself. ``request`` stays None for
    messages that are owed no answer. ``acting`` is set once the pipeline has the call: from then on, whatever breaks it
    off may have come after an effect. ``made`` is set for calls: ``call`` with what flows while it is carried out.
    """

    scope: Scope
    head: Head
    receive: Receive
    stream: Stream
    server: str | None
    visit: Visit
    era: Era
    call: Call
    id: Id | None = None
    request: Request | None = None
    said: Said | None = None
    session: Session | None = None
    made: Made | None = None
    acting: bool = False


def refusal(exchange: Exchange, error: GatewayError) -> Reply:
    """The answer to one that is refused, in its era's terms."""
    request, call_id = exchange.request, exchange.call.id
    cause, *lacking = error.cause_code.split("_")
    if exchange.era is Era.STATELESS and cause == _UNDECLARED and lacking:
        error = MissingCapability(lacking, error.cause_code)
    if request is not None and request.method == methods.CALL and isinstance(error, problems.ACTIONABLE):
        result = tools.result_for(problems.tool_error(error, call_id), exchange.era)
        body = jsonrpc.encode_response(request.id, result)
        return Reply(200, body, headers=problems.headers_of(error, call_id))
    era = None if exchange.id is None or isinstance(error, OF_HTTP) else exchange.era
    return problems.rpc_failure(error, exchange.id, era, call_id)
