"""Resources that a client follows: each begun and ended by a call of its own, and told of while the client may see it.

In the handshake era they belong to a session, in the stateless era to the one ``subscriptions/listen`` that named them;
they end with it. A client hears that what it named has changed, and nothing of what has: it reads again, which is
decided on as any read is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from msgspec import structs
from starlette.types import Receive

from gateway.core import canonical, pipeline, resources
from gateway.core.bell import Bell
from gateway.core.call import Call
from gateway.core.canonical import Arguments, Json
from gateway.core.errors import (
    Denied,
    GatewayError,
    InvalidArguments,
    OutcomeUnknown,
    Quarantined,
    Throttled,
    ToolFailed,
    UnknownTool,
)
from gateway.core.following import Subscription
from gateway.core.mcpwire.following import SUBSCRIBE, UNSUBSCRIBE
from gateway.core.ports import Ports
from gateway.core.tool import ConnectorKind, Kind, Tool
from gateway.edge.calling import carry_out
from gateway.edge.disconnect import Watched
from gateway.edge.mcp import resources as mcp_resources
from gateway.edge.mcp.tools import Names

METHODS: Final = frozenset({SUBSCRIBE, UNSUBSCRIBE})
MOST: Final = 64
_RETRY_S: Final = 60.0
# Why one of several is not followed while the others are.
_LEFT_OUT: Final = (Denied, InvalidArguments, OutcomeUnknown, Quarantined, Throttled, ToolFailed, UnknownTool)


def asked(params: Json, server: str | None, names: Names, *, ends: bool = False) -> tuple[str, Arguments]:
    """What is followed: the name inside, and its address; and that this is to end.

    Raises:
        InvalidParams: ``params.uri`` can be no address.
    """
    resource, given = mcp_resources.asked(params, server, names)
    at, _, name = resource.partition(".")
    members = {**given.value, "ends": True} if ends else given.value
    inside = f"{at}.{Kind.SUBSCRIPTION.prefix}{name.removeprefix(Kind.RESOURCE.prefix)}"
    return inside, canonical.arguments(Json(members, members))


@dataclass(frozen=True, slots=True)
class Follow:
    """One resource that is followed.

    Attributes:
        address: as its client has it.
        call: what began it.
        subscription: whether there is news.
    """

    address: str
    call: Call
    subscription: Subscription


class Follows:
    """What one client follows, in one session or on one stream.

    Attributes:
        bell: rings when one of them has news, or all have ended.
        is_over: whether all have ended.
    """

    __slots__ = ("_held", "_most", "bell", "is_over")

    def __init__(self, most: int = MOST) -> None:
        """``most`` resources at a time."""
        self.is_over = False
        self._most = most
        self._held: dict[str, Follow] = {}
        self.bell = Bell()

    @property
    def is_news(self) -> bool:
        """Whether one of them has some, or all have ended."""
        return self.is_over or any(follow.subscription.is_news for follow in self._held.values())

    @property
    def held(self) -> Sequence[Follow]:
        """All of them, in the order they were begun."""
        return tuple(self._held.values())

    def wish(self, address: str) -> Subscription:
        """A subscription that wakes whoever waits here.

        Raises:
            Throttled: there is no room for another address.
        """
        self._check_room(address)
        return Subscription(self.bell.ring)

    def find(self, address: str) -> Subscription | None:
        """The subscription to ``address``, if there is one."""
        found = self._held.get(address)
        return None if found is None else found.subscription

    def keep(self, follow: Follow) -> None:
        """It has begun; an earlier one of the same address ends, and so does this where all have ended meanwhile.

        Raises:
            Throttled: others took the room; it has ended.
        """
        try:
            self._check_room(follow.address)
        except Throttled:
            follow.subscription.end()
            raise
        self.drop(follow.address)
        if self.is_over:
            follow.subscription.end()
        else:
            self._held[follow.address] = follow
            self.bell.ring()  # there may have been news before it was here

    def drop(self, address: str) -> None:
        """It is followed no more."""
        found = self._held.pop(address, None)
        if found is not None:
            found.subscription.end()

    def end(self) -> None:
        """None is followed any more, and none will be."""
        self.is_over = True
        self.clear()
        self.bell.ring()

    def clear(self) -> None:
        """None is followed any more, until some are begun anew."""
        for address in tuple(self._held):
            self.drop(address)

    def _check_room(self, address: str) -> None:
        if address not in self._held and len(self._held) >= self._most:
            raise Throttled("too many resources are followed", retry_after=_RETRY_S, cause_code="subscriptions")


class Followers:
    """Begins what clients follow, and says what they may still hear of."""

    def __init__(self, ports: Ports, names: Names) -> None:
        """``names`` are those of the wire."""
        self._ports = ports
        self._names = names

    async def prepared(self, call: Call, address: str, follows: Follows) -> Call:
        """A call that begins or ends a subscription, with whom to tell.

        A resource that may not be seen is not there, also for who may follow it: the pipeline is told so by an
        objection, which it hears once it is known that the caller may know of the name at all.

        Raises:
            GatewayError: as ``pipeline.visible`` does; they follow too much.
        """
        if call.arguments.value.get("ends") is True:
            return structs.replace(call, subscription=follows.find(address))
        hidden = None if await self.sees(call) else UnknownTool(f"no such {Kind.SUBSCRIPTION}")
        return structs.replace(call, subscription=follows.wish(address), objection=_saying(hidden))

    async def begun(self, base: Call, addresses: Sequence[str], server: str | None, receive: Receive) -> Follows:
        """What can be followed of ``addresses``, each begun by a call of its own; ``base`` says whose.

        Raises:
            GatewayError: nothing can be decided on, or an address is none.
        """
        follows = Follows()
        try:
            for address in addresses:
                await self._begun(base, address, server, follows, receive)
        except BaseException:
            follows.end()
            raise
        return follows

    async def sees(self, call: Call) -> bool:
        """Whether the caller may see what ``call`` follows, and follow it, as of now."""
        seen: list[Tool] = []
        for tool in (self._tool(call, kind) for kind in (Kind.RESOURCE, Kind.SUBSCRIPTION)):
            seen += await pipeline.visible(structs.replace(call, tool=tool.fqn), self._ports, [tool])
        return [tool.listed for tool in seen] == [True, True]

    async def _begun(self, base: Call, address: str, server: str | None, follows: Follows, receive: Receive) -> None:
        members = {"uri": address}
        inside, given = asked(Json(members, members), server, self._names)
        clock = self._ports.clock
        call = structs.replace(base, id=clock.uuid(), at_us=clock.now_us(), tool=inside, arguments=given)
        try:
            call = await self.prepared(call, address, follows)
            with settled(call, address, follows):
                await carry_out(call, self._ports, Watched(receive))
        except _LEFT_OUT:
            return

    def _tool(self, call: Call, kind: Kind) -> Tool:
        at, _, name = call.tool.partition(".")
        inside = f"{kind.prefix}{name.removeprefix(Kind.SUBSCRIPTION.prefix)}"
        found = self._names.tool(f"{at}.{inside}")
        read = None if found is None else resources.read(found, call.arguments.value)
        # What is not there is decided on all the same: both take the same time.
        return read or Tool(at, inside, ConnectorKind.MCP, {}, "", listed=False)


@contextmanager
def settled(call: Call, address: str, follows: Follows) -> Iterator[None]:
    """While a call of ``Followers.prepared`` is carried out: what it began is kept, or ended where it failed."""
    subscription = call.subscription
    if call.arguments.value.get("ends") is True:
        try:
            yield
        finally:
            follows.drop(address)  # nobody is kept from hearing less, whatever became of the call
        return
    try:
        yield
    except BaseException:
        if subscription is not None:
            subscription.end()
        raise
    if subscription is not None:
        follows.keep(Follow(address, call, subscription))


def _saying(error: GatewayError | None) -> Callable[[], GatewayError | None]:
    return lambda: error
