"""MCP over a child process for each caller: what a server keeps in its memory is never shown to another one.

A standing process answers discovery and pings, and serves no call. Those of callers are started by their first call,
and ended when they have been idle for a while, or when another caller needs the place of one: first those of the user
who has the most, of those the longest idle.
"""

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope, Event, create_task_group, move_on_after

from connectors.mcp.places import Crowd, Places, user_of
from connectors.mcp.process import Command
from connectors.mcp.sessions import whose
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.call import Lease, Raw
from gateway.core.mcpwire.eras import Era


@dataclass(slots=True, eq=False)
class _Own:
    """One caller's process.

    Attributes:
        user: whose share its place is of.
        users: calls that use it or wait for it.
        ready: set once it is started.
        stirred: set when something of this changes.
        waiting: ended where it shall not wait for a place any more.
        is_over: whether it takes no more calls.
    """

    user: str
    users: int = 0
    ready: Event = field(default_factory=Event)
    stirred: Event = field(default_factory=Event)
    waiting: CancelScope = field(default_factory=CancelScope)
    is_over: bool = False
    connector: StdioConnector | None = None

    def stir(self) -> None:
        """Have whoever keeps it look again."""
        self.stirred.set()
        self.stirred = Event()

    def end(self) -> None:
        """It takes no more calls, and waits for no place."""
        self.is_over = True
        self.waiting.cancel()
        self.stir()


class CallersConnector:
    """One MCP server by command, a process for each caller; a ``Discovering`` connector and async context manager.

    Args:
        command: what to run.
        log: told what the processes write to their standard error (untrusted text) and how they fare.
        options: times and bounds, of each process.
        crowd: how many there may be.
    """

    def __init__(
        self,
        command: Command,
        log: Callable[[str], None],
        options: StdioOptions | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self._options = options or StdioOptions()
        self._crowd = crowd or Crowd()
        self._standing = StdioConnector(command, log, self._options)
        self._places = Places(self._crowd)
        # By caller, the longest idle first.
        self._kept: OrderedDict[str, _Own] = OrderedDict()
        self._placed: set[_Own] = set()

    async def __aenter__(self) -> Self:
        """Start the standing process."""
        await self._standing.__aenter__()
        self._tasks = await create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes; returns when they are gone."""
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._standing.__aexit__(kind, error, trace)

    @property
    def era(self) -> Era | None:
        """The upstream's era, None while it is not known."""
        return self._standing.era

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call in its caller's process; see ``core.connector.Connector``."""
        # A quarter: the rest is for the start of the process and the call.
        async with self._used(whose(lease), user_of(lease), lease.intent.timeout_s / 4) as own:
            return await own.carried_out(lease)

    async def discover(self) -> Sequence[dict[str, Any]]:
        """The upstream's tool definitions; see ``core.connector.Discovering``."""
        return await self._standing.discover()

    async def ping(self) -> None:
        """Return when the standing process answers; see ``core.connector.Connector``."""
        await self._standing.ping()

    @asynccontextmanager
    async def _used(self, caller: str, user: str, wait_s: float) -> AsyncIterator[StdioConnector]:
        own = self._kept.get(caller)
        if own is None:
            own = self._kept[caller] = _Own(user)
            self._tasks.start_soon(self._keep, caller, own)
        self._kept.move_to_end(caller)
        own.users += 1
        try:
            with move_on_after(wait_s):
                await own.ready.wait()
            if own.connector is None:
                raise self._places.busy(user)
            yield own.connector
        finally:
            own.users -= 1
            if not own.users and own not in self._placed:  # nobody waits for it any more
                self._forget(caller, own)
            self._end_idle()
            own.stir()

    async def _keep(self, caller: str, own: _Own) -> None:
        # In a task of its own: it outlives the call that started it.
        try:
            with own.waiting:
                await self._places.take(own.user, self._end_idle)
                self._placed.add(own)
        finally:
            self._forget_unplaced(caller, own)
        if own in self._placed:
            try:
                await self._serve(caller, own)
            finally:
                # Given back when the process is gone, not when it is told to go.
                self._forget(caller, own)
                self._placed.discard(own)
                self._places.give(own.user)

    async def _serve(self, caller: str, own: _Own) -> None:
        options = replace(self._options, dialect=self._standing.dialect)
        async with StdioConnector(self._command, self._log, options) as own.connector:
            own.ready.set()
            while not own.is_over:
                with move_on_after(self._crowd.idle_s) as waiting:
                    await own.stirred.wait()
                if waiting.cancelled_caught and not own.users and not own.connector.is_followed:
                    break
            # Here, so that nobody finds one that is ending.
            self._forget(caller, own)

    def _end_idle(self) -> None:
        if not self._places.is_waited_for:
            return
        # As many as are waited for, less those that are ending already: a user's own where the user's share is full,
        # else those of whoever has the most. The longest idle first.
        ending = Counter(own.user for own in self._placed if own.is_over)
        for user in {own.user for own in self._placed}:
            idle = [(caller, own) for caller, own in self._idle() if own.user == user]
            self._end(idle[: max(0, self._places.short_of(user) - ending[user])])
        ending = Counter(own.user for own in self._placed if own.is_over)
        for _ in range(self._places.short - ending.total()):
            having = Counter(own.user for own in self._placed if not own.is_over)
            self._end(sorted(self._idle(), key=lambda found: -having[found[1].user])[:1])

    def _idle(self) -> Sequence[tuple[str, _Own]]:
        return [(caller, own) for caller, own in self._kept.items() if not own.users and own in self._placed]

    def _end(self, those: Sequence[tuple[str, _Own]]) -> None:
        for caller, own in those:
            self._forget(caller, own)

    def _forget_unplaced(self, caller: str, own: _Own) -> None:
        if own not in self._placed:
            self._forget(caller, own)

    def _forget(self, caller: str, own: _Own) -> None:
        own.end()
        if self._kept.get(caller) is own:
            del self._kept[caller]
