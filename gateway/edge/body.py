"""Reading a request body within bounds, and refusing what is not plain JSON before reading it.

A large body is parsed in a thread: parsing is pure work of up to some hundred milliseconds, and the event loop belongs
to everybody. One is parsed at a time: more would not be faster in one interpreter, and a flood of them waits in line.
"""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, fail_after, to_thread
from starlette.types import Receive, Scope

from gateway.core.errors import MalformedRequest, TooLarge
from gateway.edge.faults import ClientGone, NotAcceptable, UnsupportedMediaType
from gateway.edge.heads import LENGTH, Head, head_of, headers, says
from gateway.edge.reply import JSON

T = TypeVar("T")
# In the ASGI scope, the whole body, where the server has it already; it is then told nowhere else.
BODY = "ostiary.body"
MAX_BODY = 512 * 1024
_LARGE = 32 * 1024
_AT_A_TIME = 1
# A body that takes longer is a client holding a place, not one sending a request.
_PATIENCE_S = 30.0
_PLAIN = (b"identity",)
_MOST_DIGITS = 12  # of a length that is read at all
_JSON_RANGES = (JSON, b"application/*", b"*/*")


def check_media(scope: Scope) -> None:
    """Refuse a body that is not said to be uncompressed ``application/json``.

    Raises:
        UnsupportedMediaType: it is something else.
    """
    found = head_of(scope).fields
    media = found.get(b"content-type", ())
    if len(media) != 1 or not (media[0] == JSON or media[0].split(b";", 1)[0].strip().lower() == JSON):
        raise UnsupportedMediaType("the body must be application/json")
    if found.get(b"content-encoding", _PLAIN)[0] != b"identity":
        raise UnsupportedMediaType("the body must not be compressed")


def check_accept(scope: Scope) -> None:
    """Refuse a client that says it takes no JSON. Saying nothing is taking anything.

    Raises:
        NotAcceptable: JSON is not among what it takes.
    """
    accepted = headers(scope, b"accept")
    if accepted and not says(accepted, _JSON_RANGES):
        raise NotAcceptable("answers are application/json")


def check_types(scope: Scope, head: Head) -> None:
    """Both, of a request with this head, which may have passed before.

    Raises:
        UnsupportedMediaType, NotAcceptable: as above.
    """
    if not head.is_json:
        check_media(scope)
        check_accept(scope)
        head.is_json = True


def at_hand(scope: Scope, limit: int = MAX_BODY) -> bytes | None:
    """The whole body, at most ``limit`` bytes, where it came with its head; None = it is still to be read.

    Raises:
        TooLarge: longer.
    """
    body: bytes | None = scope.pop(BODY, None)
    if body is not None and len(body) > limit:
        raise _too_large(limit)
    return body


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY) -> bytes:
    """The whole body, at most ``limit`` bytes; it is counted while it streams.

    Raises:
        TooLarge: longer, by its header or in fact.
        MalformedRequest: not sent in time.
        ClientGone: the client left.
    """
    body = at_hand(scope, limit)
    if body is not None:
        return body
    _check_length(scope, limit)  # who says so first is told before it sends anything
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > limit:
            raise _too_large(limit)
        return first
    try:
        with fail_after(_PATIENCE_S):
            return await _rest(first, receive, limit)
    except TimeoutError:
        raise MalformedRequest("the body did not arrive in time", cause_code="slow_body") from None


class Workbench:
    """Where bodies are taken apart: small ones at once, large ones in a thread."""

    def __init__(self) -> None:
        """No thread is started before it is needed."""
        self._limiter = CapacityLimiter(_AT_A_TIME)

    async def work(self, body: bytes, take_apart: Callable[[bytes], T]) -> T:
        """What ``take_apart`` makes of ``body``; it must be pure.

        Raises:
            Exception: as ``take_apart`` does.
        """
        if len(body) <= _LARGE:
            return take_apart(body)
        return await to_thread.run_sync(take_apart, body, limiter=self._limiter)


async def _rest(first: bytes, receive: Receive, limit: int) -> bytes:
    body, more = bytearray(first), True
    while more:
        if len(body) > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


def _check_length(scope: Scope, limit: int) -> None:
    declared = next((value for name, value in scope["headers"] if name == LENGTH), b"")
    if declared.isdigit() and (len(declared) > _MOST_DIGITS or int(declared) > limit):
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is longer than {limit} bytes", cause_code="body")
