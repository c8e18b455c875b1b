"""One POST to an MCP endpoint and its answer, as JSON or as an event stream."""

from dataclasses import replace
from itertools import count
from typing import Final

from anyio import sleep

from connectors.mcp import streams
from connectors.mcp.faults import Lost, Parted, Refused, Unreached
from connectors.mcp.messages import Answered, Hearing, Post, Question, header_fields
from connectors.mcp.pool import Pool, Target, Use, target
from connectors.mcp.resuming import LAST_EVENT, Trail
from connectors.mcp.wire import Broken, NotConnected, Response, Wire
from gateway.core.errors import MalformedRequest, TooLarge
from gateway.core.mcpwire import challenges, eras
from gateway.core.mcpwire.jsonrpc import Failure, read_upstream

_REFUSAL_BYTES: Final = 64 * 1024
# What answers a request for a stream is none.
NO_STREAM: Final = "no_stream"
_SESSION: Final = eras.SESSION_HEADER.lower().encode()
_CONTENT_TYPE, _CONTENT_ENCODING, _CHALLENGE = b"content-type", b"content-encoding", b"www-authenticate"
# A gateway or proxy says these when it does not know what became of the request it passed on.
_PASSED_ON: Final = frozenset({502, 504})


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
        trail = Trail(question.cap + streams.BESIDES_BYTES)
        try:
            async with self._sent("POST", question.post, question.use) as answer:
                if question.begun is not None:
                    question.begun(answer.field(_SESSION))
                with _translated():
                    result = await _answer(answer, question, trail)
                return Answered(result, answer.field(_SESSION))
        except Parted:
            if not (question.resumes and trail.last_id):
                raise
        return Answered(await self._resumed(question, trail), None)

    async def _resumed(self, question: Question, trail: Trail) -> bytes:
        # The request has left: whatever goes wrong from here on, its outcome is unknown.
        while True:
            await sleep(trail.pause_s())
            fields = question.post.fields + header_fields([(LAST_EVENT, trail.last_id)])
            try:
                async with self._sent("GET", Post(fields, b"", question.post.connect_s), question.use) as answer:
                    if answer.status != 200 or _kind(answer) != eras.STREAM_TYPE:  # noqa: PLR2004 -- HTTP
                        raise Lost("stream_ended")
                    _plain(answer)
                    trail.opened()
                    with _translated():
                        return await streams.answered(answer, question, trail)
            except Unreached:
                trail.failed()
            except Parted:
                continue

    async def tell(self, post: Post, method: str = "POST") -> int:
        """Send what is owed no answer; returns the HTTP status.

        Raises:
            Unreached: no connection was made.
            Lost: the connection broke.
        """
        async with self._sent(method, post, Use.TELL) as answer:
            return answer.status

    async def listen(self, post: Post, hearing: Hearing) -> None:
        """Hold a stream on which nothing is asked (GET), until the server ends it.

        Raises:
            Unreached: no connection was made.
            Refused: the server has no such stream, or not for this session.
            Lost: anything else, but its regular end.
        """
        async with self._sent("GET", post, Use.STAND) as answer:
            if answer.status != 200:  # noqa: PLR2004 -- HTTP
                raise Refused(f"http_{answer.status}", status=answer.status)
            if _kind(answer) != eras.STREAM_TYPE:
                raise Lost(NO_STREAM)
            await hearing.opened()
            with _translated():
                await streams.heard(answer, hearing)

    def _sent(self, method: str, post: Post, use: Use) -> "_Exchange":
        at = self._target if use is Use.ASK else replace(self._target, use=use)
        return _Exchange(self._pool, at, self._request(method, post), post.connect_s)

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


class _translated:  # noqa: N801 -- a bracket, and cheaper than a generator's
    """What is wrong with an answer, as a fault."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Broken):
            raise Lost("connection_lost") from error
        if isinstance(error, TooLarge):
            raise Lost("output_too_large") from error
        if isinstance(error, MalformedRequest):
            raise Lost("garbage") from error


def _kind(answer: Response) -> str:
    return (answer.field(_CONTENT_TYPE) or "").partition(";")[0].strip().lower()


def _plain(answer: Response) -> None:
    if (answer.field(_CONTENT_ENCODING) or "identity") != "identity":
        raise Lost("content_encoding")  # not asked for; unpacking could be made to take any amount of memory


async def _answer(answer: Response, question: Question, trail: Trail) -> bytes:
    status, kind = answer.status, _kind(answer)
    if status >= 300:  # noqa: PLR2004 -- HTTP
        raise await _refusal(answer, kind, question.id)
    _plain(answer)
    if kind == eras.STREAM_TYPE:
        return await streams.answered(answer, question, trail)
    if kind != eras.JSON_TYPE or status != 200:  # noqa: PLR2004 -- 202 and 204 say that no answer will come
        raise Lost("no_answer")
    message = read_upstream(await _body(answer, question.cap + streams.ENVELOPE_BYTES))
    result = streams.mine(message, question.id)
    if result is None:
        raise Lost("garbage")
    return result


async def _refusal(answer: Response, kind: str, request_id: int) -> Refused | Lost:
    status = answer.status
    if status < 400:  # noqa: PLR2004 -- HTTP
        return Refused("redirect", status=status)
    further = challenges.further((answer.field(_CHALLENGE) or "",)) if status == 403 else ()  # noqa: PLR2004
    if further:
        refusal = Refused(challenges.INSUFFICIENT_SCOPE, status=status)
        refusal.further = further
        return refusal
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
    pieces, length = list[bytes](), 0
    while (piece := await answer.piece()) is not None:
        length += len(piece)
        if length > cap:
            raise TooLarge("the answer is too large")
        pieces.append(piece)
    return b"".join(pieces)
