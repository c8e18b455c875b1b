"""A whole answer in one step: most answers are known to their last byte before the first one is sent.

The server's own way takes a head and a body apart, and looks at each header field by itself.
"""

from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.edge.reply import lines

_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_CLOSE: Final = b"connection: close\r\n"


def answer(cycle: RequestResponseCycle, status: int, headers: bytes, body: bytes) -> bool:
    """Answer the request of ``cycle``; False, and nothing was sent, where that takes the server's own way.

    That is for clients that do not read, requests of which only a head is answered, and statuses without a name.

    Args:
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
        cycle.transport.write(b"%b%b%b%b\r\n%b" % (line, lines(cycle.default_headers), headers, close, body))
        _end(cycle)
    return True


def _end(cycle: RequestResponseCycle) -> None:
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
