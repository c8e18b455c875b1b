"""The answer to one MCP request: one JSON document, or from the first notice on an event stream that ends with it.

Nothing is kept here: whoever has something to say waits until the client has room for it. A client that does not read
for a while hears no more notices, only the answer.
"""

from anyio import move_on_after
from starlette.types import Send

from gateway.core.mcpwire import eras, sse
from gateway.edge.heads import Head, says
from gateway.edge.reply import Hardened, Header, Reply

STALL_S = 5.0
_RANGES = (b"text/event-stream", b"text/*", b"*/*")
_HEADERS: tuple[Header, ...] = (
    (b"content-type", eras.STREAM_TYPE.encode()),
    # A proxy must not gather events before it passes them on.
    (b"x-accel-buffering", b"no"),
)


class Stream:
    """One answer on its way.

    Attributes:
        is_heard: whether its client takes what is sent ahead of it.
        own: the header fields of an event stream, besides those that each has.
    """

    __slots__ = ("_begun", "_send", "_stall_s", "is_heard", "own")

    def __init__(self, head: Head, send: Send, own: tuple[Header, ...], stall_s: float = STALL_S) -> None:
        """``own`` are header fields of an event stream; ``stall_s`` is how long a client may leave one unread."""
        self._send = send
        self.own = own
        self._stall_s = stall_s
        self._begun = False
        if head.hears is None:
            head.hears = says(head.fields.get(b"accept", ()), _RANGES)
        self.is_heard = head.hears

    async def event(self, message: bytes) -> None:
        """Send a message ahead of the answer, unless the client takes no streams or does not read."""
        if not self.is_heard:
            return
        with move_on_after(self._stall_s) as patience:
            if not self._begun:
                await self._send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *self.own]})
                self._begun = True
            await self._send({"type": "http.response.body", "body": sse.encode(message), "more_body": True})
        self.is_heard = not patience.cancelled_caught

    def at_once(self, answer: Reply) -> bool:
        """Send the answer in one step; False, and nothing was sent, where there is none or it has begun."""
        is_whole = type(answer) is Reply and not self._begun  # a reply of another type sends itself, piece by piece
        return is_whole and isinstance(self._send, Hardened) and self._send.at_once(answer)

    async def finish(self, answer: Reply) -> None:
        """Send the answer, and nothing after it."""
        if self._begun:
            await self._send({"type": "http.response.body", "body": sse.encode(answer.body)})
        else:
            await answer.send(self._send)
