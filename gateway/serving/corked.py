"""A transport that lets the head of an answer wait for what follows, so that both leave in one write.

Each write wakes the client up. One that is woken for a head alone finds nothing to do, and the waking costs the server
about as much as everything else it does for the connection.
"""

import asyncio
from typing import Any, Final

_HEAD: Final = b"HTTP/1.1 "
_END: Final = b"\r\n\r\n"


class Corked(asyncio.Transport):
    """``beneath``, but a head waits for the next write, or for the end of the loop's turn where none comes.

    Bytes that only look like a head wait no longer, so nothing is told by the order or the time of what is sent.
    """

    __slots__ = ("_beneath", "_due", "_head", "_loop")

    def __init__(self, beneath: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing waits."""
        super().__init__()
        self._beneath = beneath
        self._loop = loop
        self._head = b""
        self._due: asyncio.Handle | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, with the head that waits; or let a head wait."""
        if self._head:
            self._beneath.write(self._taken() + data)
        elif isinstance(data, bytes) and data.endswith(_END) and data.startswith(_HEAD):
            self._head = data
            self._due = self._loop.call_soon(self._flush)
        else:
            self._beneath.write(data)

    def close(self) -> None:
        """Close when all is sent."""
        self._flush()
        self._beneath.close()

    def abort(self) -> None:
        """Close without sending what waits."""
        self._taken()
        self._beneath.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._beneath.is_closing()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._beneath.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._beneath.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._beneath.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._head:
            self._beneath.write(self._taken())

    def _taken(self) -> bytes:
        if self._due is not None:
            self._due.cancel()
        head, self._head, self._due = self._head, b"", None
        return head
