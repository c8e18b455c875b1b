"""Many requests over one stream of messages, told apart by their ids."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from anyio import current_time, get_cancelled_exc_class

from connectors.mcp.allowance import Allowance
from connectors.mcp.declining import declined
from connectors.mcp.faults import Fault, Lost, Refused, Unreached
from gateway.core.errors import MalformedRequest
from gateway.core.mcpwire import following
from gateway.core.mcpwire.jsonrpc import (
    Failure,
    Notification,
    Reply,
    Request,
    encode_notification,
    encode_request,
    read_upstream,
)
from gateway.core.mcpwire.notices import progress_token

_Answer = bytes | Fault
Hear = Callable[[Notification], Awaitable[None]]
# Notices that wait for a caller who is slow to take them: the call goes on without the rest.
_MOST_UNHEARD: Final = 64
_NOTICES_BYTES: Final = 8 * 1024 * 1024
_FOLLOWED: Final = frozenset({following.UPDATED, following.ACKNOWLEDGED})
# Within a minute: a peer that floods us with requests would otherwise make us write without end.
_MOST_DECLINED: Final = 1000


@dataclass(slots=True)
class _Waiting:
    """A request under way, and what came for it that was not taken yet.

    Attributes:
        room: bytes of notices that may be meant for it still; nobody waits for more.
    """

    inbox: asyncio.Queue[Notification | bytes | Fault] = field(default_factory=asyncio.Queue)
    is_settled: bool = False
    room: int = _NOTICES_BYTES

    def settle(self, answer: _Answer) -> None:
        """The last that comes."""
        self.is_settled = True
        self.inbox.put_nowait(answer)

    async def answer(self, hear: Hear | None) -> _Answer:
        """The answer, once everything that came before it was heard."""
        while isinstance(came := await self.inbox.get(), Notification):
            if hear is not None:
                await hear(came)
        return came


class Multiplex:
    """The requests under way on one stream.

    Args:
        send: writes one message whole, or raises ``Unreached``.
        ids: ids never used before on this upstream, so that a late or replayed answer can match no other request.
        log: told what is odd, in our own words.
    """

    def __init__(self, send: Callable[[bytes], None], ids: Iterator[int], log: Callable[[str], None]) -> None:
        self._send = send
        self._ids = ids
        self._log = log
        self._waiting: dict[int, _Waiting] = {}
        self._declining = Allowance(_MOST_DECLINED)
        self._closed: str | None = None
        self._overhearing: _Waiting | None = None

    def next_id(self) -> int:
        """An id for one request."""
        return next(self._ids)

    async def ask(self, method: str, params: bytes, request_id: int | None = None, hear: Hear | None = None) -> bytes:
        """Send one request, once; returns the result's JSON text.

        Args:
            method: MCP method.
            params: JSON text of its ``params``.
            request_id: its id, and its progress token where ``params`` asks for progress; None = the next one.
            hear: called with each progress notification of it, one after another.

        Raises:
            Unreached: nothing was written.
            Refused: a JSON-RPC error.
            Lost: the stream ended first.
        """
        if self._closed is not None:
            raise Unreached(self._closed)
        request_id = self.next_id() if request_id is None else request_id
        message = encode_request(request_id, method, params)
        waiting = self._waiting[request_id] = _Waiting()
        try:
            self._send(message)
            answer = await waiting.answer(hear)
        except get_cancelled_exc_class():
            self.tell("notifications/cancelled", b'{"requestId":%d,"reason":"abandoned"}' % request_id)
            raise
        finally:
            del self._waiting[request_id]
        if isinstance(answer, Fault):
            raise answer
        return answer

    def tell(self, method: str, params: bytes = b"{}") -> None:
        """Send a notification, if it can be sent."""
        with suppress(Unreached):
            self._send(encode_notification(method, params))

    def take(self, line: bytes) -> bool:
        """Take one message; what is none, or answers nothing that was asked, changes nothing.

        Returns:
            Whether anybody waited for it.
        """
        try:
            message = read_upstream(line)
        except MalformedRequest as error:
            self._log(f"sent a line that is no message ({error.cause_code})")
            return False
        if isinstance(message, Reply):
            return self._settle(message.id, message.result)
        if isinstance(message, Failure):
            return isinstance(message.id, int) and self._settle(message.id, Refused.by(message, message.id))
        return self._decline(message) if isinstance(message, Request) else self._notice(message)

    def close(self, cause: str) -> None:
        """Nothing more will come: whatever is under way is lost, and nothing more is sent."""
        self._closed = cause
        overhearing = () if self._overhearing is None else (self._overhearing,)
        for waiting in (*self._waiting.values(), *overhearing):
            if not waiting.is_settled:
                waiting.settle(Lost(cause))

    @asynccontextmanager
    async def overheard(self) -> AsyncIterator[Callable[[Hear], Awaitable[None]]]:
        """From now on, what is said of resources that belongs to no request is kept for who calls what this yields.

        That returns only by a fault: ``Lost`` where the stream has ended, or somebody else has begun to overhear it.
        """
        waiting = _Waiting()
        before, self._overhearing = self._overhearing, waiting
        if before is not None:
            before.settle(Lost("replaced"))
        if self._closed is not None:
            waiting.settle(Lost(self._closed))

        async def heard(hear: Hear) -> None:
            answer = await waiting.answer(hear)
            if isinstance(answer, Fault):
                raise answer

        try:
            yield heard
        finally:
            if self._overhearing is waiting:
                self._overhearing = None

    def _notice(self, told: Notification) -> bool:
        # A log message on a stream that many callers share does not say whose call it is about: it is nobody's.
        token = progress_token(told)
        waiting = self._waiting.get(token) if isinstance(token, int) else None
        if waiting is None or waiting.is_settled:
            return told.method in _FOLLOWED and self._tell_followers(told)
        waiting.room -= len(told.text)
        if waiting.inbox.qsize() < _MOST_UNHEARD:
            waiting.inbox.put_nowait(told)
        return waiting.room >= 0

    def _tell_followers(self, told: Notification) -> bool:
        listening = following.subscription_id(told)
        waiting = self._overhearing if listening is None else self._waiting.get(listening)
        if waiting is None or waiting.is_settled:
            return False
        if waiting.inbox.qsize() < _MOST_UNHEARD:
            waiting.inbox.put_nowait(told)
        else:
            waiting.settle(Lost("flooded"))  # one that was left out would never be known of
        return True

    def _settle(self, request_id: int | str, answer: _Answer) -> bool:
        waiting = self._waiting.get(request_id) if isinstance(request_id, int) else None
        if waiting is None or waiting.is_settled:
            self._log("answered what was not asked, or twice")
            return False
        waiting.settle(answer)
        return True

    def _decline(self, request: Request) -> bool:
        # No capability was declared, so a server has nothing to ask but whether we are there.
        is_heeded = self._declining.takes(current_time())
        if is_heeded:
            with suppress(Unreached):
                self._send(declined(request))
        return is_heeded
