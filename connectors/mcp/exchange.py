"""One POST to an MCP endpoint and its answer, as JSON or as an event stream."""

from dataclasses import replace
from itertools import count
from typing import Final

from anyio import sleep

from connectors.mcp import streams
from connectors.mcp.faults import Fault, Lost, Parted, Refused, Unreached
from connectors.mcp.messages import Hearing, Post, Question, header_fields
from connectors.mcp.pool import Line, Pool, Use, target
from connectors.mcp.resuming import LAST_EVENT, Trail
from connectors.mcp.wire import Broken, NotConnected, Response
from gateway.core.errors import MalformedRequest, TooLarge
from gateway.core.mcpwire import challenges, eras
from gateway.core.mcpwire.jsonrpc import Failure, read_upstream, result_in

_REFUSAL_BYTES: Final = 64 * 1024
# What answers a request for a stream is none.
NO_STREAM: Final = "no_stream"
_SESSION: Final = eras.SESSION_HEADER.lower().encode()
# What was not asked for; unpacking could be made to take any amount of memory.
_PACKED: Final = "content_encoding"
_CHALLENGE: Final = b"www-authenticate"
# A gateway or proxy says these when it does not know what became of the request it passed on.
_PASSED_ON: Final = frozenset({502, 504})


class Endpoint:
    """One URL. Failure mode: every fault is ``Unreached``, ``Refused`` or ``Lost``; nothing is ever sent twice.

    Attributes:
        next_id: gives a JSON-RPC id that was not used here before: a late or replayed answer can match no other.
    """

    def __init__(self, url: str, pool: Pool) -> None:
        """Raises: ValueError: ``url`` is no endpoint."""
        at = target(url)
        self._lines = {use: pool.line(replace(at, use=use)) for use in Use}
        self._pool = pool
        self.next_id = count(1).__next__
        self._said = f" {at.path} HTTP/1.1\r\nhost: {at.authority}\r\n"

    async def ask(self, question: Question) -> bytes:
        """Send a request and read its answer; returns the result's JSON text.

        Raises:
            Unreached: no connection was made.
            Refused: a JSON-RPC error, an HTTP error or a redirect.
            Lost: anything else.
        """
        trail = None
        line = self._lines[question.use]
        answer = await self._sent("POST", question, line)
        try:
            if question.begun is not None:
                question.begun(answer.field(_SESSION))
            if answer.kind != eras.STREAM_TYPE or answer.status >= 300:  # noqa: PLR2004 -- HTTP
                return await _answer(answer, question)
            _check_plain(answer)
            trail = Trail(question.cap + streams.BESIDES_BYTES)
            return await streams.answered(answer, question, trail)
        except Parted:
            if trail is None or not (question.resumes and trail.last_id):
                raise
        except _UNUSABLE as error:
            raise _fault(error) from error
        finally:
            self._pool.give(line, answer.wire)
        return await self._resumed(question, trail)

    async def _resumed(self, question: Question, trail: Trail) -> bytes:
        # The request has left: whatever goes wrong from here on, its outcome is unknown.
        while True:
            await sleep(trail.pause_s())
            fields = question.fields + header_fields([(LAST_EVENT, trail.last_id)])
            try:
                return await self._gone_on(Post(fields, b"", question.connect_s), question, trail)
            except Unreached:
                trail.failed()
            except Parted:
                continue

    async def _gone_on(self, post: Post, question: Question, trail: Trail) -> bytes:
        line = self._lines[question.use]
        answer = await self._sent("GET", post, line)
        try:
            if answer.status != 200 or answer.kind != eras.STREAM_TYPE:  # noqa: PLR2004 -- HTTP
                raise Lost("stream_ended")
            _check_plain(answer)
            trail.opened()
            return await streams.answered(answer, question, trail)
        except _UNUSABLE as error:
            raise _fault(error) from error
        finally:
            self._pool.give(line, answer.wire)

    async def tell(self, post: Post, method: str = "POST") -> int:
        """Send what is owed no answer; returns the HTTP status.

        Raises:
            Unreached: no connection was made.
            Lost: the connection broke.
        """
        line = self._lines[Use.TELL]
        answer = await self._sent(method, post, line)
        self._pool.give(line, answer.wire)
        return answer.status

    async def listen(self, post: Post, hearing: Hearing) -> None:
        """Hold a stream on which nothing is asked (GET), until the server ends it.

        Raises:
            Unreached: no connection was made.
            Refused: the server has no such stream, or not for this session.
            Lost: anything else, but its regular end.
        """
        line = self._lines[Use.STAND]
        answer = await self._sent("GET", post, line)
        try:
            if answer.status != 200:  # noqa: PLR2004 -- HTTP
                raise Refused(f"http_{answer.status}", status=answer.status)
            if answer.kind != eras.STREAM_TYPE:
                raise Lost(NO_STREAM)
            await hearing.opened()
            await streams.heard(answer, hearing)
        except _UNUSABLE as error:
            raise _fault(error) from error
        finally:
            self._pool.give(line, answer.wire)

    async def _sent(self, method: str, post: Post, line: Line) -> Response:
        # Whoever gets the answer gives its connection back.
        head = f"{method}{self._said}{post.fields}content-length: {len(post.body)}\r\n\r\n"
        try:
            wire = await self._pool.take(line, post.connect_s)
        except NotConnected as error:
            raise Unreached("connect") from error
        try:
            return await wire.ask(head.encode("ascii") + post.body)
        except BaseException as error:
            self._pool.give(line, wire)
            if isinstance(error, NotConnected):
                raise Unreached("connect") from error
            if isinstance(error, Broken):
                raise Lost("connection_lost") from error
            raise


# What is wrong with an answer.
_UNUSABLE: Final = (Broken, TooLarge, MalformedRequest)


def _fault(error: Exception) -> Fault:
    if isinstance(error, Broken):
        return Lost("connection_lost")
    return Lost("output_too_large" if isinstance(error, TooLarge) else "garbage")


def _check_plain(answer: Response) -> None:
    if not answer.is_plain:
        raise Lost(_PACKED)


async def _answer(answer: Response, question: Question) -> bytes:
    status, kind = answer.status, answer.kind
    if status >= 300:  # noqa: PLR2004 -- HTTP
        raise await _refusal(answer, kind, question.id)
    if not answer.is_plain:
        raise Lost(_PACKED)
    if kind != eras.JSON_TYPE or status != 200:  # noqa: PLR2004 -- 202 and 204 say that no answer will come
        raise Lost("no_answer")
    body = await answer.wire.rest(question.cap + streams.ENVELOPE_BYTES)
    result = result_in(body, question.id)
    if result is not None:
        return result
    result = streams.mine(read_upstream(body), question.id)
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
    if status in _PASSED_ON and (failure is None or failure.id != request_id):
        return Lost(f"http_{status}")
    if failure is None:
        return Refused(f"http_{status}", status=status)
    return Refused.by(failure, request_id, status=status)


async def _error_of(answer: Response) -> Failure | None:
    try:
        message = read_upstream(await answer.wire.rest(_REFUSAL_BYTES))
    except (MalformedRequest, TooLarge, Broken):
        return None
    return message if isinstance(message, Failure) else None
