"""The own streams (GET) of sessions whose callers can be asked.

What is asked there is of the one call that is under way in the session; where there is none, or more than one, it is
declined. Without such a stream a question that a server puts there is never delivered, and it waits for the answer
until the time of its call is over. Only where capabilities were declared: elsewhere a server has nothing to ask.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Final, Self

from anyio import CancelScope, Event, create_task_group, current_time, move_on_after, sleep, sleep_forever
from anyio.abc import TaskGroup

from connectors.mcp.exchange import NO_STREAM
from connectors.mcp.faults import Fault, Refused
from connectors.mcp.messages import Hearing
from connectors.mcp.session import Session

# The first call waits so long for the stream, so that what the server asks at once can be delivered; it can do without.
_PATIENCE_S: Final = 1.0
# Nobody waits for anything in a session that long after its last call; the connection is given back.
_IDLE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0
# A life of this length counts as healthy, and the pause starts over.
_STEADY_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _Held:
    """The stream of one session.

    Attributes:
        scope: what holds it.
        settled: set once it is open, or is not to be had.
        users: calls under way in the session.
    """

    scope: CancelScope = field(default_factory=CancelScope)
    settled: Event = field(default_factory=Event)
    users: int = 0

    async def opened(self) -> None:
        """The server has begun to answer."""
        self.settled.set()


class Outside:
    """The streams that are held at one upstream; an async context manager."""

    def __init__(self) -> None:
        self._held: dict[Session, _Held] = {}
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """None is open yet."""
        self._tasks = await create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            # The group is not told of the body's error, which it would wrap in a group of errors.
            await self._tasks.__aexit__(None, None, None)

    @property
    def count(self) -> int:
        """How many sessions have one, or were refused one."""
        return len(self._held)

    @asynccontextmanager
    async def heard(self, session: Session) -> AsyncIterator[None]:
        """While a call is under way in ``session``; the stream stays open for a while after it."""
        if not session.is_askable or session.id is None or session.is_over or self._tasks is None:
            yield
            return
        held = self._held.get(session)
        if held is None or held.scope.cancel_called:
            held = self._held[session] = _Held()
            session.outside = held.scope
            self._tasks.start_soon(self._hold, session, held)
        held.users += 1
        held.scope.deadline = inf
        try:
            with move_on_after(_PATIENCE_S):
                await held.settled.wait()
            held.settled.set()  # a server that is slow to open it holds up no second call
            yield
        finally:
            held.users -= 1
            if not held.users:
                held.scope.deadline = current_time() + _IDLE_S

    async def _hold(self, session: Session, held: _Held) -> None:
        pause, began = _FIRST_PAUSE_S, current_time()
        try:
            with held.scope:
                while await _is_ended(session, held):
                    if not held.users:  # the next call opens it again
                        return
                    if current_time() - began > _STEADY_S:
                        pause = _FIRST_PAUSE_S
                    await sleep(pause)
                    began = current_time()
                    pause = min(pause * 2, _LONGEST_PAUSE_S)
                await sleep_forever()  # the server has none, which is its right: it is not asked again for a while
        finally:
            held.settled.set()
            if self._held.get(session) is held:  # one that was just about to end has been replaced
                del self._held[session]


async def _is_ended(session: Session, held: _Held) -> bool:
    """Hold the stream until the server ends it; False where it has none."""
    try:
        await session.hold(Hearing(held.opened, session.heard_aside))
    except Refused:
        return False
    except Fault as fault:
        return fault.cause != NO_STREAM  # whoever answers with a page has none either
    finally:
        held.settled.set()
    return True
