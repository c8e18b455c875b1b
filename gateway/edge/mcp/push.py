"""What is pushed to a client between its requests: that a list of its own has changed, or a resource that it follows.

It goes by a stream of the session (GET) in the handshake era, by ``subscriptions/listen`` in the stateless one.

Nothing is told that the caller may not know of: after each change of the catalogue policy is asked again what they may
see, and a list that is the same for them has not changed; and before each word of a resource, whether they may see it
still. No event has an id, so there is nothing to resume.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from anyio import CancelScope, current_time, sleep
from starlette.types import Receive, Scope, Send

from gateway.core.call import Call, Principal
from gateway.core.canonical import Json
from gateway.core.errors import GatewayError, Killed, Throttled
from gateway.core.mcpwire import eras, jsonrpc
from gateway.core.mcpwire.following import ACKNOWLEDGED, FILTER, META_SUBSCRIPTION, UPDATED
from gateway.core.mcpwire.jsonrpc import Id
from gateway.core.ports import Catalog, Ports
from gateway.core.tool import Kind, Tool
from gateway.edge.disconnect import unless_gone
from gateway.edge.ears import STOPPING, Ear, Stopping
from gateway.edge.faults import ClientGone, InvalidParams, NotAcceptable
from gateway.edge.heads import forget_headers, headers, says
from gateway.edge.mcp.following import MOST, Follow, Follows
from gateway.edge.mcp.session import user_of
from gateway.edge.problems import CALL_HEADER
from gateway.edge.reply import Header, Reply

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
_MOST_OF_USER: Final = 400
# Between two looks at what has changed: an upstream that says so without end keeps policy no busier than this.
_PAUSE_S: Final = 0.05
_RETRY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client is to hear.

    Attributes:
        kinds: the lists it wants to know about.
        subscription: id of its ``subscriptions/listen``; None in the handshake era.
        addresses: of resources that it wants to follow from now on.
    """

    kinds: frozenset[Kind] = LISTED
    subscription: Id | None = None
    addresses: Sequence[str] = ()


def wanted(params: Json, subscription: Id) -> Wanted:
    """What ``subscriptions/listen`` asks for, as far as it is carried; the rest is not acknowledged.

    Raises:
        InvalidParams: ``params.notifications`` is no filter.
    """
    asked = params.value.get("notifications")
    if not isinstance(asked, dict):
        raise InvalidParams("params.notifications must be an object", cause_code="notifications")
    addresses = asked.get(FILTER, [])
    if not isinstance(addresses, list) or len(addresses) > MOST or not all(isinstance(uri, str) for uri in addresses):
        raise InvalidParams(f"notifications.{FILTER} must be a list of at most {MOST} addresses", cause_code="uri")
    kinds = frozenset(kind for name, kind in _FILTERS.items() if asked.get(name) is True)
    return Wanted(kinds, subscription, tuple(dict.fromkeys(addresses)))


def _check_accept(scope: Scope) -> None:
    """Refuse a client that takes no event stream.

    Raises:
        NotAcceptable: it is not among what it takes.
    """
    if not says(headers(scope, b"accept"), _RANGES):
        raise NotAcceptable("this answer is an event stream")


class Places:
    """Which principals have how many streams open: each costs a place among the connections, and memory."""

    def __init__(self, most_each: int = _MOST_EACH, most_of_user: int = _MOST_OF_USER) -> None:
        """``most_each`` streams for one principal, ``most_of_user`` for all agents of one user."""
        self._most_each = most_each
        self._most_of_user = most_of_user
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Hold a place of ``owner`` (``Principal.key``).

        Raises:
            Throttled: they have no more.
        """
        self.check(owner)
        self._open.update((owner, user_of(owner)))
        try:
            yield
        finally:
            self._open -= Counter((owner, user_of(owner)))  # keeps no zeros

    def check(self, owner: str) -> None:
        """Return where ``owner`` has a place left.

        Raises:
            Throttled: they have none.
        """
        if self._open[owner] >= self._most_each or self._open[user_of(owner)] >= self._most_of_user:
            raise Throttled("too many streams are open", retry_after=_RETRY_S, cause_code="streams")


Lists = Mapping[Kind, Sequence[tuple[str, str]]]
Look = Callable[[], Awaitable[Sequence[Tool]]]
Sees = Callable[[Call], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens.

    Attributes:
        scope: the request.
        receive: tells when they leave.
        principal: whose it is.
        call_id: which call it is.
        follows: the resources that they hear of here.
        sees: whether they may see what a call follows, now.
    """

    scope: Scope = field(repr=False)
    receive: Receive
    principal: Principal
    call_id: str
    follows: Follows
    sees: Sees


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


