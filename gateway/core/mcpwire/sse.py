"""Server-sent events, read incrementally (WHATWG HTML, 9.2.6), with a cap on what one event may hold."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.core.errors import TooLarge

# Eleven days; what is longer is not said in earnest.
_RETRY_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its ``data`` lines, joined by line feeds; never empty.
        name: its type; ``message`` where none was given.
        id: the last event id in force.
    """

    data: bytes
    name: str = "message"
    id: str = ""


def encode(data: bytes) -> bytes:
    """One event of the default type; ``data`` is JSON text, so that its line ends mean nothing."""
    lines = b"".join(b"data: %b\n" % line for line in data.splitlines())
    return b"event: message\n%b\n" % lines


@dataclass(slots=True)
class Decoder:
    """Turns chunks, cut anywhere, into events. A last event that is not closed by an empty line is never delivered.

    Attributes:
        max_event_bytes: most bytes of one event, all its lines counted.
        last_id: where a reader would go on: the id in force at the last empty line, of an event without data, too; to
            begin with, that of the stream before.
        retry_ms: how long the server wants to be left alone before; None where it did not say.
    """

    max_event_bytes: int
    last_id: str = ""
    retry_ms: int | None = None
    _line: bytearray = field(default_factory=bytearray)
    _data: list[bytes] = field(default_factory=list)
    _name: str = ""
    _id: str = ""
    _size: int = 0
    _after_cr: bool = False
    _started: bool = False

    def __post_init__(self) -> None:
        """An id is in force until another one comes, which may be empty: there is no place to go on from then."""
        self._id = self.last_id

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` completes.

        Raises:
            TooLarge: an event is over the cap; the decoder is of no further use.
        """
        # A CR at the end of one chunk and the LF at the start of the next are one line end.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        self._after_cr = chunk.endswith(b"\r")
        self._line += chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        # Without a line end nothing can be complete; joining and splitting again would be quadratic.
        if b"\n" not in chunk and b"\r" not in chunk:
            self._check(len(self._line))
            return
        *lines, rest = bytes(self._line).split(b"\n")
        self._line[:] = rest
        for line in lines:
            event = self._take(line)
            if event is not None:
                yield event
        self._check(len(rest))

    def _take(self, line: bytes) -> Event | None:
        if not self._started:
            self._started = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        self._size += len(line)
        self._check(0)
        name, _, value = line.partition(b":")
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self) -> Event | None:
        self.last_id = self._id
        data, name = b"\n".join(self._data), self._name or "message"
        self._data, self._name, self._size = [], "", 0
        return Event(data, name, self._id) if data else None

    def _check(self, pending: int) -> None:
        if self._size + pending > self.max_event_bytes:
            raise TooLarge("an event of the stream is too large", cause_code="event_size")
