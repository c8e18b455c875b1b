"""Questions that wait for a client of the handshake era: asked on the stream of its call, answered by POST.

A question has an id that cannot be guessed and is good for one answer, from the principal and session it was put to.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio import CancelScope, get_cancelled_exc_class, move_on_after

from gateway.core import canonical
from gateway.core.canonical import Arguments
from gateway.core.flow import NotAnswered
from gateway.core.mcpwire import notices
from gateway.core.mcpwire.asking import Question
from gateway.core.mcpwire.jsonrpc import Failure, Response, encode, encode_notification, encode_request
from gateway.core.ports import Clock
from gateway.edge.mcp.session import Session
from gateway.edge.mcp.stream import Stream

_ID_BYTES = 16
_COURTESY_S = 0.5


@dataclass(frozen=True, slots=True)
class _Open:
    """A question that was put, and where."""

    stream: Stream
    answer: "asyncio.Future[Response | Failure]"


@dataclass(slots=True)
class Questions:
    """The open questions of this process."""

    clock: Clock
    _open: dict[tuple[str, str], _Open] = field(default_factory=dict)

    async def put(self, session: Session, stream: Stream, question: Question) -> Arguments:
        """What the client of ``session`` answers.

        Raises:
            NotAnswered: it cannot be asked, or answers that it will not.
        """
        if session.is_over:  # its answer would have no session to come by
            raise NotAnswered("gone")
        question_id = self.clock.random(_ID_BYTES).hex()
        with self._opened(session, question_id, stream) as answer:
            await stream.event(encode_request(question_id, question.method, encode(dict(question.params))))
            if not stream.is_heard:
                raise NotAnswered("no_stream")
            try:
                said = await answer
            except get_cancelled_exc_class():
                with CancelScope(shield=True), move_on_after(_COURTESY_S):
                    await stream.event(encode_notification(notices.CANCELLED, encode({"requestId": question_id})))
                raise
        if isinstance(said, Failure):
            raise NotAnswered("declined")
        return canonical.arguments(said.result)

    def take(self, said: Response | Failure, session: Session | None) -> None:
        """Take an answer; one to no question of this session changes nothing, nor does a second one."""
        if session is None or not isinstance(said.id, str):
            return
        found = self._open.get((session.id, said.id))
        if found is not None and not found.answer.done():
            found.answer.set_result(said)

    def leave(self, stream: Stream) -> None:
        """The client has gone: what was put on its stream is not answered, and nothing more is put there."""
        stream.is_heard = False
        for found in self._open.values():
            if found.stream is stream and not found.answer.done():
                found.answer.set_exception(NotAnswered("gone"))

    @contextmanager
    def _opened(
        self, session: Session, question_id: str, stream: Stream
    ) -> "Iterator[asyncio.Future[Response | Failure]]":
        place = (session.id, question_id)
        answer: asyncio.Future[Response | Failure] = asyncio.get_running_loop().create_future()
        self._open[place] = _Open(stream, answer)
        session.waiting.add(answer)
        try:
            yield answer
        finally:
            del self._open[place]
            session.waiting.discard(answer)
            if answer.done() and not answer.cancelled():
                answer.exception()  # one that ended badly while nobody waited for it any more is no surprise