class Push(Reply, frozen=True, kw_only=True):
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
        forget_headers(self.listener.scope)  # what lasts for hours should hold no more than it needs
        ear, stopping = Ear(), self.listener.scope.get(STOPPING) or Stopping()
        end = CancelScope(deadline=current_time() + max(0.0, self.left_s))
        bells = ((self.catalog.bell, ear.wake), (self.listener.follows.bell, ear.wake), (stopping.bell, end.cancel))
        try:
            with self.places.taken(self.listener.principal.key):
                begun = [*_HEADERS, *self.headers]
                await send({"type": "http.response.start", "status": self.status, "headers": begun})
                for bell, told in bells:
                    bell.hear(told)
                if stopping.is_set():
                    end.cancel()
                await self._until_over(send, ear, end, stopping)
        finally:
            for bell, told in bells:
                bell.forget(told)
            if self.wanted.subscription is not None:  # those of a session are the session's
                self.listener.follows.end()

    async def _until_over(self, send: Send, ear: Ear, end: CancelScope, stopping: Stopping) -> None:
        try:
            # Nothing is said of a list that cannot be decided on: its client asks again, and is told why.
            with suppress(GatewayError):
                await unless_gone(self.listener.receive, self._tell(send, ear), end)
        except ClientGone:  # or it is time: a stream must hold up neither a gateway that stops nor one of its clients
            if not (stopping.is_set() or current_time() >= end.deadline):
                return
        await self._say(send, self._closing(), more=False)

    async def _tell(self, send: Send, ear: Ear) -> None:
        generation, known = self.generation, self.known
        await self._say(send, self._opening())
        while not self.listener.follows.is_over:
            if self.catalog.tools() is generation and not self.listener.follows.is_news:
                if not await ear.hears(_SILENCE_S):
                    await send({"type": "http.response.body", "body": _NOTHING, "more_body": True})
                    await self._forget_unseen()
            elif self.catalog.tools() is generation:
                if not await self._tell_updates(send):
                    return
                await sleep(_PAUSE_S)
            else:
                generation = self.catalog.tools()
                lists = _lists(await self.look(), self.wanted.kinds)
                for kind in _FILTERS.values():
                    if lists.get(kind) != known.get(kind):
                        await self._say(send, self._notice(f"notifications/{kind}s/list_changed", {}))
                known = lists

    async def _tell_updates(self, send: Send) -> bool:
        """Say which resources have changed; False where one of them is followed no more, so that all are begun anew."""
        is_whole = True
        for follow in self.listener.follows.held:
            if not follow.subscription.is_news:
                continue
            is_seen, is_over = await self._is_seen(follow), follow.subscription.is_over
            if is_seen and follow.subscription.is_news:  # it may have gone out by another stream of the session
                follow.subscription.is_news = False
                await self._say(send, self._notice(UPDATED, {"uri": follow.address}))
            if is_over or not is_seen:
                self.listener.follows.drop(follow.address)
            is_whole = is_whole and not is_over
        return is_whole

    async def _forget_unseen(self) -> None:
        for follow in self.listener.follows.held:
            if not await self._is_seen(follow):
                self.listener.follows.drop(follow.address)

    async def _is_seen(self, follow: Follow) -> bool:
        try:
            return await self.listener.sees(follow.call)
        except Killed:
            self.listener.follows.clear()  # a kill can be lifted: the session is to be of use then
            raise

    def _opening(self) -> bytes | None:
        if self.wanted.subscription is None:
            return None
        heard: dict[str, Any] = {name: True for name, kind in _FILTERS.items() if kind in self.wanted.kinds}
        followed = [follow.address for follow in self.listener.follows.held]
        if followed:
            heard[FILTER] = followed
        return self._notice(ACKNOWLEDGED, {"notifications": heard})

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
