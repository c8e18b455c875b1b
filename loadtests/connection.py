"""One connection of a load client: HTTP/1.1, kept alive."""

import asyncio
from typing import Final, cast

import httptools

ANSWER_DEADLINE_S: Final = 20.0


class WrongAnswerError(Exception):
    """An answer that is not the right result of the call; the run is void."""


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with one request under way at a time."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self.status = 0
        self.session: str | None = None
        self._body: list[bytes] = []
        self._parser: httptools.HttpResponseParser
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that goes away under a call voids the run."""
        self._fail(f"the connection was closed: {exc}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the session id."""
        if name.lower() == b"mcp-session-id":
            self.session = value.decode("ascii")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer to who waits for it."""
        self.status = self._parser.get_status_code()
        body = b"".join(self._body)
        self._body.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(body)

    def send(self, request: bytes) -> None:
        """Send a whole request; who is told of its answer, a subclass says."""
        self._transport.write(request)

    async def exchange(self, head: bytes, body: bytes) -> bytes:
        """Send one request; the answer's body.

        Raises:
            WrongAnswerError: the connection broke, or nothing came in time.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(head % len(body) + body)
        return await self._waiter

    def expire(self) -> None:
        """Void the run: the answer is too late."""
        self._fail(f"no answer in {ANSWER_DEADLINE_S} s")

    def close(self) -> None:
        """Hang up; nothing is under way any more."""
        self._waiter = None
        self._transport.close()

    def _fail(self, reason: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(WrongAnswerError(reason))
