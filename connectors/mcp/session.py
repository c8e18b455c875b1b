"""One session with an MCP server over HTTP: in the stateless era merely a set of header fields."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from anyio import CancelScope, get_cancelled_exc_class, move_on_after
from msgspec import Struct, structs

from connectors.mcp.conversing import Conversation
from connectors.mcp.declining import declined
from connectors.mcp.dialect import Dialect
from connectors.mcp.exchange import Endpoint
from connectors.mcp.faults import Fault, Refused, Unreached
from connectors.mcp.hearing import SET_LEVEL, Ear, level_members, level_to_set, wanted
from connectors.mcp.messages import Hearing, Post, Question, method_field
from connectors.mcp.pool import Use
from gateway.core.flow import Flow
from gateway.core.mcpwire import notices
from gateway.core.mcpwire.jsonrpc import Notification, Request, encode_notification, encode_request

SETUP_RESULT_BYTES: Final = 256 * 1024
_COURTESY_S: Final = 0.5
_DECLINE_S: Final = 2.0
_HOLD_CONNECT_S: Final = 10.0


class Ask(Struct, frozen=True):
    """One request, before the era says how it is spelled.

    Attributes:
        method: MCP method.
        members: the inside of its ``params``, without ``_meta``.
        cap: most bytes of the result.
        connect_s: longest a connection may take, seconds.
        fields: header fields the stateless era adds for it, as they are sent.
        flow: the line to whoever waits for it, if anybody does.
    """

    method: str
    members: bytes = b""
    cap: int = SETUP_RESULT_BYTES
    connect_s: float = 10.0
    fields: str = ""
    flow: Flow | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A session; it belongs to one credential.

    Attributes:
        endpoint: where.
        dialect: how it is spoken.
        fields: header fields of each request, the credential's among them, as they are sent.
        id: ``Mcp-Session-Id``; None in the stateless era, and where the server keeps no sessions.
        users: requests under way.
        heard_at: when the server last answered in it, event loop's seconds; of no use where there is no ``id``.
        level: from which severity on the server was told to send log messages; None = it was not told.
        is_askable: whether the server was told that its callers can be asked.
        outside: holds the session's own stream, where there is one for what is asked outside of calls.
        is_over: whether it is used for nothing new.
        talks: calls under way whose callers can be asked.
        is_adrift: whether one of these ended without an answer: the server may be at it still, and mean it.
        user: whose caller's it is, as of ``Identity.user``.
    """

    endpoint: Endpoint
    dialect: Dialect
    fields: str = field(repr=False)
    id: str | None = None
    users: int = 0
    heard_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    level: str | None = None
    is_askable: bool = False
    outside: CancelScope | None = None
    is_over: bool = False
    talks: list[Conversation] = field(default_factory=list)
    is_adrift: bool = False
    user: str = ""

    def is_doubtful(self, idle_s: float) -> bool:
        """Whether the server may have ended it meanwhile, having said nothing for ``idle_s`` seconds."""
        return self.id is not None and asyncio.get_running_loop().time() - self.heard_at >= idle_s

    async def ask(self, ask: Ask) -> bytes:
        """Send one request, once; returns the result's JSON text.

        Raises:
            Fault: as of ``Endpoint.ask``.
        """
        request_id, dialect, fields = self.endpoint.next_id(), self.dialect, self.fields
        ear = None if ask.flow is None else Ear(ask.flow, request_id)
        said = None if ear is None else wanted(ear, dialect)
        body = encode_request(request_id, ask.method, dialect.params(ask.members, said))
        if stateless := dialect.stateless:
            fields += method_field(ask.method) + ask.fields
        self.users += 1
        try:
            if ear is None or stateless or not ear.flow.askable:
                decline = None if stateless else self._decline
                resumes = not stateless
                question = Question(fields, body, ask.connect_s, request_id, ask.cap, decline, ear, resumes=resumes)
                result = await self.endpoint.ask(question)
            else:
                question = Question(fields, body, ask.connect_s, request_id, ask.cap, resumes=True)
                result = await self._conversed(ear, question)
        except get_cancelled_exc_class():
            await self._abandon(request_id)
            raise
        finally:
            self.users -= 1
        if self.id is not None:
            self.heard_at = asyncio.get_running_loop().time()
        return result

    async def hold(self, hearing: Hearing) -> None:
        """Hold the stream of the session, in the handshake era, until the server ends it.

        Raises:
            Fault: as of ``Endpoint.listen``.
        """
        await self.endpoint.listen(Post(self.fields, b"", _HOLD_CONNECT_S), replace(hearing, decline=self._heed))

    async def attend(self, ask: Ask, hear: Callable[[Notification], Awaitable[None]]) -> None:
        """Send a request of the stateless era whose answer is a stream of notifications, until the server ends it.

        Raises:
            Fault: as of ``Endpoint.ask``.
        """
        request_id = self.endpoint.next_id()
        fields = self.fields + method_field(ask.method)
        body = encode_request(request_id, ask.method, self.dialect.params(ask.members))
        question = Question(fields, body, ask.connect_s, request_id, ask.cap, hear=hear, use=Use.STAND)
        await self.endpoint.ask(question)

    async def ask_heard(self, ask: Ask) -> bytes:
        """The same, once the server was told to send the log messages that the caller asked for.

        One that does not take that is not told again.
        """
        level = level_to_set(ask.flow, self.dialect, self.level)
        if level is not None:
            self.level = level
            with suppress(Fault), move_on_after(ask.connect_s):
                await self.ask(Ask(SET_LEVEL, level_members(level), connect_s=ask.connect_s))
        return await self.ask(ask)

    def let_go(self) -> None:
        """It is used for nothing new: what waits in it for the server to say something does not any more."""
        self.is_over = True
        if self.outside is not None:
            self.outside.cancel()

    async def end(self) -> None:
        """Tell the server that the session is over."""
        self.let_go()
        if self.id is not None:
            await self._tell(b"", "DELETE")

    async def _conversed(self, ear: Ear, question: Question) -> bytes:
        async def reply(message: bytes) -> None:
            # What a client answered is not asked for again: it is sent once, with the time a call has.
            with suppress(Fault):
                await self.endpoint.tell(Post(self.fields, message, question.connect_s))

        talk = Conversation(ear, ear.flow, reply)
        self.talks.append(talk)
        try:
            return await talk.hold(
                lambda: self.endpoint.ask(structs.replace(question, decline=talk.heed, hear=talk.hear))
            )
        except (Refused, Unreached):
            raise
        except BaseException:
            self.is_adrift = True
            raise
        finally:
            self.talks.remove(talk)
            if talk.unanswered:
                with move_on_after(_DECLINE_S, shield=True):
                    for request in talk.unanswered:
                        await self._decline(request)

    async def _abandon(self, request_id: int) -> None:
        # In the stateless era closing the response is the signal; before, it has to be said.
        if self.dialect.stateless:
            return
        params = b'{"requestId":%d,"reason":"abandoned"}' % request_id
        with CancelScope(shield=True):
            await self._tell(encode_notification("notifications/cancelled", params))

    async def heard_aside(self, told: Notification) -> None:
        """What is said on the session's own stream: a question may be taken back there, where it was asked there."""
        if told.method == notices.CANCELLED:
            for talk in tuple(self.talks):  # another call may have begun since: its name says which question it is
                await talk.hear(told)

    async def _heed(self, request: Request) -> None:
        # The session is one caller's, who has said that they can be asked. Of two calls nobody knows which is meant.
        if len(self.talks) == 1 and not self.is_adrift:
            await self.talks[0].heed_aside(request)
        else:
            await self._decline(request)

    async def _decline(self, request: Request) -> None:
        # A server that waits for its answer is not to wait in vain because it is far away.
        await self._tell(declined(request, is_askable=self.is_askable), within_s=_DECLINE_S)

    async def _tell(self, body: bytes, method: str = "POST", within_s: float = _COURTESY_S) -> None:
        # A courtesy: whether it arrives changes nothing here.
        with move_on_after(within_s):
            try:
                await self.endpoint.tell(Post(self.fields, body, within_s), method)
            except Fault:
                return
