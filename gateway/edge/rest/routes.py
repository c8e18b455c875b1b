"""REST: a table of operations, and the shell each of them runs in.

The shell does what is the same for all: throttle and credential, scopes, query and body against their closed models,
errors as problem+json. An operation gets a request that is already understood.
"""

import re
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from anyio import CancelScope
from pydantic import BaseModel
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from gateway.core import canonical, pipeline
from gateway.core.call import Channel
from gateway.core.canonical import Json
from gateway.core.errors import Forbidden, GatewayError, MalformedRequest, NotFound
from gateway.core.ports import Ports
from gateway.edge import problems
from gateway.edge.auth import Gate, Visit, check_no_key, named_run
from gateway.edge.body import Workbench, check_media, read_body
from gateway.edge.calling import broken_off
from gateway.edge.faults import MethodNotAllowed
from gateway.edge.heads import head_of
from gateway.edge.models import Model, QueryModel, modelled
from gateway.edge.reply import Reply

_MAX_QUERY = 4096
_NO_BODY = Json(None, None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is understood.

    Attributes:
        visit: who asks.
        path: path parameters.
        query: the operation's query model, or None.
        body: the operation's body model, or None.
        document: the body as it was parsed; JSON null where there is none.
        run: run named by header.
        receive: the rest of the request: only whether the client is still there.
    """

    visit: Visit
    path: Mapping[str, str]
    query: Any
    body: Any
    document: Json
    run: str | None
    receive: Receive


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API; what ``openapi.py`` describes is what is served.

    Attributes:
        method: HTTP method.
        path: template; ``{name}`` is one segment, ``{name:path}`` may hold slashes.
        name: operation id.
        summary: one sentence.
        handle: makes the answer.
        scopes: any one of these is needed; empty = any good credential.
        needs: each of these is needed besides.
        calls: whether it carries out a tool.
        lists: whether policy is asked about every tool.
        persons: whether an agent's or a run's credential is refused.
        query: closed model of the query string; None = no parameter.
        body: closed model of the body; None = no body.
        answer: model of a good answer, or the media type of one that is no JSON.
        status: HTTP status of a good answer.
        refusals: the errors worth knowing of besides 400, 401, 403 and 429.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Callable[[Asked], Awaitable[Reply]]
    answer: type[BaseModel] | str
    scopes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    calls: bool = False
    lists: bool = False
    persons: bool = False
    query: type[QueryModel] | None = None
    body: type[Model] | None = None
    status: int = 200
    refusals: tuple[type[GatewayError], ...] = ()


@dataclass(frozen=True, slots=True)
class _Path:
    pattern: re.Pattern[str]
    operations: Mapping[str, Operation]


class RestApi:
    """Serves a table of operations."""

    def __init__(self, operations: Sequence[Operation], ports: Ports, gate: Gate, bench: Workbench) -> None:
        """Paths are matched in table order."""
        self._ports = ports
        self._gate = gate
        self._bench = bench
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        self._paths = [_Path(compile_path(path)[0], methods) for path, methods in by_path.items()]

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        try:
            operation, path = self._match(scope)
            visit = await self._gate.admit(scope, Channel.REST)
        except GatewayError as error:
            await problems.problem(error, None).send(send)
            return
        try:
            answer = await self._answer(operation, path, visit, (scope, receive))
        except GatewayError as error:
            self._gate.refused(visit, error)
            answer = problems.problem(error, visit.call.id)
        except CancelledError:  # the server stops and waits no longer; its client is still owed the truth
            last_word = broken_off(may_have_acted=operation.method != "GET")
            with CancelScope(shield=True):
                await problems.problem(last_word, visit.call.id).send(send)
            raise
        await answer.send(send)

    def _match(self, scope: Scope) -> tuple[Operation, Mapping[str, str]]:
        for path in self._paths:
            match = path.pattern.fullmatch(scope["path"])
            if match is None:
                continue
            operation = path.operations.get(scope["method"])
            if operation is None:
                raise MethodNotAllowed(tuple(sorted(path.operations)))
            return operation, match.groupdict()
        raise NotFound("no such path", cause_code="path")

    async def _answer(
        self, operation: Operation, path: Mapping[str, str], visit: Visit, http: tuple[Scope, Receive]
    ) -> Reply:
        try:
            asked = await self._understand(operation, path, visit, http)
        except GatewayError as error:
            # The local operator has no credential the pipeline could check again; their mistakes are answered only.
            if visit.operator:
                raise
            await pipeline.refuse(visit.call, error, self._ports)
        if operation.lists:
            self._gate.listing(visit)
        return await operation.handle(asked)

    async def _understand(
        self, operation: Operation, path: Mapping[str, str], visit: Visit, http: tuple[Scope, Receive]
    ) -> Asked:
        scope, receive = http
        if operation.scopes:
            visit.require(*operation.scopes)
        if operation.persons and (visit.principal.agent is not None or visit.principal.run is not None):
            raise Forbidden("this needs a person's own credential, not an agent's", cause_code="person")
        for needed in operation.needs:
            visit.require(needed)
        if operation.persons and operation.method != "GET" and not visit.operator:
            # An account that was taken over would make itself another one.
            await self._ports.kills.check_person(visit.principal)
        if operation.calls:
            check_no_key(head_of(scope))
        query = _query(operation, scope)
        document, body = _NO_BODY, None
        if operation.body is not None:
            check_media(scope)
            document = await self._bench.work(await read_body(scope, receive), canonical.parse)
            body = modelled(operation.body, document.value)
        return Asked(visit, path, query, body, document, named_run(head_of(scope)), receive)


def shown(model: BaseModel, status: int = 200) -> Reply:
    """``model`` as a JSON answer; members that are None are left out."""
    return Reply(status, model.model_dump_json(exclude_none=True).encode())


def _query(operation: Operation, scope: Scope) -> Any:
    raw = scope.get("query_string", b"")
    if len(raw) > _MAX_QUERY:
        raise MalformedRequest("the query string is too long", cause_code="query")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict")
    except ValueError:
        raise MalformedRequest("the query string is malformed", cause_code="query") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise MalformedRequest("a query parameter is given twice", cause_code="query")
    if operation.query is None:
        if given:
            raise MalformedRequest("this operation takes no query parameters", cause_code="query")
        return None
    return modelled(operation.query, given)
