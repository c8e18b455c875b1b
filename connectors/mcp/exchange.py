"""One POST to an MCP endpoint and its answer, as JSON or as an event stream."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from anyio import current_time, move_on_after

from connectors.mcp.allowance import Allowance
from connectors.mcp.faults import Lost, Refused, Unprepared, Unreached
from connectors.mcp.pool import Pool, Target, target
from connectors.mcp.wire import Broken, NotConnected, Response, Wire
from gateway.core.errors import MalformedRequest, TooLarge
from gateway.core.mcpwire import eras, sse
from gateway.core.mcpwire.jsonrpc import Failure, Notification, Reply, Request, UpstreamMessage, read_upstream

Header = tuple[str, str]
# An envelope is a little larger than the result in it.
_ENVELOPE_BYTES: Final = 4096
# An event stream may be this much longer than the result in it: one of small events that never ends would keep the loop
# busy for as long as its call may take.
_BESIDES_BYTES: Final = 8 * 1024 * 1024
_REFUSAL_BYTES: Final = 64 * 1024
# What answers a request for a stream is none.
NO_STREAM: Final = "no_stream"
# Requests that a server may make on one stream within a minute: each costs one of ours, and a long call may be pinged.
_MOST_ASKED: Final = 16
# A server closes the stream after its answer; waiting this long for it saves the connection for the next call.
_LINGER_S: Final = 0.02
_SESSION: Final = eras.SESSION_HEADER.lower().encode()
_CONTENT_TYPE, _CONTENT_ENCODING = b"content-type", b"content-encoding"
# A gateway or proxy says these when it does not know what became of the request it passed on.
_PASSED_ON: Final = frozenset({502, 504})
# A field that could be read as two by anyone would let one caller's value speak for the gateway.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")


def header_fields(headers: Sequence[Header]) -> str:
    """Header fields as they are sent; all but those that say where to, how long and in which encoding.

    Raises:
        Unprepared: a name or value that is none.
    """
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Unprepared("header_field")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


@dataclass(frozen=True, slots=True)
class Post:
    """One message to send.

    Attributes:
        fields: the header fields, as ``header_fields`` writes them.
        body: JSON text.
        connect_s: longest a connection may take, seconds.
    """

    fields: str
    body: bytes
    connect_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is owed an answer.

    Attributes:
        post: the message.
        id: its JSON-RPC id; the answer must repeat it.
        cap: most bytes of the result.
        decline: called with each request the server makes in the answer's stream; None where it may make none.
        hear: called with each notification in that stream; the stream is read on when it returns.
        begun: called with the session id in the head of the answer, before anything of its body is read.
    """

    post: Post
    id: int
    cap: int
    decline: Callable[[Request], Awaitable[None]] | None = None
    hear: Callable[[Notification], Awaitable[None]] | None = None
    begun: Callable[[str | None], None] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A good answer: the result's JSON text and the session id the response carried."""

    result: bytes
    session: str | None


@dataclass(frozen=True, slots=True)
class Hearing:
    """Who hears what a server says on a stream on which nothing was asked.

    Attributes:
        opened: called once the server has begun to answer.
        hear: called with each notification; the stream is read on when it returns.
        decline: called with each request the server makes there.
    """

    opened: Callable[[], Awaitable[None]]
    hear: Callable[[Notification], Awaitable[None]]
    decline: Callable[[Request], Awaitable[None]] | None = None


class Endpoint:
    """One URL. Failure mode: every fault is ``Unreached``, ``Refused`` or ``Lost``; nothing is ever sent twice."""

    def __init__(self, url: str, pool: Pool) -> None:
        """Raises: ValueError: ``url`` is no endpoint."""
        self._target = target(url)
        self._pool = pool
        self._ids = count(1)
        self._line = f" {self._target.path} HTTP/1.1\r\nhost: {self._target.authority}\r\n"

    def next_id(self) -> int:
        """A JSON-RPC id that was not used here before: a late or replayed answer can match no other request."""
        return next(self._ids)

    async def ask(self, question: Question) -> Answered:
        """Send a request and read its answer.

        Raises:
            Unreached: no connection was made.
            Refused: a JSON-RPC error, an HTTP error or a redirect.
            Lost: anything else.
        """
        async with self._sent("POST", question.post) as answer:
            if question.begun is not None:
                question.begun(answer.field(_SESSION))
            try:
                result = await _answer(answer, question)
            except Broken as error:
                raise Lost("connection_lost") from error
            except TooLarge as error:
                raise Lost("output_too_large") from error
            except MalformedRequest as error:
                raise Lost("garbage") from error
            return Answered(result, answer.field(_SESSION))

    async def tell(self, post: Post, method: str = "POST") -> int:
        """Send what is owed no answer; returns the HTTP status.

        Raises:
            Unreached: no connection was made.
            Lost: the connection broke.
        """
        async with self._sent(method, post) as answer:
            return answer.status

    async def listen(self, post: Post, hearing: Hearing) -> None:
        """Hold a stream on which nothing is asked (GET), until the server ends it.

        Raises:
            Unreached: no connection was made.
            Refused: the server has no such stream, or not for this session.
            Lost: anything else, but its regular end.
        """
        async with self._sent("GET", post) as answer:
            if answer.status != 200:  # noqa: PLR2004 -- HTTP
                raise Refused(f"http_{answer.status}", status=answer.status)
            if (answer.field(_CONTENT_TYPE) or "").partition(";")[0].strip().lower() != eras.STREAM_TYPE:
                raise Lost(NO_STREAM)
            await hearing.opened()
            try:
                await _heard(answer, hearing)
            except Broken as error:
                raise Lost("connection_lost") from error
            except TooLarge as error:
                raise Lost("output_too_large") from error
            except MalformedRequest as error:
                raise Lost("garbage") from error

    def _sent(self, method: str, post: Post) -> "_Exchange":
        return _Exchange(self._pool, self._target, self._request(method, post), post.connect_s)

    def _request(self, method: str, post: Post) -> bytes:
        head = f"{method}{self._line}{post.fields}content-length: {len(post.body)}\r\n\r\n"
        return head.encode("ascii") + post.body


