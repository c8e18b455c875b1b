"""Resources that callers follow at one upstream over HTTP, with one stream for each credential and caller.

In the handshake era the stream is that of a session (GET), in which each resource is subscribed to; in the stateless
era it is the answer of a ``subscriptions/listen`` that names them all. A stream that ends is opened again once, with a
new session where the old one is no more, and its callers are told that what they follow may have changed meanwhile.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

from anyio import CancelScope, Event, Lock, create_task_group, current_time, move_on_after, sleep
from anyio.abc import TaskGroup

from connectors.mcp.faults import Fault, Lost, Refused, Unprepared, Unreached
from connectors.mcp.holding import Bounds, Held, Holders
from connectors.mcp.messages import Hearing
from connectors.mcp.session import Ask
from connectors.mcp.sessions import Identity, Key
from gateway.core.call import Call
from gateway.core.following import Subscription
from gateway.core.mcpwire import following
from gateway.core.mcpwire.jsonrpc import Notification, encode

_COURTESY_S: Final = 0.5
_GONE: Final = frozenset({400, 404})


@dataclass(slots=True, eq=False)
class _Stream:
    """A stream that is open, or about to be."""

    session: Held
    scope: CancelScope = field(default_factory=CancelScope)
    settled: Event = field(default_factory=Event)
    began: float = field(default_factory=current_time)
    is_open: bool = False
    is_over: bool = False
    fault: Fault | None = None

    async def opened(self) -> None:
        """The server has begun to answer, or said what it will tell."""
        self.is_open = True
        self.settled.set()


@dataclass(slots=True, eq=False)
class _Line:
    """What one caller follows with one credential."""

    identity: Identity
    followed: dict[str, set[Subscription]] = field(default_factory=dict)
    stream: _Stream | None = None
    lock: Lock = field(default_factory=Lock)
    waiting: int = 0
    pause_s: float = 0.0

    def everybody(self) -> list[Subscription]:
        """All that wait for news."""
        return [subscription for own in self.followed.values() for subscription in own]

    def hear(self, uri: str) -> None:
        """A resource, or a part of one, has changed: told of what was subscribed to, and of nothing else."""
        for followed, own in self.followed.items():
            if following.concerns(uri, followed):
                for subscription in tuple(own):
                    subscription.updated()


class Following:
    """The resources that are followed at one upstream; an async context manager.

    Args:
        sessions: the upstream's.
        bounds: how much, and how patiently.
    """

    def __init__(self, sessions: Holders, bounds: Bounds) -> None:
        self._sessions = sessions
        self._bounds = bounds
        self._lines: dict[Key, _Line] = {}
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Nothing is followed yet."""
        self._tasks = await create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Follow nothing any more; who still waits for news is told."""
        for line in self._lines.values():
            _lose(line.everybody())
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            # The group is not told of the body's error, which it would wrap in a group of errors.
            await self._tasks.__aexit__(None, None, None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is followed."""
        return not self._lines

    async def begin(self, identity: Identity, uri: str, subscription: Subscription) -> None:
        """Follow ``uri``, until the subscription ends.

        Raises:
            Fault: it cannot be followed.
        """
        async with self._line(identity) as line, line.lock:
            if uri not in line.followed:
                if len(line.followed) >= self._bounds.each:
                    raise Unprepared("too_many_subscriptions")
                await self._follow(line, uri)
            line.followed.setdefault(uri, set()).add(subscription)
            subscription.begun(partial(self._end, line, uri, subscription))

    @asynccontextmanager
    async def _line(self, identity: Identity) -> AsyncIterator[_Line]:
        key = identity.key(None)
        line = self._lines.get(key)
        if line is None:
            own = sum(line.identity.user == identity.user for line in self._lines.values())
            is_full = len(self._lines) >= self._bounds.streams or own >= self._bounds.streams_each
            if self._tasks is None or is_full:
                raise Unprepared("too_many_streams")
            line = self._lines[key] = _Line(identity)
        line.waiting += 1
        try:
            yield line
        finally:
            line.waiting -= 1
            self._rest(line)

    async def _follow(self, line: _Line, uri: str) -> None:
        before = line.stream
        if before is not None and before.is_over:
            await self._renew(line, {*line.followed, uri})
        elif before is None or before.session.dialect.stateless:
            # The new one is open before the old one is closed, so that nothing is missed between them.
            line.stream = await self._opened(line, {*line.followed, uri})
            if before is not None:
                before.scope.cancel()
        await self._subscribe(line, uri)

    async def _subscribe(self, line: _Line, uri: str) -> None:
        stream = line.stream
        if stream is None or stream.session.dialect.stateless:
            return  # said at the begin of the stream
        try:
            await stream.session.ask(Ask(following.SUBSCRIBE, _members(uri), connect_s=self._bounds.connect_s))
        except Refused as refusal:
            self._sessions.learn(stream.session, refusal)
            raise

    async def _resubscribe(self, line: _Line) -> None:
        """Subscribe to all again; what is refused now is lost, and of the rest nobody knows what was missed."""
        for uri in tuple(line.followed):
            try:
                await self._subscribe(line, uri)
            except Refused:
                _lose(line.followed.pop(uri))
        for subscription in line.everybody():
            subscription.updated()

    def _end(self, line: _Line, uri: str, subscription: Subscription) -> None:
        own = line.followed.get(uri)
        if own is None:
            return
        own.discard(subscription)
        if not own and self._tasks is not None:
            self._tasks.start_soon(self._unfollow, line, uri)

    async def _unfollow(self, line: _Line, uri: str) -> None:
        async with line.lock:
            if line.followed.get(uri):
                return  # somebody came meanwhile
            line.followed.pop(uri, None)
            stream = line.stream
            if stream is not None and not stream.session.dialect.stateless:
                # A courtesy: whether it arrives changes nothing here.
                with suppress(Fault), move_on_after(_COURTESY_S):
                    await stream.session.ask(Ask(following.UNSUBSCRIBE, _members(uri), connect_s=_COURTESY_S))
        self._rest(line)

    def _rest(self, line: _Line) -> None:
        """Close a line by which nothing is followed."""
        if line.followed or line.waiting:
            return
        if line.stream is not None:
            line.stream.scope.cancel()
            line.stream = None
        key = line.identity.key(None)
        if self._lines.get(key) is line:
            del self._lines[key]

    async def _opened(self, line: _Line, uris: Collection[str]) -> _Stream:
        tasks = self._tasks
        if tasks is None:
            raise Unprepared("closed")
        fault: Fault = Lost("stream_ended")
        for _ in range(2):  # a session that has expired is found out by the first
            session = await self._sessions.get(line.identity, self._bounds.connect_s)
            stream = _Stream(session)
            try:
                tasks.start_soon(self._hold, line, stream, frozenset(uris))
                with move_on_after(self._bounds.connect_s) as patience:
                    await stream.settled.wait()
            except BaseException:
                stream.scope.cancel()
                raise
            if stream.is_open:
                return stream
            stream.scope.cancel()
            fault = Lost("timeout") if patience.cancelled_caught else stream.fault or fault
            if not (isinstance(fault, Refused) and fault.status in _GONE and not fault.addressed):
                break
            self._sessions.forget(session)
        raise fault

    async def _hold(self, line: _Line, stream: _Stream, uris: frozenset[str]) -> None:
        with stream.scope:
            stream.session.users += 1  # it is not to make room for another one
            try:
                await _read(line, stream, uris)
            except Fault as fault:
                stream.fault = fault
            finally:
                stream.session.users -= 1
                stream.is_over = True
                stream.settled.set()
        if stream.is_open and not stream.scope.cancel_called:
            await self._recover(line, stream)

    async def _recover(self, line: _Line, ended: _Stream) -> None:
        pause = self._pause(line, current_time() - ended.began)
        for _ in range(self._bounds.attempts):
            await sleep(pause)
            async with line.lock:
                if line.stream is not ended or not line.followed:
                    return
                try:
                    await self._renew(line, line.followed)
                    break
                except Unreached:  # it may be starting again
                    pause = max(pause * 2, self._bounds.first_pause_s)
                except Fault:
                    break
        if line.stream is ended:
            _lose(line.everybody())
            line.followed.clear()
        self._rest(line)

    async def _renew(self, line: _Line, uris: Collection[str]) -> None:
        stream, before = await self._opened(line, uris), line.stream
        line.stream = stream
        try:
            await self._resubscribe(line)
        except BaseException:  # also where whoever came is gone: the stream that ended is still to be made good
            line.stream = before
            stream.scope.cancel()
            raise

    def _pause(self, line: _Line, lived_s: float) -> float:
        bounds = self._bounds
        if lived_s >= bounds.steady_s:
            line.pause_s = 0.0
        pause, line.pause_s = line.pause_s, min(max(bounds.first_pause_s, line.pause_s * 2), bounds.longest_pause_s)
        return pause


