"""What an upstream of the handshake era asks in the stream of a call: put to the caller while the stream is read on.

A question and its answer are two messages that cross; the upstream may take its question back meanwhile, or answer the
call without waiting.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup

from connectors.mcp.declining import PING, declined
from connectors.mcp.faults import Fault, Lost
from connectors.mcp.hearing import Ear
from gateway.core.flow import Flow, NotAnswered
from gateway.core.mcpwire import eras, notices
from gateway.core.mcpwire.jsonrpc import Id, Notification, Request, encode_failure, encode_response

# What a client says of a question that nobody answers.
_NOT_ANSWERED = -1


@dataclass(slots=True)
class Conversation:
    """The questions of one call.

    Attributes:
        ear: hears what is no question.
        flow: the line to the caller.
        reply: sends the upstream one message.
    """

    ear: Ear
    flow: Flow
    reply: Callable[[bytes], Awaitable[None]]
    _open: dict[tuple[type, Id], CancelScope] = field(default_factory=dict)
    _aside: dict[tuple[type, Id], Request] = field(default_factory=dict)
    _tasks: TaskGroup | None = None

    async def hold(self, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to the call, during which questions are put; those still open when it comes are taken back.

        Raises:
            Fault: as ``ask`` does.
        """
        fault: Fault | None = None
        answered: bytes | None = None
        async with create_task_group() as self._tasks:
            # Out of the group by hand, which would wrap it in a group of errors.
            try:
                answered = await ask()
            except Fault as error:
                fault = error
            self._tasks.cancel_scope.cancel()
        if answered is None:
            raise fault or Lost("connection_lost")
        return answered

    @property
    def unanswered(self) -> tuple[Request, ...]:
        """What was asked aside and is not answered: with the call's own stream these do not end."""
        return tuple(self._aside.values())

    async def heed_aside(self, request: Request) -> None:
        """Take a question that did not come on the call's own stream; returns at once."""
        if request.method != PING:
            self._aside[_key(request)] = request
        await self.heed(request)

    async def heed(self, request: Request) -> None:
        """Take a question; returns at once."""
        if request.method == PING:
            await self.reply(declined(request))
        elif self._tasks is not None:
            self._tasks.start_soon(self._put, request)

    async def hear(self, told: Notification) -> None:
        """Take a notification."""
        if told.method != notices.CANCELLED:
            await self.ear(told)
            return
        question = notices.cancelled_id(told.text)
        scope = None if question is None else self._open.get((type(question), question))
        if scope is not None:
            scope.cancel()

    async def _put(self, request: Request) -> None:
        key = _key(request)
        with CancelScope() as scope:
            self._open[key] = scope
            try:
                said = await self._answer(request)
                self._aside.pop(key, None)
                await self.reply(said)
            finally:
                self._open.pop(key, None)
        self._aside.pop(key, None)  # taken back

    async def _answer(self, request: Request) -> bytes:
        try:
            return encode_response(request.id, await self.flow.ask(request.method, request.text))
        except NotAnswered as refusal:
            code = eras.METHOD_NOT_FOUND if refusal.cause == "not_offered" else _NOT_ANSWERED
            # In our own words: why policy says no is the caller's to know.
            return encode_failure(request.id, code, f"not answered ({refusal.cause})")


def _key(request: Request) -> tuple[type, Id]:
    return type(request.id), request.id
