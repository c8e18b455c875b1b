"""Reading a request body within bounds, and refusing what is not plain JSON before reading it."""

from anyio import fail_after
from starlette.types import Receive, Scope

from gateway.core.errors import MalformedRequest, TooLarge
from gateway.edge.faults import ClientGone, NotAcceptable, UnsupportedMediaType
from gateway.edge.reply import header, headers

MAX_BODY = 4 * 1024 * 1024
# A body that takes longer is a client holding a place, not one sending a request.
_PATIENCE_S = 30.0
_JSON_RANGES = (b"application/json", b"application/*", b"*/*")


def check_media(scope: Scope) -> None:
    """Refuse a body that is not said to be uncompressed ``application/json``.

    Raises:
        UnsupportedMediaType: it is something else.
    """
    media = headers(scope, b"content-type")
    if len(media) != 1 or media[0].split(b";", 1)[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType("the body must be application/json")
    if header(scope, b"content-encoding") not in {None, b"identity"}:
        raise UnsupportedMediaType("the body must not be compressed")


def check_accept(scope: Scope) -> None:
    """Refuse a client that says it takes no JSON. Saying nothing is taking anything.

    Raises:
        NotAcceptable: JSON is not among what it takes.
    """
    accepted = headers(scope, b"accept")
    if accepted and not any(part in field.lower() for field in accepted for part in _JSON_RANGES):
        raise NotAcceptable("answers are application/json")


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY) -> bytes:
    """The whole body, at most ``limit`` bytes; it is counted while it streams.

    Raises:
        TooLarge: longer, by its header or in fact.
        MalformedRequest: not sent in time.
        ClientGone: the client left.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > len(str(limit)) or int(declared) > limit):
        raise _too_large(limit)
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


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is longer than {limit} bytes", cause_code="body")
