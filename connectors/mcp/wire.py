"""One HTTP/1.1 connection to an upstream, one exchange at a time.

Written for the one thing no client library tells reliably: whether a request can have left. Nothing here retries,
follows, decompresses, remembers cookies or reads the environment. The parser is llhttp's strict one; what an upstream
sends beyond its answer ends the connection, so that no answer can be taken for that of the next request.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final, cast

import httptools

from connectors.mcp import heads
from connectors.mcp.heads import KnownHead
from gateway.core.errors import TooLarge

# What is not body (the head, framing of chunks, trailers) may be this long, and so many times the body besides.
_OVERHEAD_BYTES: Final = 64 * 1024
_OVERHEAD_TIMES: Final = 16
_HELD_BYTES: Final = 256 * 1024
_MAX_INTERIM: Final = 8
# So many heads are looked at for one that comes again; some servers give each answer a number of its own.
_MOST_LOOKED_AT: Final = 16
_INFORMATIONAL, _SWITCHING, _FINAL = 100, 101, 200
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class NotConnected(Exception):
    """There is no connection to send on: nothing was sent."""


class Broken(Exception):
    """The connection ended, or what came over it is no HTTP answer."""


class Response:
    """The answer to the request that was just sent: its head is here, its body may still be coming.

    Attributes:
        wire: the connection it comes over.
        status: HTTP status.
        fields: header fields by their names in lower case, repeated ones joined by commas. All but the length of the
            body: the connection reads it, and answers that differ in nothing else come as the same object.
        has_length: whether it says how long its body is.
        kind: what its body is: a media type in lower case, without parameters; empty where it is not said.
        is_plain: whether its body comes as it is, not packed.
    """

    __slots__ = ("fields", "has_length", "is_plain", "kind", "status", "wire")

    def __init__(self, wire: "Wire", status: int, fields: Mapping[bytes, bytes]) -> None:
        self.wire = wire
        self.status = status
        self.has_length = b"content-length" in fields
        self.fields = {name: value for name, value in fields.items() if name != b"content-length"}
        self.kind = fields.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        self.is_plain = (fields.get(b"content-encoding") or b"identity") == b"identity"

    def field(self, name: bytes) -> str | None:
        """A header field by its name in lower case; None where it is not there."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    async def piece(self) -> bytes | None:
        """What has come of the body, at least a byte of it; None at its end.

        Raises:
            Broken: it ended early.
        """
        return await self.wire.piece()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece as it comes.

        Raises:
            Broken: it ended early.
        """
        while (piece := await self.piece()) is not None:
            yield piece


class Wire(asyncio.Protocol):
    """A connection. Cancelling an exchange, or leaving an answer unread, makes it unfit for another one."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Response | None = None
        self._fields: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._held = self._received = self._body = self._interim = 0
        self._waiter: asyncio.Future[None] | None = None
        self._fault: str | None = None
        self._is_asked = self._is_complete = self._is_kept = self._is_paused = self._is_fed = False
        self._known: tuple[KnownHead, Response] | None = None
        self._looked_at = 0
        self.idle_since = 0.0

    async def ask(self, request: bytes) -> Response:
        """Send one whole request; returns when the head of its answer is here.

        Raises:
            NotConnected: the connection is being closed; nothing was sent.
            Broken: no answer came; the request may have arrived.
        """
        if self._transport is None or not self.is_fit:
            raise NotConnected("the connection is closed or in use")
        self._is_asked = True
        self._transport.write(request)
        if self._is_fed:  # made anew while the request is on its way
            self._parser, self._is_fed = httptools.HttpResponseParser(self), False
        while self._answer is None:
            await self._more()
        return self._answer

    async def piece(self) -> bytes | None:
        """What has come of the answer's body, at least a byte of it; None at its end.

        Raises:
            Broken: it ended early.
        """
        while not self._pieces:
            if self._is_complete:
                return None
            await self._more()
        return self._taken()

    async def rest(self, cap: int) -> bytes:
        """What was not read of the answer's body, once all of it is here.

        Raises:
            Broken: it ended early.
            TooLarge: it has more than ``cap`` bytes.
        """
        whole = self._taken()
        pieces, length = [whole], len(whole)
        while length <= cap:
            if self._is_complete:
                return b"".join(pieces) if len(pieces) > 1 else whole
            await self._more()
            pieces.append(self._taken())
            length += len(pieces[-1])
        raise TooLarge("the answer is too large")

    @property
    def is_fit(self) -> bool:
        """Whether another request may be sent: the last answer was read to its end and both sides keep the line."""
        if self._fault is not None or self._is_asked or self._transport is None:
            return False
        # The other side's end is known a turn before the connection is lost; what is written then goes nowhere.
        return not self._transport.is_closing()

    def settle(self) -> bool:
        """End the exchange; returns whether the connection is fit for another one, and otherwise closes it."""
        transport = self._transport
        keeps = (
            self._is_complete
            and not self._pieces
            and self._fault is None
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
            and self._is_kept
        )
        if not keeps:
            self.close()
            return False
        self._answer = None
        self._held = self._received = self._body = self._interim = 0
        self._is_asked = self._is_complete = self._is_kept = False
        return True

    def close(self) -> None:
        """End the connection at once, and let go of what came over it."""
        self._cut("closed")
        self._pieces.clear()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """What had no length is complete now; everything else is broken."""
        if error is None and self._fault is None and not self._is_complete:
            self._complete_by_end()
        self._end("the connection was closed")
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        if not self._is_asked or self._is_complete:
            self._cut("something came that was not asked for")
            return
        is_first = not self._received
        self._received += len(data)
        known = self._known if is_first else None
        if known is not None and (body := known[0].body_in(data)) is not None:  # what the parser would have done
            self._answer = known[1]
            self._pieces.append(body)
            self._is_complete = self._is_kept = True
            self._looked_at = 0
            self._wake()
            return
        self._is_fed = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, Broken) as error:
            self._cut(str(error) or type(error).__name__)
            return
        if self._received - self._body > _OVERHEAD_BYTES + _OVERHEAD_TIMES * self._body:
            self._cut("the answer's head or framing is too long")
            return
        if self._held > _HELD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if is_first and self._is_kept:
            self._learn(data)
        self._wake()

    # the parser's side

    def on_message_begin(self) -> None:
        """Another head begins: the answer's, or that of an interim one before it."""
        if self._is_complete:
            raise Broken("two answers to one request")
        self._fields = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; those after the body (trailers) are of no use."""
        if self._answer is None:
            name, fields = name.lower(), self._fields
            fields[name] = fields[name] + b", " + value if name in fields else value

    def on_headers_complete(self) -> None:
        """The head is here; that of an interim answer is only counted."""
        status = self._parser.get_status_code()
        if status < _INFORMATIONAL or self._parser.get_http_version() not in _VERSIONS:
            raise Broken("the answer is of no kind this client knows")
        if status == _SWITCHING:
            raise Broken("the server switches protocols unasked")
        if status < _FINAL:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise Broken("too many interim answers")
            return
        self._answer = Response(self, status, self._fields)
        encoding = self._fields.get(b"transfer-encoding")
        if encoding and encoding.lower() != b"chunked":
            raise Broken("the answer is encoded in a way that was not asked for")

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        if self._answer is None:
            raise Broken("an interim answer has no body")
        self._body += len(piece)
        self._held += len(piece)
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one is not the answer."""
        self._is_complete = self._answer is not None
        self._is_kept = self._parser.should_keep_alive()  # asked later, the parser no longer knows

    def _learn(self, data: bytes) -> None:
        if self._answer is not None and self._looked_at < _MOST_LOOKED_AT:
            self._looked_at += 1
            head = heads.known(data, self._fields)
            if head is not None:
                self._known = head, self._answer

    def _taken(self) -> bytes:
        # In one piece: a body in chunks of a byte must not become as many objects.
        pieces, self._pieces = self._pieces, []
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._held = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return piece

    def _more(self) -> asyncio.Future[None]:
        # Done when something has come.
        if self._fault is not None:
            raise Broken(self._fault)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _complete_by_end(self) -> None:
        # llhttp knows whether an answer without a length may end here; httptools has no call for the end of input, and
        # a keep-alive answer is never one of that kind.
        answer = self._answer
        if answer is None or answer.has_length:
            return
        if b"transfer-encoding" not in answer.fields:
            self._is_complete = True

    def _cut(self, why: str) -> None:
        # What came before is still there for whoever is about to read it.
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, why: str) -> None:
        if self._fault is None:
            self._fault = why
        self._wake()
