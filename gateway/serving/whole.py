"""A whole answer in one step: most answers are known to their last byte before the first one is sent.

The server's own way takes a head and a body apart, and looks at each header field by itself.
"""

from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.edge.reply import Header, lines

_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_CLOSE: Final = b"connection: close\r\n"


class Standing:
    """The server's own header fields as they stand in a head; it makes a new list of them each second."""

    __slots__ = ("_fields", "_lines")

    def __init__(self) -> None:
        """None were seen yet."""
        self._fields: list[Header] | None = None
        self._lines = b""

    def lines(self, fields: list[Header]) -> bytes:
        """These fields as lines."""
        if fields is not self._fields:
            self._fields, self._lines = fields, lines(fields)
        return self._lines


def answer(standing: Standing, cycle: RequestResponseCycle, status: int, headers: bytes, body: bytes) -> bool:
    """Answer the request of ``cycle``; False, and nothing was sent, where that takes the server's own way.

    That is for clients that do not read, requests of which only a head is answered, and statuses without a name.

    Args:
        standing: keeps what the server's own fields are as bytes.
        cycle: a request that was not answered yet.
        status: HTTP status.
        headers: all fields as they stand in a head, the body's length among them; nothing of the connection's own.
        body: the bytes of the body.
    """
    line = _STATUS.get(status)
    if line is None or cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    if not cycle.disconnected:
        close = b"" if cycle.keep_alive else _CLOSE
        own = standing.lines(cycle.default_headers)
        cycle.transport.write(b"%b%b%b%b\r\n%b" % (line, own, headers, close, body))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
    return True
