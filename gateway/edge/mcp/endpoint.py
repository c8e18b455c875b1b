"""The MCP endpoints, in both eras: ``/mcp`` (all servers) and ``/servers/{name}/mcp`` (one server).

One POST: throttle and credential, media types, body, envelope, era, session, parameters (``_understand``), then the
method (``_act``). From the credential on, whatever is refused leaves one record: ``pipeline.refuse`` writes it up to
the point where ``pipeline.handle`` does. Policy is decided from the body, never from headers.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from anyio import CancelScope
from msgspec import structs
from starlette.types import Receive, Scope, Send

from gateway.core import pipeline
from gateway.core.call import Answer, Call, Channel
from gateway.core.canonical import Arguments
from gateway.core.errors import GatewayError, MalformedRequest
from gateway.core.mcpwire import asking, eras, jsonrpc, notices
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.following import LISTEN
from gateway.core.mcpwire.jsonrpc import Message, Notification, Request
from gateway.core.ports import Ports
from gateway.core.tool import Kind, Tool
from gateway.edge import problems, reported
from gateway.edge.auth import NO_ARGUMENTS, Gate, check_no_key, named_run
from gateway.edge.body import Workbench, at_hand, check_types, read_body
from gateway.edge.calling import broken_off
from gateway.edge.disconnect import unless_gone
from gateway.edge.ears import STOPPING
from gateway.edge.faults import (
    UNRECORDED,
    HeaderMismatch,
    InvalidParams,
    MethodNotAllowed,
    MethodNotFound,
    ServerNotFound,
)
from gateway.edge.heads import Aim, Said, head_of
from gateway.edge.mcp import flow, following, methods, prompts, push, rounds, tools, waiting
from gateway.edge.mcp.asked import arguments_of, result_for, run_of
from gateway.edge.mcp.calls import Calls, Made, Outcome, Party
from gateway.edge.mcp.eras import client_hints, client_of, era_hint, era_of, meta_of, param_fields, recovered_id
from gateway.edge.mcp.exchange import Exchange, refusal
from gateway.edge.mcp.following import Followers, Follows
from gateway.edge.mcp.push import Listener, Pushing, Wanted
from gateway.edge.mcp.session import Session, Sessions
from gateway.edge.mcp.stream import Stream
from gateway.edge.mcp.tools import Names
from gateway.edge.reply import Reply

_SESSION = eras.SESSION_HEADER.encode()
_LAST_EVENT = b"last-event-id"
_ENVELOPE = frozenset({"envelope", "batch", "parts"})


class McpEndpoint:
    """MCP over streamable HTTP. What is pushed between requests is that a list or a resource has changed."""

    def __init__(self, ports: Ports, gate: Gate, bench: Workbench, version: str, calls: Calls) -> None:
        """``version`` is the gateway's own, for ``serverInfo``."""
        self._ports = ports
        self._gate = gate
        self._bench = bench
        self._sessions = Sessions(ports.clock)
        self._calls = calls
        self._names = Names(ports.catalog)
        self._pushing = Pushing(ports)
        self._followers = Followers(ports, self._names)
        self._info = {"name": "ostiary", "title": "Ostiary", "version": version}
        self._answering = {"POST": self._post, "DELETE": self._delete, "GET": self._session_stream}

    async def serve(self, scope: Scope, receive: Receive, send: Send, server: str | None) -> None:
        """Answer one HTTP request at the aggregate (``server`` None) or at one server's endpoint."""
        try:
            answering = self._answering.get(scope["method"])
            if answering is None:
                raise MethodNotAllowed(tuple(self._answering))
            head, visit = head_of(scope), await self._gate.admit(scope, Channel.MCP)
            stream = Stream(head, send, ((problems.CALL_HEADER, visit.call.id.encode()),))
            exchange = Exchange(scope, head, receive, stream, server, visit, era_hint(head), visit.call)
        except GatewayError as error:
            await problems.rpc_failure(error, None, None, None).send(send)
            return
        try:
            answer = await answering(exchange)
        except CancelledError:  # the server stops and waits no longer; its client is still owed the truth
            with CancelScope(shield=True):
                await stream.finish(refusal(exchange, broken_off(may_have_acted=exchange.acting)))
            raise
        try:
            if not stream.at_once(answer):
                await stream.finish(answer)
        finally:
            if exchange.made is not None and exchange.made.slot is not None:
                await exchange.made.slot.rest(scope.get(STOPPING))  # its upstream may be waiting still

    async def _delete(self, exchange: Exchange) -> Reply:
        try:
            session = self._session(exchange)
        except GatewayError as error:
            return problems.rpc_failure(error, None, None, exchange.call.id)
        if session is None:
            return problems.rpc_failure(MethodNotAllowed(("POST",)), None, None, exchange.call.id)
        self._sessions.end(session)
        return Reply(204)

    async def _session_stream(self, exchange: Exchange) -> Reply:
        try:
            session = self._session(exchange)
            if session is None or exchange.era is Era.STATELESS:
                raise MethodNotAllowed(("POST",))
            if _LAST_EVENT in exchange.head.fields:
                raise MalformedRequest("no stream is resumed: its events have no ids", cause_code="last_event")
            exchange.session = session
            exchange.visit.require("tools")
            exchange.call = self._named(exchange, Aim(named_run(exchange.head)))
            return await self._pushed(exchange, Wanted(), session.follows)
        except GatewayError as error:
            return problems.rpc_failure(error, None, None, exchange.call.id)

    async def _listen(self, exchange: Exchange, wanted: Wanted) -> Reply:
        await self._find_server(exchange)
        self._gate.calls(exchange.visit, len(wanted.addresses))
        follows = await self._followers.begun(exchange.call, wanted.addresses, exchange.server, exchange.receive)
        try:
            return await self._pushed(exchange, wanted, follows)
        except BaseException:
            follows.end()
            raise

    async def _pushed(self, exchange: Exchange, wanted: Wanted, follows: Follows) -> Reply:
        async def look() -> Sequence[Tool]:
            self._sessions.use(exchange.session)  # a session that has ended has no stream
            return await self._listing(exchange, wanted.kinds)

        async def sees(call: Call) -> bool:
            self._sessions.use(exchange.session)
            # Asked as who listens now: the token that it was begun with may have been replaced by another one.
            return await self._followers.sees(structs.replace(call, origin=exchange.call.origin))

        self._gate.listing(exchange.visit)
        listener = Listener(exchange.scope, exchange.receive, exchange.visit.principal, exchange.call.id, follows, sees)
        return await self._pushing.begin(listener, wanted, look)

    async def _post(self, exchange: Exchange) -> Reply:
        try:
            try:
                await self._understand(exchange)
            except UNRECORDED:
                raise
            except GatewayError as error:
                await pipeline.refuse(exchange.call, error, self._ports)
            request, made = exchange.request, exchange.made
            if request is None or made is None:
                return await self._act(exchange, request)
            if exchange.session is None or request.method not in methods.FOLLOWING:
                answer = await self._carried_out(exchange, made)
            else:
                answer = await self._follow(exchange, made, request.params.value["uri"], exchange.session.follows)
            asks = rounds.wants_input(answer.body)  # let through as such by core/asking.py
            if asks and isinstance(answer, Answer):
                answer, asks = await self._calls.told(made, answer), False
            return self._result(exchange, request, answer, asks=asks)
        except GatewayError as error:
            self._gate.refused(exchange.visit, error)
            return refusal(exchange, error)

    async def _understand(self, exchange: Exchange) -> None:
        scope, head = exchange.scope, exchange.head
        exchange.visit.require("tools")
        if not head.is_json:
            check_types(scope, head)
        body = at_hand(scope)
        if body is None:
            body = await read_body(scope, exchange.receive)
        known = head.known
        request = None if known is None else known.frame.read(body)
        if known is not None and request is not None:
            self._understand_request(exchange, request, known.said)  # none that follows a resource is learned
        else:
            await self._understand_anew(exchange, body)

    async def _understand_anew(self, exchange: Exchange, body: bytes) -> None:
        message = await self._parsed(exchange, body)
        if isinstance(message, Request):
            exchange.id = message.id
        elif not isinstance(message, Notification):
            if exchange.era is Era.STATELESS:
                raise MalformedRequest("no request of this server is open", cause_code="envelope")
            self._calls.take(message, self._session(exchange))
            return
        meta = meta_of(message)
        exchange.era = era = era_of(meta, exchange.head.fields)
        exchange.said = said = Said(era, meta, client_hints(message, meta, exchange.head, era))
        if isinstance(message, Notification):
            self._heed(exchange, message)
            return
        following = self._understand_request(exchange, message, said)
        if following is not None:
            await self._following(exchange, message, said, following)
        elif exchange.made is not None:
            exchange.head.learn(body, said)

    async def _parsed(self, exchange: Exchange, body: bytes) -> Message:
        try:
            return await self._bench.work(body, jsonrpc.parse)
        except GatewayError as error:
            if error.cause_code not in _ENVELOPE:
                exchange.id = await self._bench.work(body, recovered_id)
            raise

    def _heed(self, exchange: Exchange, note: Notification) -> None:
        session = self._session(exchange) if exchange.era is Era.HANDSHAKE else None
        if note.method in methods.CALLS:
            raise MalformedRequest(f"{note.method} needs an id: nothing was executed", cause_code="notification")
        if note.method == notices.CANCELLED:
            flow.withdraw(note, session)

    def _understand_request(self, exchange: Exchange, request: Request, said: Said) -> Call | None:
        """Make ``exchange`` ready; a call that begins or ends a subscription is returned, and is not ready yet."""
        exchange.id, exchange.request = request.id, request
        exchange.said, exchange.era = said, said.era
        if said.aim is None and request.method not in methods.METHODS[said.era]:
            raise MethodNotFound(f"no such method: {request.method[:64]}")
        if said.era is Era.HANDSHAKE and request.method != "initialize":
            exchange.session = self._session(exchange)
        if request.method in methods.CALLS:
            call = self._called(exchange, request, said)
            if request.method in methods.FOLLOWING:
                return call
            self._make(exchange, request, said, call)
            return None
        exchange.call = self._named(exchange, Aim(run_of(exchange.head, said.meta)))
        if request.method in methods.LISTS and request.params.value.get("cursor") is not None:
            raise InvalidParams("no such cursor: all are on one page", cause_code="cursor")
        return None

    def _called(self, exchange: Exchange, request: Request, said: Said) -> Call:
        aim, generation = said.aim, self._names.generation()
        if aim is not None and aim.generation is generation:
            arguments = arguments_of(request.params)
        else:
            run = run_of(exchange.head, said.meta)
            check_no_key(exchange.head)
            tool, arguments = methods.CALLS[request.method](request.params, exchange.server, self._names)
            aim = Aim(run, tool, generation, reported.of_meta(said.meta))
            if request.method == methods.CALL:  # of the others the name is among what differs
                said.aim = aim
        fault = None if said.era is Era.HANDSHAKE else partial(self._header_fault, exchange.scope, aim.tool, arguments)
        return self._named(exchange, aim, arguments, fault)

    def _make(self, exchange: Exchange, request: Request, said: Said, call: Call) -> None:
        party = Party(exchange.visit.principal, request.id, said, exchange.session, exchange.stream, exchange.receive)
        exchange.made = made = self._calls.made(request, call, party)
        exchange.call = made.call

    async def _following(self, exchange: Exchange, request: Request, said: Said, call: Call) -> None:
        if exchange.session is None:
            raise InvalidParams("a subscription belongs to a session: initialize first", cause_code="session")
        follows = exchange.session.follows
        prepared = await self._followers.prepared(call, request.params.value["uri"], follows)
        self._make(exchange, request, said, prepared)

    def _header_fault(self, scope: Scope, tool: str, arguments: Arguments) -> HeaderMismatch | None:
        names = self._names.annotated(tool)
        if names is None:
            return None
        wrong = tools.header_fault(names, arguments.value, param_fields(scope))
        if wrong is None:
            return None
        return HeaderMismatch(f"{wrong} does not equal the body's argument", cause_code="header")

    async def _act(self, exchange: Exchange, request: Request | None) -> Reply:
        if request is None:
            return Reply(202)
        if request.method in methods.LISTS:
            kind, listed = methods.LISTS[request.method]
            found = await self._visible(exchange, frozenset({kind}))
            result = listed([item for item in found if item.kind is kind], exchange.server, exchange.era)
        elif request.method in {"ping", flow.SET_LEVEL}:
            if request.method == flow.SET_LEVEL:
                flow.set_level(request, exchange.session)
            result = {}
        elif request.method == "initialize":
            return await self._initialize(exchange, request)
        elif request.method == LISTEN:
            return await self._listen(exchange, push.wanted(request.params, request.id))
        else:
            await self._find_server(exchange)
            result = methods.discovered(self._info)
        return Reply(200, jsonrpc.encode_response(request.id, jsonrpc.encode(result)))

    async def _follow(self, exchange: Exchange, made: Made, uri: str, follows: Follows) -> Answer | Outcome:
        with following.settled(exchange.call, uri, follows):
            return await self._carried_out(exchange, made)

    def _carried_out(self, exchange: Exchange, made: Made) -> Awaitable[Answer | Outcome]:
        if exchange.server is None and exchange.call.tool == waiting.FQN:
            return self._waited(exchange)
        exchange.acting = True
        return self._calls.carried_out(made)

    async def _waited(self, exchange: Exchange) -> Outcome:
        own = waiting.wait(exchange.call, exchange.visit.principal, self._ports)
        answer = await unless_gone(exchange.receive, own)
        return Outcome(prompts.readable(answer.body), answer.call_id, answer.replayed)

    def _result(self, exchange: Exchange, request: Request, answer: Answer | Outcome, *, asks: bool) -> Reply:
        # What asks is sealed.
        if asks:
            result = answer.body
        elif request.method == methods.CALL:
            result = tools.result_for(answer.body, exchange.era)
        else:
            result = result_for(exchange.call, answer.body, exchange.server, exchange.era)
        if answer.replayed:
            result = tools.told_again(result)
        headers = exchange.stream.own
        if answer.call_id != exchange.call.id:
            headers = ((problems.CALL_HEADER, answer.call_id.encode()),)
        return Reply(200, jsonrpc.encode_response(request.id, result), headers=headers)

    async def _visible(self, exchange: Exchange, kinds: frozenset[Kind] = methods.LISTABLE) -> tuple[Tool, ...]:
        self._gate.listing(exchange.visit)
        return await unless_gone(exchange.receive, self._listing(exchange, kinds))

    async def _listing(self, exchange: Exchange, kinds: frozenset[Kind]) -> tuple[Tool, ...]:
        if exchange.server is not None:
            kinds = methods.LISTABLE  # a server of which anything may be seen is there, whatever is asked for
        found = await pipeline.listing(exchange.call, self._ports, kinds)
        if exchange.server is None:
            return found
        own = tuple(tool for tool in found if tool.server == exchange.server)
        if not own:
            raise ServerNotFound("no such server")
        return own

    async def _find_server(self, exchange: Exchange) -> None:
        # The aggregate is always there; a server of which nothing may be seen does not exist.
        if exchange.server is not None:
            await self._visible(exchange)

    async def _initialize(self, exchange: Exchange, request: Request) -> Reply:
        params = request.params.value
        asked = params.get("protocolVersion")
        if not isinstance(asked, str):
            raise InvalidParams("params.protocolVersion must be a string", cause_code="version")
        await self._find_server(exchange)
        version = eras.answer_version(asked)
        client = client_of(params.get("clientInfo"), version)
        session = self._sessions.open(exchange.visit.principal.key, exchange.server, client)
        session.askable = asking.declared(params.get("capabilities"))
        result = {"protocolVersion": version, "capabilities": methods.CAPABILITIES, "serverInfo": self._info}
        body = jsonrpc.encode_response(request.id, jsonrpc.encode(result))
        return Reply(200, body, headers=((_SESSION, session.id.encode()),))

    def _session(self, exchange: Exchange) -> Session | None:
        head = exchange.head
        if head.session is None:
            named = head.fields.get(_SESSION)
            if not named:
                return None
            if len(named) > 1:  # whoever reads the other one sees another session
                raise MalformedRequest("a request names at most one session", cause_code="session")
            head.session = named[0].decode("latin-1")
        return self._sessions.find(head.session, exchange.visit.principal.key, exchange.server)

    def _named(
        self,
        exchange: Exchange,
        aim: Aim,
        arguments: Arguments = NO_ARGUMENTS,
        objection: Callable[[], GatewayError | None] | None = None,
    ) -> Call:
        call, session = exchange.visit.call, exchange.session
        said = exchange.said if session is None else session
        return Call(
            id=call.id,
            at_us=call.at_us,
            origin=call.origin,
            channel=call.channel,
            tool=aim.tool,
            arguments=arguments,
            run=aim.run,
            session=None if session is None else session.id,
            client={} if said is None else said.client,
            reported=aim.reported,
            objection=objection,
        )
