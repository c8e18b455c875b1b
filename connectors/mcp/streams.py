"""An event stream of an MCP endpoint, read to the answer that it owes, or to its end."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Final

from anyio import current_time, move_on_after

from connectors.mcp.allowance import Allowance
from connectors.mcp.faults import Lost, Parted, Refused
from connectors.mcp.messages import Hearing, Question
from connectors.mcp.resuming import Trail
from connectors.mcp.wire import Broken, Response
from gateway.core.errors import TooLarge
from gateway.core.mcpwire import sse
from gateway.core.mcpwire.jsonrpc import Failure, Notification, Reply, Request, UpstreamMessage, read_upstream

# An envelope is a little larger than the result in it.
ENVELOPE_BYTES: Final = 4096
# An event stream may be this much longer than the result in it: one of small events that never ends would keep the loop
# busy for as long as its call may take.
BESIDES_BYTES: Final = 8 * 1024 * 1024
# What an empty line costs is what so many bytes do.
_LINE_BYTES: Final = 16
_EVENT_BYTES: Final = 64 * 1024
# A server closes the stream after its answer; waiting this long for it saves the connection for the next call.
_LINGER_S: Final = 0.02


async def answered(answer: Response, question: Question, trail: Trail) -> bytes:
    """The result that a stream brings.

    Raises:
        Parted: it ended before; ``trail`` says where.
        Refused: it brings an error.
        Lost, Broken, TooLarge, MalformedRequest: it cannot be used.
    """
    decoder = sse.Decoder(question.cap + ENVELOPE_BYTES, trail.last_id)
    async with aclosing(_within(answer.chunks(), trail)) as chunks:
        try:
            async for chunk in chunks:
                for event in decoder.feed(chunk):
                    result = await _taken(event, question, trail)
                    if result is not None:
                        await _linger(chunks)
                        return result
        except Broken as error:
            trail.left(decoder)
            raise Parted("connection_lost") from error
    trail.left(decoder)
    raise Parted("stream_ended")


async def _taken(event: sse.Event, question: Question, trail: Trail) -> bytes | None:
    if event.name != "message":
        return None
    message = read_upstream(event.data)
    if isinstance(message, Notification) and question.hear is not None:
        await question.hear(message)
    if isinstance(message, Request):
        await _decline(question, message, trail.asked)
    if trail.is_resumed and isinstance(message, Failure) and message.id is None:
        raise Lost("wrong_id")  # whatever it could not read, it is not the request, whose stream it has begun before
    return mine(message, question.id)


async def heard(answer: Response, hearing: Hearing) -> None:
    """Hear what comes on a stream on which nothing was asked, until its end.

    Raises:
        Lost, Broken, TooLarge, MalformedRequest: it cannot be used.
    """
    decoder, trail = sse.Decoder(_EVENT_BYTES), Trail(BESIDES_BYTES)
    async with aclosing(_within(answer.chunks(), trail)) as chunks:
        async for chunk in chunks:
            for event in decoder.feed(chunk):
                message = read_upstream(event.data) if event.name == "message" else None
                if isinstance(message, Notification):
                    await hearing.hear(message)
                if isinstance(message, Request):
                    await _decline(hearing, message, trail.asked)


async def _within(chunks: AsyncIterator[bytes], trail: Trail) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        trail.room -= len(chunk) + _LINE_BYTES * max(chunk.count(b"\n"), chunk.count(b"\r"))
        if trail.room < 0:
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


def mine(message: UpstreamMessage, request_id: int) -> bytes | None:
    """The result in a message, None where it is no answer.

    Raises:
        Lost: it is the answer to something else.
        Refused: it is an error.
    """
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
