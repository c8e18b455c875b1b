"""An answer's head waits for what follows, and for no longer than the turn."""

import asyncio

import pytest

from gateway.serving.corked import Corked

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Keeps what is written, a write an entry."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 9)})
        self.written: list[bytes] = []
        self.said: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Note it, after all that was written."""
        self.said.append(f"closed after {len(self.written)}")

    def abort(self) -> None:
        """Note it."""
        self.said.append("aborted")

    def is_closing(self) -> bool:
        """Once it was told to."""
        return bool(self.said)

    def pause_reading(self) -> None:
        """Note it."""
        self.said.append("paused")

    def resume_reading(self) -> None:
        """Note it."""
        self.said.append("resumed")


def corked() -> tuple[Wire, Corked]:
    """A transport over a wire."""
    wire = Wire()
    return wire, Corked(wire, asyncio.get_running_loop())


async def test_head_and_body_leave_in_one_write() -> None:
    """What is written after a head in the same turn leaves with it, in order, and nothing leaves twice."""
    wire, transport = corked()
    transport.write(HEAD)
    transport.write(bytearray(b"ok"))
    transport.write(b"more")
    await asyncio.sleep(0)
    assert wire.written == [HEAD + b"ok", b"more"]


async def test_a_head_alone_leaves_with_the_turn() -> None:
    """An answer that is streamed has its head at the client before its first event."""
    wire, transport = corked()
    transport.write(HEAD)
    held = list(wire.written)
    await asyncio.sleep(0)
    transport.write(b"event")
    assert (held, wire.written) == ([], [HEAD, b"event"])


async def test_two_heads_keep_their_order() -> None:
    """An interim answer leaves before the answer."""
    wire, transport = corked()
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert b"".join(wire.written) == b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD


async def test_closing_sends_what_waits() -> None:
    """An answer without a body is sent before the connection is closed."""
    wire, transport = corked()
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert (wire.written, wire.said) == ([HEAD], ["closed after 1"])


async def test_aborting_sends_nothing() -> None:
    """A connection that is cut off says nothing more, also not with the turn's end."""
    wire, transport = corked()
    transport.write(HEAD)
    transport.abort()
    await asyncio.sleep(0)
    assert (wire.written, wire.said) == ([], ["aborted"])


async def test_the_rest_is_the_transports() -> None:
    """Reading, its pauses and what is known of the peer are those of the transport beneath."""
    wire, transport = corked()
    transport.pause_reading()
    transport.resume_reading()
    assert wire.said == ["paused", "resumed"]
    assert transport.is_closing()
    assert transport.get_extra_info("peername") == ("127.0.0.1", 9)