class _Exchange:
    """A request on its connection; leaving the bracket gives the connection back, or closes it where it is not fit."""

    __slots__ = ("_pool", "_request", "_target", "_wire", "_within_s")

    def __init__(self, pool: Pool, at: Target, request: bytes, within_s: float) -> None:
        self._pool = pool
        self._target = at
        self._request = request
        self._within_s = within_s
        self._wire: Wire | None = None

    async def __aenter__(self) -> Response:
        try:
            self._wire = await self._pool.take(self._target, self._within_s)
        except NotConnected as error:
            raise Unreached("connect") from error
        try:
            return await self._wire.ask(self._request)
        except NotConnected as error:
            self._leave()
            raise Unreached("connect") from error
        except Broken as error:
            self._leave()
            raise Lost("connection_lost") from error
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._wire is not None:
            self._pool.give(self._target, self._wire)
            self._wire = None


async def _answer(answer: Response, question: Question) -> bytes:
    status, kind = answer.status, (answer.field(_CONTENT_TYPE) or "").partition(";")[0].strip().lower()
    if status >= 300:  # noqa: PLR2004 -- HTTP
        raise await _refusal(answer, kind, question.id)
    if (answer.field(_CONTENT_ENCODING) or "identity") != "identity":
        raise Lost("content_encoding")  # not asked for; unpacking could be made to take any amount of memory
    if kind == eras.STREAM_TYPE:
        return await _from_stream(answer, question)
    if kind != eras.JSON_TYPE or status != 200:  # noqa: PLR2004 -- 202 and 204 say that no answer will come
        raise Lost("no_answer")
    message = read_upstream(await _body(answer, question.cap + _ENVELOPE_BYTES))
    result = _mine(message, question.id)
    if result is None:
        raise Lost("garbage")
    return result


async def _refusal(answer: Response, kind: str, request_id: int) -> Refused | Lost:
    status = answer.status
    if status < 400:  # noqa: PLR2004 -- HTTP
        return Refused("redirect", status=status)
    failure = await _error_of(answer) if kind == eras.JSON_TYPE else None
    if failure is None:
        return Lost(f"http_{status}") if status in _PASSED_ON else Refused(f"http_{status}", status=status)
    return Refused.by(failure, request_id, status=status)


async def _error_of(answer: Response) -> Failure | None:
    try:
        message = read_upstream(await _body(answer, _REFUSAL_BYTES))
    except (MalformedRequest, TooLarge, Broken):
        return None
    return message if isinstance(message, Failure) else None


async def _body(answer: Response, cap: int) -> bytes:
    body = bytearray()
    async for chunk in answer.chunks():
        body += chunk
        if len(body) > cap:
            raise TooLarge("the answer is too large")
    return bytes(body)


async def _from_stream(answer: Response, question: Question) -> bytes:
    decoder, asked = sse.Decoder(question.cap + _ENVELOPE_BYTES), Allowance(_MOST_ASKED)
    async with aclosing(_bounded(answer.chunks(), question.cap + _BESIDES_BYTES)) as chunks:
        async for chunk in chunks:
            for event in decoder.feed(chunk):
                if event.name != "message":
                    continue
                message = read_upstream(event.data)
                if isinstance(message, Notification) and question.hear is not None:
                    await question.hear(message)
                if isinstance(message, Request):
                    await _decline(question, message, asked)
                result = _mine(message, question.id)
                if result is not None:
                    await _linger(chunks)
                    return result
    raise Lost("stream_ended")


async def _heard(answer: Response, hearing: Hearing) -> None:
    decoder, asked = sse.Decoder(_REFUSAL_BYTES), Allowance(_MOST_ASKED)
    async with aclosing(_bounded(answer.chunks(), _BESIDES_BYTES)) as chunks:
        async for chunk in chunks:
            for event in decoder.feed(chunk):
                message = read_upstream(event.data) if event.name == "message" else None
                if isinstance(message, Notification):
                    await hearing.hear(message)
                if isinstance(message, Request):
                    await _decline(hearing, message, asked)


async def _bounded(chunks: AsyncIterator[bytes], room: int) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise TooLarge("the stream does not end")
        yield chunk


async def _decline(question: Question | Hearing, request: Request, asked: Allowance) -> None:
    if question.decline is None or not asked.takes(current_time()):
        raise Lost("server_request")
    await question.decline(request)


async def _linger(chunks: AsyncIterator[bytes]) -> None:
    # The answer is here and good, however the stream ends; a connection that ends badly is not kept.
    with suppress(Broken), move_on_after(_LINGER_S):
        # More than a little after the answer is not a stream that is about to end.
        for _ in range(4):
            if await anext(chunks, None) is None:
                return


def _mine(message: UpstreamMessage, request_id: int) -> bytes | None:
    """The result in a message, None where it is no answer."""
    if isinstance(message, Reply):
        if message.id != request_id:
            raise Lost("wrong_id")
        return message.result
    if isinstance(message, Failure):
        # No id means that the server could not read it; another id means that it answers somebody else.
        if message.id not in {None, request_id}:
            raise Lost("wrong_id")
        raise Refused.by(message, request_id)
    return None
