"""One POST to an MCP endpoint and its answer, as JSON or as an event stream.

On aiohttp itself: an httpx client over it costs more than twice the CPU of a call, and its errors no longer tell a
connection that was never made from one that broke after the request was written.
"""

import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Final

import aiohttp
from anyio import move_on_after
from yarl import URL

from connectors.mcp.faults import Lost, Refused, Unreached
from gateway.core.errors import MalformedRequest, TooLarge
from gateway.core.mcpwire import eras, sse
from gateway.core.mcpwire.jsonrpc import Failure, Reply, Request, UpstreamMessage, read_upstream

Header = tuple[str, str]
# An envelope is a little larger than the result in it.
_ENVELOPE_BYTES: Final = 4096
_REFUSAL_BYTES: Final = 64 * 1024
_ONE_PIECE_BYTES: Final = 256 * 1024
_MAX_SERVER_REQUESTS: Final = 16
# A server closes the stream after its answer; waiting this long for it saves the connection for the next call.
_LINGER_S: Final = 0.02
# A gateway or proxy says these when it does not know what became of the request it passed on.
_PASSED_ON: Final = frozenset({502, 504})
# By allow-list: of these alone it is certain that no connection was made.
_NEVER_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_BROKEN: Final = (aiohttp.ClientError, OSError)


def open_session(max_connections: int = 256) -> aiohttp.ClientSession:
    """The client to share between all upstreams of a process, never one per call; close it with ``close``.

    It keeps no cookies, which would carry one caller's session to the next, and takes neither proxies nor passwords
    from the environment.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


@dataclass(frozen=True, slots=True)
class Post:
    """One message to send.

    Attributes:
        headers: all header fields but Host and Content-Length.
        body: JSON text.
        connect_s: longest a connection may take, seconds.
    """

    headers: Sequence[Header]
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
    """

    post: Post
    id: int
    cap: int
    decline: Callable[[Request], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A good answer: the result's JSON text and the session id the response carried."""

    result: bytes
    session: str | None


class Endpoint:
    """One URL. Failure mode: every fault is ``Unreached``, ``Refused`` or ``Lost``; nothing is ever sent twice."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self._url = URL(url)
        self._client = client
        self._ids = count(1)

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
        async with self._sent("POST", question.post) as response:
            try:
                result = await _answer(response, question)
            except _BROKEN as error:
                raise Lost("connection_lost") from error
            except TooLarge as error:
                raise Lost("output_too_large") from error
            except MalformedRequest as error:
                raise Lost("garbage") from error
            return Answered(result, response.headers.get(eras.SESSION_HEADER))

    async def tell(self, post: Post, method: str = "POST") -> int:
        """Send what is owed no answer; returns the HTTP status.

        Raises:
            Unreached: no connection was made.
            Lost: the connection broke.
        """
        async with self._sent(method, post) as response:
            return response.status

    @asynccontextmanager
    async def _sent(self, method: str, post: Post) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, connect=post.connect_s)
        # A large body is written piece by piece, so that other calls get their turn.
        data = post.body if len(post.body) <= _ONE_PIECE_BYTES else io.BytesIO(post.body)
        try:
            response = await self._client.request(
                method, self._url, data=data, headers=post.headers, timeout=timeout, allow_redirects=False
            )
        except _NEVER_CONNECTED as error:
            raise Unreached("connect") from error
        except _BROKEN as error:
            raise Lost("connection_lost") from error
        try:
            async with response:
                yield response
        except _BROKEN as error:
            raise Lost("connection_lost") from error


async def _answer(response: aiohttp.ClientResponse, question: Question) -> bytes:
    status, kind = response.status, response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status >= 300:  # noqa: PLR2004 -- HTTP
        raise await _refusal(response, kind, question.id)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Lost("content_encoding")  # not asked for; unpacking could be made to take any amount of memory
    if kind == eras.STREAM_TYPE:
        return await _from_stream(response, question)
    if kind != eras.JSON_TYPE or status != 200:  # noqa: PLR2004 -- 202 and 204 say that no answer will come
        raise Lost("no_answer")
    message = read_upstream(await _body(response, question.cap + _ENVELOPE_BYTES))
    result = _mine(message, question.id)
    if result is None:
        raise Lost("garbage")
    return result


async def _refusal(response: aiohttp.ClientResponse, kind: str, request_id: int) -> Refused | Lost:
    status = response.status
    if status < 400:  # noqa: PLR2004 -- HTTP
        return Refused("redirect", status=status)
    failure = await _error_of(response) if kind == eras.JSON_TYPE else None
    if failure is None:
        return Lost(f"http_{status}") if status in _PASSED_ON else Refused(f"http_{status}", status=status)
    return Refused.by(failure, request_id, status=status)


async def _error_of(response: aiohttp.ClientResponse) -> Failure | None:
    try:
        message = read_upstream(await _body(response, _REFUSAL_BYTES))
    except (MalformedRequest, TooLarge, *_BROKEN):
        return None
    return message if isinstance(message, Failure) else None


async def _body(response: aiohttp.ClientResponse, cap: int) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > cap:
            raise TooLarge("the answer is too large")
        chunks.append(chunk)
    return b"".join(chunks)


async def _from_stream(response: aiohttp.ClientResponse, question: Question) -> bytes:
    decoder, asked = sse.Decoder(question.cap + _ENVELOPE_BYTES), 0
    async with aclosing(_chunks(response)) as chunks:
        async for chunk in chunks:
            for event in decoder.feed(chunk):
                if event.name != "message":
                    continue
                message = read_upstream(event.data)
                if isinstance(message, Request):
                    asked += 1
                    await _decline(question, message, asked)
                result = _mine(message, question.id)
                if result is not None:
                    await _linger(chunks)
                    return result
    raise Lost("stream_ended")


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    async for chunk in response.content.iter_any():
        yield chunk


async def _decline(question: Question, request: Request, asked: int) -> None:
    # Bounded: each one costs a request of ours.
    if question.decline is None or asked > _MAX_SERVER_REQUESTS:
        raise Lost("server_request")
    await question.decline(request)


async def _linger(chunks: AsyncIterator[bytes]) -> None:
    with move_on_after(_LINGER_S):
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
