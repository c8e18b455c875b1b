"""Many requests over one stream of messages, told apart by their ids."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from anyio import get_cancelled_exc_class

from connectors.mcp.faults import Fault, Lost, Refused, Unreached
from gateway.core.errors import MalformedRequest
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.jsonrpc import (
    Failure,
    Reply,
    Request,
    encode_failure,
    encode_notification,
    encode_request,
    encode_response,
    read_upstream,
)

_Answer = bytes | Fault
# A peer that floods us with requests would otherwise make us write without end.
_MOST_DECLINED: Final = 1000


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
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._declined = 0
        self._closed: str | None = None

    async def ask(self, method: str, params: bytes) -> bytes:
        """Send one request, once; returns the result's JSON text.

        Raises:
            Unreached: nothing was written.
            Refused: a JSON-RPC error.
            Lost: the stream ended first.
        """
        if self._closed is not None:
            raise Unreached(self._closed)
        request_id = next(self._ids)
        message = encode_request(request_id, method, params)
        waiting = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._send(message)
            answer: _Answer = await waiting
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

    def take(self, line: bytes) -> None:
        """Take one message; what is none, or answers nothing that was asked, changes nothing."""
        try:
            message = read_upstream(line)
        except MalformedRequest as error:
            self._log(f"sent a line that is no message ({error.cause_code})")
            return
        if isinstance(message, Reply):
            self._settle(message.id, message.result)
        elif isinstance(message, Failure):
            if isinstance(message.id, int):
                self._settle(message.id, Refused.by(message, message.id))
        elif isinstance(message, Request):
            self._decline(message)

    def close(self, cause: str) -> None:
        """Nothing more will come: whatever is under way is lost, and nothing more is sent."""
        self._closed = cause
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Lost(cause))

    def _settle(self, request_id: int | str, answer: _Answer) -> None:
        waiting = self._waiting.get(request_id) if isinstance(request_id, int) else None
        if waiting is None or waiting.done():
            self._log("answered what was not asked, or twice")
            return
        waiting.set_result(answer)

    def _decline(self, request: Request) -> None:
        # No capability was declared, so a server has nothing to ask but whether we are there.
        self._declined += 1
        if self._declined > _MOST_DECLINED:
            return
        with suppress(Unreached):
            if request.method == "ping":
                self._send(encode_response(request.id, b"{}"))
            else:
                self._send(encode_failure(request.id, eras.METHOD_NOT_FOUND, "not offered"))
