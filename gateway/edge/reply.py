"""What a handler answers, and sending it over ASGI with the header fields that every answer has."""

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from starlette.types import Message, Scope, Send

Header = tuple[bytes, bytes]
# Sends status, header fields (as they stand in a head) and body in one step, or says that it sent nothing.
Whole = Callable[[int, bytes, bytes], bool]

JSON = b"application/json"
_GOOD: Final = 200
_JSON_LINE: Final = b"content-type: %b\r\n" % JSON
# In the ASGI scope, what sends a whole answer at once where it can (``serving/whole.py``).
WHOLE = "ostiary.whole"
PROBLEM = b"application/problem+json"
TEXT = b"text/plain; charset=utf-8"
# What ends a field, or stands in none. Whatever wrote it into a value would write the rest of the head.
_CONTROL: Final = bytes({*range(0x20), 0x7F} - {ord("\t")})


class Reply(Struct, frozen=True):
    """One whole HTTP answer.

    Attributes:
        status: HTTP status.
        body: the bytes of the body.
        media: content type; ignored where there is no body.
        headers: further header fields, names in lower case.
    """

    status: int
    body: bytes = b""
    media: bytes = JSON
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send) -> None:
        """Send it."""
        if isinstance(send, Hardened) and send.at_once(self):
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.fields()})
        await send({"type": "http.response.body", "body": self.body})

    def fields(self) -> list[Header]:
        """Its own header fields."""
        kind = [(b"content-type", self.media)] if self.body else []
        return [(b"content-length", b"%d" % len(self.body)), *self.headers, *kind]


class Common:
    """The header fields that every answer has which says nothing else there, and challenges made complete."""

    def __init__(self, fields: Sequence[Header], challenged: Callable[[str, int, list[Header]], list[Header]]) -> None:
        """``challenged`` gives the fields of an answer at that path, with that status, from those a handler gave."""
        self._fields = fields
        self._names = frozenset(name for name, _ in fields)
        self._lines = lines(fields)
        self._challenged = challenged

    def with_own(self, path: str, status: int, given: list[Header]) -> list[Header]:
        """All header fields of an answer."""
        own = {name for name, _ in given}
        return [*self._challenged(path, status, given), *(each for each in self._fields if each[0] not in own)]

    def lines_with_own(self, path: str, reply: Reply) -> bytes:
        """The same of a whole answer, as they stand in a head.

        Raises:
            ValueError: one of them would not be a field.
        """
        for name, _ in reply.headers:
            if name in self._names:
                return lines(self.with_own(path, reply.status, reply.fields()))
        if reply.status != _GOOD or reply.media is not JSON or not reply.body:
            return lines(self._challenged(path, reply.status, reply.fields())) + self._lines
        # Nobody is challenged by it.
        return b"content-length: %d\r\n%b%b%b" % (len(reply.body), lines(reply.headers), _JSON_LINE, self._lines)


class Hardened:
    """``send`` that adds the common header fields, and knows whether an answer was begun.

    As ASGI wants it, a head waits for the body.
    """

    __slots__ = ("_common", "_head", "_path", "_send", "_whole", "started")

    def __init__(self, scope: Scope, send: Send, common: Common) -> None:
        """Nothing was begun."""
        self._path: str = scope["path"]
        self._whole: Whole | None = scope.pop(WHOLE, None)  # it holds the scope: neither would be freed by itself
        self._send = send
        self._common = common
        self._head: Message | None = None
        self.started = False

    def at_once(self, reply: Reply) -> bool:
        """Send a whole answer in one step, where there is one; False, and nothing was sent, where there is none.

        Raises:
            ValueError: a header field would not be one.
        """
        if self._whole is None or self._head is not None or self.started:
            return False
        self.started = self._whole(reply.status, self._common.lines_with_own(self._path, reply), reply.body)
        return self.started

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            status = head["status"]
            headers = self._common.with_own(self._path, status, head["headers"])
            self.started = True
            try:
                await self._send({"type": "http.response.start", "status": status, "headers": headers})
            except CancelledError:  # who waits no longer for a client that does not read may send something after all
                self._head = head
                raise
        await self._send(message)


def lines(fields: Sequence[Header]) -> bytes:
    """Header fields as they stand in a head, each with the end of its line.

    Raises:
        ValueError: one of them would not be a field.
    """
    written = b""
    for field in fields:
        written += b"%b: %b\r\n" % field
    if len(written) - len(written.translate(None, _CONTROL)) != len(fields) * 2:  # the ends of lines
        raise ValueError("a header field holds a control character")
    return written
