"""A whole answer in one step: most answers are known to their last byte before the first one is sent.

The server's own way takes a head and a body apart, and looks at each header field by itself.
"""

import re
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.edge.reply import Header

# What ends a field, or stands in none. Whatever wrote it into a value would write the rest of the head.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_CLOSE: Final = b"connection: close\r\n"


def answer(cycle: RequestResponseCycle, status: int, headers: list[Header], body: bytes) -> bool:
    """Answer the request of ``cycle``; False, and nothing was sent, where that takes the server's own way.

    That is for clients that do not read, requests of which only a head is answered, statuses without a name, and bodies
    whose length the head does not say.

    Args:
        cycle: a request that was not answered yet.
        status: HTTP status.
        headers: all fields; nothing of the connection's own.
        body: the bytes of the body.

    Raises:
        ValueError: a header field would not be one.
    """
    line = _STATUS.get(status)
    if line is None or cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    if (b"content-length", b"%d" % len(body)) not in headers:
        return False
    if not cycle.disconnected:
        fields = [b"%b: %b" % field for field in (*cycle.default_headers, *headers)]
        if _CONTROL.search(b" ".join(fields)) is not None:
            raise ValueError("a header field holds a control character")
        end = b"\r\n\r\n" if cycle.keep_alive else b"\r\n%b\r\n" % _CLOSE
        cycle.transport.write(b"%b%b%b%b" % (line, b"\r\n".join(fields), end, body))
        _end(cycle)
    return True


def _end(cycle: RequestResponseCycle) -> None:
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
