"""Who is asking: the bearer token of a request, and the local operator on the Unix socket.

Tool calls authenticate again inside the pipeline; what is done here keeps strangers from being read and parsed.
"""

import re

from msgspec import Struct, structs
from starlette.types import Scope

from gateway.core.call import Call, Channel, Live, Principal
from gateway.core.canonical import Arguments, arguments, parse
from gateway.core.errors import GatewayError, MalformedRequest, Throttled, Unauthenticated
from gateway.core.ports import Ports
from gateway.edge.faults import InsufficientScope
from gateway.edge.heads import Head, head_of, headers
from gateway.edge.hosts import came_by
from gateway.edge.throttle import STRANGER, EdgeThrottle

SCOPES = frozenset({"tools", "runs", "review", "audit", "admin"})
_MAX_TOKEN = 8192
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")  # RFC 6750
_MAX_RUN = 128
_RUN_HEADER = b"ostiary-run"
IDEMPOTENCY_KEY = b"idempotency-key"
NO_ARGUMENTS = arguments(parse(b"{}"))
_OPERATOR_US = 60_000_000
# In the ASGI scope, what tells the connection that its client has shown a good credential (``serving/connections.py``).
PROVEN = "ostiary.proven"
# Refusals are recorded, and a record costs more than a refusal: what one credential can write is bounded by this.
_REFUSED = 10.0
_OWN_FAULT = range(400, 500)
_TOOLS_PER_TOKEN = 50.0


class Visit(Struct, frozen=True):
    """One authenticated request.

    Attributes:
        call: id, time, credential and channel of the request; it names no tool (yet).
        principal: who is asking.
        operator: whether this is the local operator, who has no token and therefore cannot call tools.
        key: the credential's place in the throttle; empty for the operator, whom nothing is charged.
    """

    call: Call
    principal: Principal
    operator: bool = False
    key: bytes = b""

    def named(self, tool: str, given: Arguments, run: str | None) -> Call:
        """The request as a call of ``tool`` in the named run."""
        return structs.replace(self.call, tool=tool, arguments=given, run=run)

    def require(self, *scopes: str) -> None:
        """Refuse unless the credential has one of ``scopes``.

        Raises:
            InsufficientScope: it has none of them.
        """
        if self.principal.scopes.isdisjoint(scopes):
            raise InsufficientScope(scopes)


class Gate:
    """Lets in who has a good credential. Closed: everything else is ``Unauthenticated`` and counted, never logged."""

    def __init__(self, ports: Ports, throttle: EdgeThrottle, issuer: str, operator_socket: str | None = None) -> None:
        """Requests by the Unix socket at ``operator_socket`` without a credential are the operator's own.

        That socket's file mode (0600) is what authenticates them; by any other socket nobody is. ``issuer`` vouches
        for the operator in the log.
        """
        self._ports = ports
        self._throttle = throttle
        self._issuer = issuer
        self._operator_socket = operator_socket

    async def admit(self, scope: Scope, channel: Channel) -> Visit:
        """Authenticate one request.

        Raises:
            Unauthenticated: no good credential.
            Throttled: too many requests of this credential, or of this address without a good one.
        """
        clock = self._ports.clock
        if channel is Channel.REST and self._is_operator(scope):
            call = Call(clock.uuid(), clock.now_us(), Live(""), channel, "", NO_ARGUMENTS)
            return Visit(call, self._operator(call), operator=True)
        client = scope.get("client")
        try:
            live = bearer(scope)
        except Unauthenticated as error:
            self._ports.meter.unauthenticated(error.cause_code)
            self._throttle.admit(b"", client and client[0])
            raise
        try:
            is_known = self._throttle.admit(live.digest, client and client[0])
        except Throttled as error:
            if error.cause_code == STRANGER:  # a flood shows in the metrics even where nobody looks at its tokens
                self._ports.meter.unauthenticated("throttled")
            raise
        call = Call(clock.uuid(), clock.now_us(), live, channel, "", NO_ARGUMENTS)
        try:
            principal = await self._ports.identity.authenticate(call)
        except Unauthenticated as error:
            self._ports.meter.unauthenticated(error.cause_code)
            raise
        if not is_known:
            self._throttle.prove(live.digest)
        proven = scope.get(PROVEN)
        if proven is not None:
            proven()
        return Visit(call, principal, key=live.digest)

    async def is_trusted(self, scope: Scope) -> bool:
        """Whether the request brings a credential of an auditor or administrator, or is the operator's.

        Raises:
            Unauthenticated: it brings a credential that is not good.
            Throttled: as ``admit`` does.
        """
        if not self._is_operator(scope) and not headers(scope, b"authorization"):
            return False
        visit = await self.admit(scope, Channel.REST)
        return not visit.principal.scopes.isdisjoint({"audit", "admin"})

    def refused(self, visit: Visit, error: GatewayError) -> None:
        """Charge for a refusal that is the caller's own doing."""
        if error.status in _OWN_FAULT:
            self._throttle.charge(visit.key, _REFUSED - 1.0)

    def listing(self, visit: Visit) -> None:
        """Charge for a listing: policy is asked about every tool."""
        self._throttle.charge(visit.key, len(self._ports.catalog.tools()) / _TOOLS_PER_TOKEN)

    def calls(self, visit: Visit, count: int) -> None:
        """Charge for a request that makes so many calls."""
        self._throttle.charge(visit.key, float(count))

    def _is_operator(self, scope: Scope) -> bool:
        return came_by(scope, self._operator_socket) and not headers(scope, b"authorization")

    def _operator(self, call: Call) -> Principal:
        return Principal(
            issuer=self._issuer,
            user="operator",
            agent=None,
            groups=frozenset(),
            scopes=SCOPES,
            auth_method="unix_socket",
            jti=call.id,
            expires_us=call.at_us + _OPERATOR_US,
        )


def bearer(scope: Scope) -> Live:
    """The request's bearer token.

    Raises:
        Unauthenticated: none (``missing``), several headers, another scheme or not a token (``malformed``).
    """
    head = head_of(scope)
    if head.live is not None:
        return head.live
    found = head.fields.get(b"authorization", ())
    if not found:
        raise Unauthenticated("a bearer token is required", cause_code="missing")
    match = _BEARER.fullmatch(found[0]) if len(found) == 1 else None
    # Two headers: whoever reads the other one sees another caller.
    if match is None or len(match[1]) > _MAX_TOKEN:
        raise Unauthenticated("the Authorization header must be one bearer token", cause_code="malformed")
    head.live = Live(match[1].decode())
    return head.live


def named_run(head: Head) -> str | None:
    """The run the ``Ostiary-Run`` header names, if any.

    Raises:
        MalformedRequest: more than one, or no name.
    """
    found = head.fields.get(_RUN_HEADER)
    if found is None:
        return None
    if len(found) > 1:
        raise MalformedRequest("a request names at most one run", cause_code="run")
    return run_name(found[0].decode("latin-1"))


def check_no_key(head: Head) -> None:
    """Refuse an ``Idempotency-Key``: whoever sends one would retry in the belief that it is kept.

    Raises:
        MalformedRequest: the request has one.
    """
    if IDEMPOTENCY_KEY in head.fields:
        raise MalformedRequest(
            "Idempotency-Key is not kept by this gateway yet; nothing was executed", cause_code="idempotency_key"
        )


def run_name(name: object) -> str:
    """``name`` as far as it can name a run.

    Raises:
        MalformedRequest: it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_RUN or not name.isascii() or not name.isprintable():
        raise MalformedRequest("that cannot name a run", cause_code="run")
    return name
