"""The client has gone: what it waited for is cancelled. Committed effects shield themselves (``core/pipeline.py``).

Most calls are over in a few milliseconds, so nobody listens for the client until a call has taken longer: the fast path
pays for a look at the time, not for a second task.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

from anyio import CancelScope
from starlette.types import Receive

from gateway.core import scopes
from gateway.core.errors import GatewayError
from gateway.edge.faults import ClientGone

T = TypeVar("T")
PATIENCE_S = 0.05


async def unless_gone(receive: Receive, work: Awaitable[T], scope: CancelScope | None = None) -> T:
    """The result of ``work``, which is cancelled when the client leaves. The request's body must have been read.

    ``scope`` is the one it is done in, for who may have another reason to cancel it; used once.

    Raises:
        ClientGone: the work was cancelled, because the client left or by way of ``scope``.
    """
    with Watched(receive, scope):
        return await work


class Waiting:
    """Those whose clients wait at a time. Who waits for long is listened to; one timer runs for all of them.

    Attributes:
        fresh: who began lately.
        heard: who is listened to.
    """

    __slots__ = ("_timer", "fresh", "heard")

    def __init__(self) -> None:
        """Nobody waits."""
        self.fresh: set[Watched] = set()
        self.heard: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: "Watched", loop: asyncio.AbstractEventLoop) -> None:
        """Another one, from now on; to be taken out at its end."""
        self.fresh.add(watched)
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now = None, loop.time()
        for watched in [one for one in self.fresh if one.due <= now]:
            self.fresh.remove(watched)
            self.heard.add(watched)
            watched.listen(loop)
        if self.fresh:  # not at the moment of each: one look passes all of them by
            self._timer = loop.call_later(PATIENCE_S / 2, self._look, loop)


class Watched:
    """What is done inside is cancelled when the client leaves, and ends with ``ClientGone`` then. Used once.

    Not the bare scope: by its type it may swallow an error, and a call could then end without an answer.

    Attributes:
        scope: what is done inside is done in it.
        due: when its client is to be listened to, at the earliest; event loop's seconds.
    """

    __slots__ = ("_receive", "_task", "_waiting", "due", "scope")
    due: float

    def __init__(self, receive: Receive, scope: CancelScope | None = None, waiting: Waiting | None = None) -> None:
        """``receive`` tells when the client leaves; ``scope`` is as for ``unless_gone``; ``waiting`` has its like."""
        self.scope = scope or scopes.scope()
        self._receive = receive
        self._waiting = waiting or Waiting()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        """The work begins."""
        self.scope.__enter__()
        loop = asyncio.get_running_loop()
        self.due = loop.time() + PATIENCE_S
        self._waiting.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work is over.

        Raises:
            ClientGone: it was cancelled.
        """
        self._waiting.fresh.discard(self)
        if self._task is not None:
            self._waiting.heard.discard(self)
            self._task.cancel()
            # It holds its end, and by that this watch: neither would be freed before the collector comes.
            self._task = None
        if self.scope.__exit__(kind, error, trace):
            raise self.gone() from None

    def gone(self) -> ClientGone | GatewayError:
        """What work that was cancelled ends with."""
        return ClientGone()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear from now on when the client leaves."""
        self._task = loop.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.scope.cancel()
