"""What is pushed to a client between its requests: that a list of its own has changed.

It goes by a stream of the session (GET) in the handshake era, by ``subscriptions/listen`` in the stateless one.

Nothing is told that the caller may not know of: after each change of the catalogue policy is asked again what they may
see, and a list that is the same for them has not changed. No event has an id, so there is nothing to resume.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from anyio import CancelScope, Event, create_task_group, move_on_after
from starlette.types import Receive, Scope, Send

from gateway.core.call import Principal
from gateway.core.canonical import Json
from gateway.core.errors import GatewayError, Throttled
from gateway.core.mcpwire import eras, jsonrpc
from gateway.core.mcpwire.jsonrpc import Id
from gateway.core.ports import Catalog, Ports
from gateway.core.tool import Kind, Tool
from gateway.edge.disconnect import unless_gone
from gateway.edge.faults import ClientGone, InvalidParams, NotAcceptable
from gateway.edge.problems import CALL_HEADER
from gateway.edge.reply import Header, Reply, headers

LISTEN: Final = "subscriptions/listen"
STOPPING: Final = "ostiary.stopping"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
# What a client of the stateless era may ask for, by the member that asks; each notice by its kind.
_FILTERS: Final = {
    "toolsListChanged": Kind.TOOL,
    "promptsListChanged": Kind.PROMPT,
    "resourcesListChanged": Kind.RESOURCE,
}
LISTED: Final = frozenset(_FILTERS.values())
_HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", eras.STREAM_TYPE.encode()),
    # A proxy must not gather events before it passes them on.
    (b"x-accel-buffering", b"no"),
)
_RANGES: Final = (b"text/event-stream", b"text/*", b"*/*")
# A line that says nothing, so that what lies between keeps the connection, and one that is dead is found out.
_SILENCE_S: Final = 25.0
_NOTHING: Final = b":\n\n"
_MOST_EACH: Final = 100
_RETRY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client is to hear.

    Attributes:
        kinds: the lists it wants to know about.
        subscription: id of its ``subscriptions/listen``; None in the handshake era.
    """

    kinds: frozenset[Kind] = LISTED
    subscription: Id | None = None


def wanted(params: Json, subscription: Id) -> Wanted:
    """What ``subscriptions/listen`` asks for, as far as it is carried; the rest is not acknowledged.

    Raises:
        InvalidParams: ``params.notifications`` is no filter.
    """
    asked = params.value.get("notifications")
    if not isinstance(asked, dict):
        raise InvalidParams("params.notifications must be an object", cause_code="notifications")
    return Wanted(frozenset(kind for name, kind in _FILTERS.items() if asked.get(name) is True), subscription)


def _check_accept(scope: Scope) -> None:
    """Refuse a client that takes no event stream.

    Raises:
        NotAcceptable: it is not among what it takes.
    """
    if not any(part in field.lower() for field in headers(scope, b"accept") for part in _RANGES):
        raise NotAcceptable("this answer is an event stream")


class Places:
    """Which principals have how many streams open: each costs a place among the connections, and memory."""

    def __init__(self, most_each: int = _MOST_EACH) -> None:
        """``most_each`` streams for one principal."""
        self._most_each = most_each
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Hold a place of ``owner`` (``Principal.key``).

        Raises:
            Throttled: they have no more.
        """
        self.check(owner)
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    def check(self, owner: str) -> None:
        """Return where ``owner`` has a place left.

        Raises:
            Throttled: they have none.
        """
        if self._open[owner] >= self._most_each:
            raise Throttled("too many streams are open", retry_after=_RETRY_S, cause_code="streams")


Lists = Mapping[Kind, Sequence[tuple[str, str]]]
Look = Callable[[], Awaitable[Sequence[Tool]]]


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens: the request, whose it is, and the call id it has."""

    scope: Scope = field(repr=False)
    receive: Receive
    principal: Principal
    call_id: str


