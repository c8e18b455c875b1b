"""Sends requests to the gateway's ASGI application as a server would, and leaves streams that do not end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from starlette.types import ASGIApp, Message

from deploy.campaigns.rpc_fuzz.case import Case, Header, Who

HOST: Final = "127.0.0.1"
URL: Final = f"http://{HOST}"
_HUNG_S: Final = 60.0
# How long a stream of events is listened to before its caller leaves.
_LISTEN_S: Final = 0.3
_STREAM: Final = b"text/event-stream"


@dataclass(slots=True)
class Answer:
    """What came of a request.

    Attributes:
        status: HTTP status; 0 where none came.
        headers: fields, names in lower case.
        body: bytes.
        whole: whether the answer was ended by the gateway.
        odd: what no application may do, a sentence each.
    """

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    odd: list[str] = field(default_factory=list)

    def field(self, name: bytes) -> str | None:
        """The first header field of that name."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), None)

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        return (self.field(b"content-type") or "").startswith(_STREAM.decode())


@dataclass(frozen=True, slots=True)
class Client:
    """Everybody who talks to one gateway.

    Attributes:
        app: its application.
        tokens: by who brings them.
    """

    app: ASGIApp
    tokens: Mapping[Who, str]

    async def send(self, case: Case) -> Answer:
        """Send a request and hear its answer to the end."""
        visit = _Visit(case)
        try:
            async with asyncio.timeout(_HUNG_S):
                await self.app(self._scope(case), visit.receive, visit.send)
        except TimeoutError:
            visit.answer.odd.append(f"no answer within {_HUNG_S:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever gets out of the application is what is looked for
            visit.answer.odd.append(f"the application raised {type(error).__name__}: {error}")
        finally:
            visit.close()
        return visit.answer

    def _scope(self, case: Case) -> dict[str, Any]:
        headers = list(case.headers)
        token = self.tokens.get(case.who)
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        number = crc32(case.name.encode())
        return {
            "type": "http",
            "http_version": "1.1",
            "method": case.verb,
            "scheme": "http",
            "path": case.path,
            "raw_path": case.path.encode(),
            "query_string": b"",
            "headers": headers,
            # Strangers are limited by their address, which is not what is looked at here.
            "client": (f"10.{number & 255}.{number >> 8 & 255}.{number >> 16 & 255}", 1),
            "server": (HOST, 80),
        }


class _Visit:
    """One request and its answer."""

    def __init__(self, case: Case) -> None:
        self.answer = Answer()
        self._pieces = list(case.pieces())
        self._left = case.leaves
        self._gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def receive(self) -> Message:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._gone.set()
        if self._pieces and not self._gone.is_set():
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        answer = self.answer
        if message["type"] == "http.response.start":
            if answer.status:
                answer.odd.append("two answers were begun")
            answer.status, answer.headers = message["status"], list(message["headers"])
            if answer.streams:
                self._timer = asyncio.get_running_loop().call_later(_LISTEN_S, self._gone.set)
        elif message["type"] == "http.response.body":
            if not answer.status or answer.whole:
                answer.odd.append("a body without a beginning, or after the end")
            answer.body += message.get("body", b"")
            answer.whole = not message.get("more_body", False)
        else:
            answer.odd.append(f"a message of type {message['type']}")
