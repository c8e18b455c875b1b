"""Connections within bounds: how many there are, how long a request may take to arrive, how large its head may be.

Whoever connects has shown nothing yet. A client that trickles bytes, or opens connections and says nothing, must not
keep out those who have a credential: its head has a deadline and a cap, and where there is no room the oldest
connection that has proven nothing and waits for nothing is closed in favour of the new one.
"""

import asyncio
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.edge.auth import PROVEN
from gateway.edge.body import BODY
from gateway.edge.ears import STOPPING, Stopping
from gateway.edge.heads import FORGET
from gateway.edge.reply import WHOLE
from gateway.serving.corked import Corked
from gateway.serving.cycle import KnownCycle
from gateway.serving.heads import KnownHead, KnownHeads
from gateway.serving.places import Bounds, Places
from gateway.serving.whole import answer

_FIELD_OVERHEAD = 4  # ": " and the line's end
_OF_BODIES = frozenset({b"content-length", b"transfer-encoding"})


class HeadTooLarge(Exception):
    """Stops the parser: request line and header fields are over the cap."""


class UpgradeWithBody(Exception):
    """Stops the parser, which takes what is behind the head of an upgrade for another protocol: also a body."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn's httptools reader, within ``Bounds``."""

    # Beside uvicorn's own attributes, which are then few enough for all connections to share the table of their names.
    __slots__ = (
        "_arriving",
        "_begun",
        "_bounds",
        "_due_s",
        "_has_moved",
        "_has_place",
        "_head_bytes",
        "_idle_since",
        "_in_head",
        "_is_between",
        "_is_reading",
        "_known",
        "_most_head",
        "_owed",
        "_places",
        "_raw_bytes",
    )

    def __init__(self, places: Places, **given: Any) -> None:
        """``given`` is what uvicorn makes a protocol of."""
        super().__init__(**given)
        self._places = places
        self._bounds = places.bounds
        self._most_head = places.bounds.head_bytes
        self._has_place = False
        self._begun: RequestResponseCycle | None = None
        self._arriving: asyncio.TimerHandle | None = None
        self._due_s: float | None = None
        self._is_reading = False
        self._in_head = True
        self._has_moved = False
        self._raw_bytes = 0
        self._head_bytes = 0
        self._known = KnownHeads(self._most_head)
        self._is_between = True
        self._owed = 0
        self._idle_since: float | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a whole request is being worked on."""
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def end(self) -> None:
        """Close without another word; its place is free at once."""
        self._give_back()
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or close. The operator's own socket is for nobody else and always has room."""
        super().connection_made(Corked(transport, self.loop))
        if self.client is not None:
            self._has_place = self._places.take(self, self.client[0])
            if not self._has_place:
                transport.abort()
                return
        self._expect(self._bounds.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._give_back()
        self._expect(None)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self.pipeline and self._begun is not None:  # the server tells the request that came last, and no other one
            self._begun.disconnected = True
            self._begun.message_event.set()
        self._begun = None
        while self.pipeline:  # what was never begun
            cycle, _ = self.pipeline.pop()
            cycle.on_response = _nothing
            _let_go(cycle.scope)
        if self.scope is not None:
            _let_go(self.scope)

    def data_received(self, data: bytes) -> None:
        """Read on; what is no HTTP, or a head over the cap, ends the connection, unlogged: anybody can do it."""
        if self.transport.is_closing():
            return
        self._idle_since = None
        if self._owed:
            data = self._taken(data)
        if not data or (self._is_between and self._is_known(data)):
            return
        self._is_reading = True
        self._has_moved = False
        if self._in_head and self._arriving is None:
            self._expect(self._bounds.head_s)
        try:
            self._read(data)
        except httptools.HttpParserError as error:
            self._refuse(error)
            return
        finally:
            self._is_reading = False
            self._set_timer()
        self._count(len(data))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._is_between = False
        self._head_bytes = self._raw_bytes = 0
        scope: Any = self.scope
        scope |= {PROVEN: self._prove, FORGET: self._known.forget, STOPPING: self._places.stopping}

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header field, or one behind a body in chunks."""
        self._head_bytes = weight = self._head_bytes + len(name) + len(value) + _FIELD_OVERHEAD
        if weight > self._most_head:
            raise HeadTooLarge
        if not self._in_head:  # whoever stands before the gateway and looks at heads has not seen it
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; now the body has its time."""
        if self.parser.should_upgrade() and any(name in _OF_BODIES for name, _ in self.headers):
            raise UpgradeWithBody
        super().on_headers_complete()
        self._in_head = False
        self._has_moved = True
        self._expect(self._bounds.body_s)
        # Its task has not begun yet.
        self.scope[WHOLE] = partial(answer, self._places.standing, self.cycle)  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._has_moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: from here on time is the application's."""
        self._is_between = True
        self._is_whole()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The request is answered: the next one begins, or from now on the connection is idle."""
        if self._known.raw:
            self._known.answered(self.scope)  # type: ignore[arg-type]
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest()

    def _read(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                data = data[asked.args[0] :]  # no upgrade is offered: what stands behind the head is the next request
            else:
                return

    def _is_known(self, data: bytes) -> bool:
        """Begin a request whose head the connection has sent before; the parser is between two and sees none of it."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            return False
        found = self._known.begun(data)
        if found is None or len(found[2]) > int(found[1]):
            return False
        self._begin(*found)
        return True

    def _begin(self, head: KnownHead, length: bytes, body: bytes) -> None:
        own = {
            PROVEN: self._prove,
            FORGET: self._known.forget,
            STOPPING: self._places.stopping,
            "state": self.app_state.copy(),
        }
        scope: Any = head.scope(length, own)
        self.scope, self.headers = scope, scope["headers"]
        self.cycle = cycle = KnownCycle(scope, self)
        scope[WHOLE] = partial(answer, self._places.standing, cycle)
        size = int(length)
        if len(body) == size:
            scope[BODY] = body
            cycle.more_body = False
            if self._arriving is not None or self._due_s is not None:
                self._expect(None)
        else:
            cycle.body = bytearray()
            self._owed = size
            self._in_head = False
            self._expect(self._bounds.body_s)
            self._taken(body)
        self._start_asgi_task(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Nothing stands between the server and the application; what that left undone is seen to at the end.
        self._begun = cycle
        task = self.loop.create_task(app(cycle.scope, cycle.receive, cycle.send))
        self.tasks.add(task)
        task.add_done_callback(partial(self._ended, cycle))

    def _ended(self, cycle: RequestResponseCycle, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        # One that was broken off at the end of a drain is no fault to log.
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.logger.error("a request failed unexpectedly", exc_info=error)
        is_over = cycle.response_complete or cycle.disconnected
        # Who was sent nothing is told so; who was sent a part learns by the end of the connection that this was all.
        if not is_over and not answer(self._places.standing, cycle, *_FAILED):
            self.transport.close()
        cycle.on_response = _nothing  # it holds this connection, which holds it

    def _taken(self, data: bytes) -> bytes:
        """Take what is still to come of a known request's body; what comes behind it."""
        part, rest = data[: self._owed], data[self._owed :]
        self._owed -= len(part)
        if not self.cycle.response_complete:
            self.cycle.body += part
            self.cycle.more_body = self._owed > 0
            self.cycle.message_event.set()
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        if not self._owed:
            self._is_whole()
        return rest

    def _is_whole(self) -> None:
        self._in_head = True
        self._expect(None)
        if self.cycle.response_complete:  # it was answered before its body was there
            self._rest()

    def _prove(self) -> None:
        self._known.is_shown = True
        if self._has_place:  # whom nothing was kept for, or whose place another one has, is not remembered either
            self._places.prove(self)

    def _weigh(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._most_head:
            raise HeadTooLarge

    def _count(self, received: int) -> None:
        # A field that never ends, of a head or behind a body in chunks, is kept by the parser and not told; only the
        # bytes themselves say how long it is.
        if self._has_moved:
            self._raw_bytes = 0
        elif self._arriving is not None:
            self._raw_bytes += received
            if self._raw_bytes > self._most_head:
                self._refuse(None)

    def _refuse(self, error: httptools.HttpParserError | None) -> None:
        self._expect(None)
        if self._is_heard():
            too_large = error is None or isinstance(error.__context__, HeadTooLarge)
            self.transport.write(_TOO_LARGE if too_large else _BAD_REQUEST)
        self.transport.close()

    def _is_heard(self) -> bool:
        """Whether what is said now would be taken for the answer to what is being read, and not to what came before."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or self._in_head:
            return cycle is None or cycle.response_complete
        return not (cycle.response_started or self.pipeline)

    def _expect(self, within_s: float | None) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
        self._due_s = within_s
        if not self._is_reading:
            self._set_timer()

    def _set_timer(self) -> None:
        # Most requests arrive whole in one piece: they need no timer for their head and none for their body.
        if self._due_s is not None and self._arriving is None:
            self._arriving = self.loop.call_later(self._due_s, self._too_slow)

    def _rest(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._be_idle(self.timeout_keep_alive)

    def _be_idle(self, for_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(for_s, self._too_idle)

    def _too_idle(self) -> None:
        # One timer runs for all requests of a busy connection: it is not set anew by each, but asks when it is due.
        self.timeout_keep_alive_task = None
        if self._idle_since is None or not self.cycle.response_complete:  # the answer to what came since sets it again
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0.0:
            self._be_idle(left_s)
        else:
            self.timeout_keep_alive_handler()

    def _too_slow(self) -> None:
        if self.is_answering:  # stray bytes behind a request that is being worked on
            self._expect(self._bounds.head_s)
            return
        self._arriving = None
        self.transport.abort()

    def _give_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._places.leave(self)


_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_FAILED = (500, b"content-length: 21\r\ncontent-type: text/plain; charset=utf-8\r\n", b"Internal Server Error")


def _nothing() -> None:
    """Nothing waits for the end of the answer any more."""


def _let_go(scope: Any) -> None:
    # Each holds its connection, or its request, which holds it.
    scope.pop(PROVEN, None)
    scope.pop(WHOLE, None)


def within(bounds: Bounds, stopping: Stopping | None = None) -> type[asyncio.Protocol]:
    """The protocol class of one server: its connections share ``bounds``; ``stopping`` tells them that it stops."""
    places = Places(bounds, stopping or Stopping())

    class OfOneServer(BoundedProtocol):
        """Shares one server's places."""

        __slots__ = ()

        def __init__(self, **given: Any) -> None:
            super().__init__(places, **given)

    return OfOneServer