class Pushing:
    """The streams of one gateway."""

    def __init__(self, ports: Ports) -> None:
        """None is open yet."""
        self._catalog = ports.catalog
        self._clock = ports.clock
        self._places = Places()

    async def begin(self, listener: Listener, wanted: Wanted, look: Look) -> "Push":
        """A stream for ``listener``.

        Args:
            listener: who.
            wanted: what they want to hear.
            look: what they may know of at their endpoint; raises where the stream has lost its reason.

        Raises:
            NotAcceptable: they take no stream.
            Throttled: they have too many.
            GatewayError: as ``look`` does.
        """
        _check_accept(listener.scope)
        self._places.check(listener.principal.key)
        generation = self._catalog.tools()
        return Push(
            200,
            headers=((CALL_HEADER, listener.call_id.encode()),),
            listener=listener,
            left_s=(listener.principal.expires_us - self._clock.now_us()) / 1_000_000,
            wanted=wanted,
            catalog=self._catalog,
            generation=generation,
            known=_lists(await look(), wanted.kinds),
            look=look,
            places=self._places,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Push(Reply):
    """An answer that goes on until its client leaves, its credential ends or the gateway stops.

    Attributes:
        listener: whom it is for.
        left_s: how long the credential is still good, seconds.
        wanted: what they want to hear.
        catalog: says when there is a new generation.
        generation: the one that ``known`` is of.
        known: what their lists hold.
        look: what they may know of now.
        places: the streams that are open.
    """

    listener: Listener
    left_s: float
    wanted: Wanted
    catalog: Catalog
    generation: Sequence[Tool]
    known: Lists
    look: Look
    places: Places

    async def send(self, send: Send) -> None:
        """Say what there is to say, as long as there is somebody to hear it."""
        with self.places.taken(self.listener.principal.key):
            begun = [*_HEADERS, *self.headers]
            await send({"type": "http.response.start", "status": self.status, "headers": begun})
            # A stream must hold up neither a gateway that stops nor one of its clients.
            with suppress(ClientGone):
                await unless_gone(self.listener.receive, self._until_over(send))
                await self._say(send, self._closing(), more=False)

    async def _until_over(self, send: Send) -> None:
        stopping = self.listener.scope.get(STOPPING)
        with move_on_after(max(0.0, self.left_s)):
            async with create_task_group() as group:
                if stopping is not None:
                    group.start_soon(_ended_by, stopping, group.cancel_scope)
                # Nothing is said of a list that cannot be decided on: its client asks again, and is told why.
                with suppress(GatewayError):
                    await self._tell(send)
                group.cancel_scope.cancel()

    async def _tell(self, send: Send) -> None:
        generation, known = self.generation, self.known
        await self._say(send, self._opening())
        while True:
            with move_on_after(_SILENCE_S) as quiet:
                await self.catalog.changed(generation)
            if quiet.cancelled_caught:
                await send({"type": "http.response.body", "body": _NOTHING, "more_body": True})
                continue
            generation = self.catalog.tools()
            lists = _lists(await self.look(), self.wanted.kinds)
            for kind in _FILTERS.values():
                if lists.get(kind) != known.get(kind):
                    await self._say(send, self._notice(f"notifications/{kind}s/list_changed", {}))
            known = lists

    def _opening(self) -> bytes | None:
        if self.wanted.subscription is None:
            return None
        heard = {name: True for name, kind in _FILTERS.items() if kind in self.wanted.kinds}
        return self._notice(_ACKNOWLEDGED, {"notifications": heard})

    def _closing(self) -> bytes | None:
        if self.wanted.subscription is None:
            return None
        result = {"resultType": eras.RESULT_COMPLETE, "_meta": {META_SUBSCRIPTION: self.wanted.subscription}}
        return jsonrpc.encode_response(self.wanted.subscription, jsonrpc.encode(result))

    def _notice(self, method: str, params: Mapping[str, Any]) -> bytes:
        if self.wanted.subscription is not None:
            params = {**params, "_meta": {META_SUBSCRIPTION: self.wanted.subscription}}
        return jsonrpc.encode_notification(method, jsonrpc.encode(params))

    async def _say(self, send: Send, message: bytes | None, *, more: bool = True) -> None:
        body = b"" if message is None else b"event: message\ndata: %b\n\n" % message
        await send({"type": "http.response.body", "body": body or (_NOTHING if more else b""), "more_body": more})


def _lists(tools: Sequence[Tool], kinds: frozenset[Kind]) -> Lists:
    found: dict[Kind, list[tuple[str, str]]] = {kind: [] for kind in kinds}
    for tool in tools:
        if tool.kind in kinds:
            found[tool.kind].append((tool.fqn, tool.digest))
    return found


async def _ended_by(stopping: Event, scope: CancelScope) -> None:
    await stopping.wait()
    scope.cancel()
