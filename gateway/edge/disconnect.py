"""The client has gone: what it waited for is cancelled. Committed effects shield themselves (``core/pipeline.py``).

Most calls are over in a few milliseconds, so nobody listens for the client until a call has taken longer: the fast path
pays for a timer that never fires, not for a second task.
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


class Watched:
    """What is done inside is cancelled when the client leaves, and ends with ``ClientGone`` then. Used once.

    Not the bare scope: by its type it may swallow an error, and a call could then end without an answer.
    """

    __slots__ = ("_among", "_receive", "_task", "_timer", "scope")
    _timer: asyncio.TimerHandle

    def __init__(self, receive: Receive, scope: CancelScope | None = None, among: "set[Watched] | None" = None) -> None:
        """``receive`` tells when the client leaves; ``scope`` is as for ``unless_gone``.

        ``among`` has this for as long as it lasts.
        """
        self.scope = scope or scopes.scope()
        self._receive = receive
        self._among = among
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        """The work begins."""
        if self._among is not None:
            self._among.add(self)
        self.scope.__enter__()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._start)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work is over.

        Raises:
            ClientGone: it was cancelled.
        """
        if self._among is not None:
            self._among.discard(self)
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            # It holds its end, and by that this watch: neither would be freed before the collector comes.
            self._task = None
        if self.scope.__exit__(kind, error, trace):
            raise self.gone() from None

    def gone(self) -> ClientGone | GatewayError:
        """What work that was cancelled ends with."""
        return ClientGone()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.scope.cancel()
