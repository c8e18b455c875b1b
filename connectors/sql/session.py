"""A PostgreSQL session that takes no more out of the server than it may.

The driver keeps whole messages in memory: one value of a gigabyte would be all there before any row could be counted.
"""

import asyncio
from typing import Any

import asyncpg


class Session(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose answers are measured as they arrive."""

    __slots__ = ("gauge",)

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
        """As the driver makes them once they are logged in."""
        super().__init__(protocol, transport, *others)
        self.gauge = Gauge(protocol, transport)
        transport.set_protocol(self.gauge)


class Gauge(asyncio.Protocol):
    """Between a socket and the driver: ends the session at the byte that is too many.

    Attributes:
        room: bytes that may still arrive; None = any number.
        is_over: whether more came.
    """

    def __init__(self, driver: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._driver = driver
        self._transport = transport
        self.room: int | None = None
        self.is_over = False

    def data_received(self, data: bytes) -> None:
        """Hand on what there is room for."""
        if self.room is not None:
            self.room -= len(data)
            if self.room < 0:
                self.is_over = True
                self._transport.abort()
                return
        self._driver.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._driver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on."""
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._driver.resume_writing()