def _lose(subscriptions: Iterable[Subscription]) -> None:
    for subscription in tuple(subscriptions):
        subscription.lost()


async def carried_out(keeper: Following, call: Call, identity: Identity) -> None:
    """Begin what a call subscribes to, or end it where the call says so: nobody is kept from hearing less.

    Raises:
        Fault: it cannot be followed.
    """
    subscription, given = call.subscription, call.arguments.value
    if given.get("ends") is not True:
        if subscription is None:  # a surface that has no way to tell, or a person's approval long after
            raise Unprepared("no_subscriber")
        await keeper.begin(identity, given["uri"], subscription)
    elif subscription is not None:
        subscription.end()


async def _read(line: _Line, stream: _Stream, uris: frozenset[str]) -> None:
    async def hear(told: Notification) -> None:
        said = following.acknowledged(told)
        if said is not None and stream.session.dialect.stateless:
            if not uris <= said:
                raise Refused("not_followed")
            await stream.opened()
        changed = following.updated(told)
        if changed is not None:
            line.hear(changed)

    if stream.session.dialect.stateless:
        wanted = encode({following.FILTER: sorted(uris)})
        await stream.session.attend(Ask(following.LISTEN, b'"notifications":' + wanted), hear)
    else:
        await stream.session.hold(Hearing(stream.opened, hear))


def _members(uri: str) -> bytes:
    return b'"uri":' + encode(uri)
