"""Messages carried over HTTP: each one once, but for what the gateway refused without looking at it.

- Nobody opens: tried again for a short while, then a JSON-RPC error says so. Nothing was sent.
- 401: once more with a new token. 404 to a session: a new one is opened with the client's own ``initialize``, then once
  more. The gateway refuses both before it looks at the message.
- The connection breaks after the message was sent: an error says that an effect may have happened. Only ``ping`` and
  lists are asked again.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import httpx

from gateway.cli.client import messages
from gateway.cli.client.door import Door
from gateway.cli.client.messages import Message
from gateway.cli.screen import Failed
from gateway.core.errors import TooLarge
from gateway.core.mcpwire import eras, headers
from gateway.core.mcpwire.sse import Decoder

_ACCEPT: Final = f"{eras.JSON_TYPE}, {eras.STREAM_TYPE}"
_MOST_BYTES: Final = 64 * 1024 * 1024
_KNOCK_S: Final = 0.2
_ASKED_AGAIN: Final = frozenset(
    {
        "ping",
        "initialize",
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    }
)
_INITIALIZED: Final = messages.read(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
_MOST_PAGES: Final = 50
_UNAUTHENTICATED, _NOT_FOUND, _ERROR = 401, 404, 400


class _Away(Exception):
    """Nobody answers; nothing was sent."""


class _Broken(Exception):
    """The connection broke after the message was sent."""


class _NoSession(Exception):
    """The gateway does not know the session."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the handshake era.

    Attributes:
        id: as the gateway named it; None where it named none.
        version: the revision that was agreed on.
        opened: the client's own request.
    """

    id: str | None
    version: str
    opened: Message


class Carrier:
    """Carries messages to one gateway and its answers back, a line each."""

    def __init__(self, door: Door, client: httpx.AsyncClient, say: Callable[[bytes], None], patience_s: float) -> None:
        """``say`` takes what is for the client; ``patience_s`` is how long a gateway that is away is waited for."""
        self._door = door
        self._client = client
        self._say = say
        self._patience_s = patience_s
        self._names: dict[str, Mapping[headers.Path, str]] = {}
        self._version = eras.LATEST_STATELESS
        self._opening = anyio.Lock()
        self.session: Session | None = None

    async def carry(self, message: Message) -> None:
        """Carry one message; whatever happens, a request is answered. Never raises for what the gateway does."""
        try:
            await self._carry(message)
        except _Away:
            self._fail(
                message,
                f"no gateway answers at {self._door.shown}; nothing was done",
                "start it: `ostiary up` or `ostiary serve`",
            )
        except _Broken:
            self._fail(message, "the gateway broke off; an effect may have happened", "`ostiary audit search` tells")
        except _NoSession:
            self._fail(message, "the gateway takes no session of this client", "start the client anew")
        except TooLarge:
            self._fail(message, "the gateway's answer is too large")
        except UnicodeEncodeError:  # before anything is sent
            self._fail(message, "what its header fields must repeat is no text they can carry; nothing was done")
        except Failed as error:  # of the token
            self._fail(message, error.format_message(), error.fix)

    async def listen(self) -> None:
        """Pass on what the gateway pushes to the session, while it does; returns where it does not."""
        session = self.session
        if session is None or session.id is None:
            return
        fields = {"accept": eras.STREAM_TYPE, **self._session_fields(session)}
        async with self._sent("GET", None, fields) as response:
            if response.status_code != httpx.codes.OK:
                return
            async for body in _events(response):
                self._say(body)

    async def leave(self) -> None:
        """End the session, so that the gateway need not keep it."""
        session = self.session
        if session is not None and session.id is not None:
            async with self._sent("DELETE", None, self._session_fields(session)):
                pass

    async def _carry(self, message: Message) -> None:
        if message.version is not None:
            self._version = message.version
            name = message.params.get("name")
            if message.method == "tools/call" and isinstance(name, str) and name not in self._names:
                await self._learn(message)
        try:
            await self._asked(message, self._say)
        except _NoSession:
            if message.method == "initialize" or self.session is None:
                raise
            await self._reopen(self.session)
            await self._asked(message, self._say)

    async def _asked(self, message: Message, say: Callable[[bytes], None]) -> None:
        try:
            await self._exchange(message, say)
        except _Broken:
            if message.method not in _ASKED_AGAIN:
                raise
            await self._exchange(message, say)

    async def _exchange(self, message: Message, say: Callable[[bytes], None]) -> None:
        stands_alone = message.method == "initialize" or message.version is not None
        session = None if stands_alone else self.session
        fields = {"content-type": eras.JSON_TYPE, "accept": _ACCEPT, **self._fields(message, session)}
        async with self._sent("POST", message.raw, fields) as response:
            if response.status_code == _NOT_FOUND and session is not None and session.id is not None:
                raise _NoSession
            if response.headers.get("content-type", "").startswith(eras.STREAM_TYPE):
                await self._streamed(message, response, say)
            else:
                self._answered(message, response, await _whole(response), say)

    async def _streamed(self, message: Message, response: httpx.Response, say: Callable[[bytes], None]) -> None:
        async for body in _events(response):
            is_answer = message.is_request and messages.answers(body, message)
            if is_answer:
                self._learnt(message, body, response)
            say(body)
            if is_answer:
                return
        if message.is_request:
            raise _Broken

    def _answered(self, message: Message, response: httpx.Response, body: bytes, say: Callable[[bytes], None]) -> None:
        if messages.answers(body, message):
            self._learnt(message, body, response)
            if message.is_request or message.method is None:
                say(body)
        elif message.is_request:
            error = messages.member(body, "error")
            say(
                messages.readdressed(message, error)
                if isinstance(error, dict)
                else messages.failure(
                    message, f"what answers at {self._door.shown} is no gateway ({response.status_code})"
                )
            )

    def _learnt(self, message: Message, body: bytes, response: httpx.Response) -> None:
        if message.method == "tools/list":
            self._names |= messages.annotated(body)[0]
        result = messages.member(body, "result")
        if message.method == "initialize" and isinstance(result, dict):
            version = str(result.get("protocolVersion"))
            self.session = Session(response.headers.get(eras.SESSION_HEADER), version, message)

    async def _learn(self, message: Message) -> None:
        """Which arguments of a tool are repeated in header fields; a client on stdio need not have asked."""
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            pages: list[bytes] = []
            await self._asked(messages.listing(message.meta, cursor), pages.append)
            found, cursor = messages.annotated(pages[-1]) if pages else ({}, None)
            self._names |= found
            if cursor is None:
                return

    async def _reopen(self, lost: Session) -> None:
        async with self._opening:
            if self.session is not lost:
                return  # another message has done it
            await self._asked(lost.opened, lambda _: None)
            if self.session is lost:
                raise _NoSession
            await self._asked(_INITIALIZED, lambda _: None)

    def _fields(self, message: Message, session: Session | None) -> dict[str, str]:
        if message.version is not None:
            return messages.stateless_fields(message, self._names)
        if session is not None:
            return self._session_fields(session)
        if message.method == "initialize" or message.is_request or message.method is None:
            return {}
        return {eras.VERSION_HEADER: self._version}

    def _session_fields(self, session: Session) -> dict[str, str]:
        fields = {eras.VERSION_HEADER: session.version}
        return fields if session.id is None else {**fields, eras.SESSION_HEADER: session.id}

    @asynccontextmanager
    async def _sent(self, method: str, body: bytes | None, fields: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        response = await self._knocked(method, body, fields, refused=False)
        if response.status_code == _UNAUTHENTICATED:
            await response.aclose()
            response = await self._knocked(method, body, fields, refused=True)
        try:
            yield response
        except httpx.HTTPError:
            raise _Broken from None
        finally:
            await response.aclose()

    async def _knocked(
        self, method: str, body: bytes | None, fields: Mapping[str, str], *, refused: bool
    ) -> httpx.Response:
        deadline = time.monotonic() + self._patience_s
        while True:
            token = self._door.token(refused)
            request = self._client.build_request(
                method, self._door.path, content=body, headers={**fields, "authorization": f"Bearer {token}"}
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if time.monotonic() > deadline:
                    raise _Away from None
            except httpx.HTTPError:
                raise _Broken from None
            await anyio.sleep(_KNOCK_S)

    def _fail(self, message: Message, problem: str, fix: str | None = None) -> None:
        if message.is_request:
            self._say(messages.failure(message, problem, fix))


async def _whole(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > _MOST_BYTES:
            raise TooLarge("the answer is too large")
        parts.append(part)
    return b"".join(parts)


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    decoder = Decoder(_MOST_BYTES)
    async for part in response.aiter_bytes():
        for event in decoder.feed(part):
            yield event.data
