"""The client has gone: what it waited for is cancelled. Committed effects shield themselves (``core/pipeline.py``).

Most calls are over in a few milliseconds, so nobody listens for the client until a call has taken longer: the fast path
pays for a timer that never fires, not for a second task.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from anyio import CancelScope
from starlette.types import Receive

from gateway.core import scopes
from gateway.edge.faults import ClientGone

T = TypeVar("T")
PATIENCE_S = 0.05


async def unless_gone(receive: Receive, work: Awaitable[T], scope: CancelScope | None = None) -> T:
    """The result of ``work``, which is cancelled when the client leaves. The request's body must have been read.

    ``scope`` is the one it is done in, for who may have another reason to cancel it; used once.

    Raises:
        ClientGone: the work was cancelled, because the client left or by way of ``scope``.
    """
    watch = _Watch(receive, scope or scopes.kind()())
    try:
        with watch.scope:
            return await work
    finally:
        watch.close()
    raise ClientGone


class _Watch:
    __slots__ = ("_receive", "_task", "_timer", "scope")

    def __init__(self, receive: Receive, scope: CancelScope) -> None:
        self.scope = scope
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._start)

    def close(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            # It holds its end, and by that this watch: neither would be freed before the collector comes.
            self._task = None

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.scope.cancel()
