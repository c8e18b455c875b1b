"""What is refused of the bytes of a request, and that nothing is said where it would be taken for something else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.serving import connections
from gateway.serving.places import Bounds, Places

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Takes what is written, until it is closed."""

    written = b""
    is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def close(self) -> None:
        """No more."""
        self.is_closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Nothing comes but what a test gives."""


@asynccontextmanager
async def unanswered(first: bytes) -> AsyncIterator[tuple[connections.BoundedProtocol, Wire]]:
    """A connection whose requests, ``first`` the first of them, wait for their answers."""

    async def silent(_: Scope, __: Receive, ___: Send) -> None:
        await done.wait()

    wire, done = Wire(), anyio.Event()
    config = uvicorn.Config(silent, lifespan="off", ws="none", log_config=None)
    given: dict[str, Any] = {"config": config, "server_state": ServerState(), "app_state": {}}
    connection = connections.BoundedProtocol(Places(Bounds()), **given)
    connection.connection_made(wire)
    connection.data_received(first)
    assert not wire.is_closed
    try:
        yield connection, wire
    finally:
        connection.connection_lost(ConnectionError())
        done.set()
        await asyncio.wait(connection.tasks)


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 1000, b"a" * 6000, b"a:" + b"b" * 6000])
async def test_fields_behind_a_body_have_the_same_cap(piece: bytes) -> None:
    """A body in chunks can be followed by fields: with those of the head they are not more than it may hold."""
    head = b"POST /mcp HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with unanswered(head) as (connection, wire):
        for _ in range(32):
            connection.data_received(piece)
        assert wire.is_closed
        assert wire.written.startswith(b"HTTP/1.1 431 ")
        assert sum(len(name) + len(value) for name, value in connection.headers) <= 32 * 1024


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\nx: " + b"x" * 40_000, b"GET / HTTP/1.1\r\n\0\r\n\r\n"])
async def test_a_refusal_is_not_taken_for_the_answer_before_it(behind: bytes) -> None:
    """Of a call that is under way a client must not hear that it was refused, because of what came after it."""
    async with unanswered(b"GET /mcp HTTP/1.1\r\n\r\n") as (connection, wire):
        connection.data_received(behind)
        assert wire.is_closed
        assert wire.written == b""


async def test_fields_behind_a_body_are_none_of_the_head() -> None:
    """Whoever stands before the gateway checks and strikes fields of the head: a credential comes by no other way."""
    head = b"POST /mcp HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with unanswered(head + b"authorization: Bearer stolen\r\nostiary-run: other\r\n\r\n") as (connection, _):
        assert connection.cycle.scope["headers"] == [(b"transfer-encoding", b"chunked")]
        assert not connection.cycle.more_body


ASKS = b"GET /livez HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
INNER = b"GET /inner HTTP/1.1\r\n\r\n"


async def test_what_stands_behind_an_upgrade_is_the_next_request() -> None:
    """No upgrade is offered: were the next head passed over, its body would be read as a request of its own."""
    behind = b"POST /outer HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(INNER)
    async with unanswered(ASKS + b"\r\n" + behind) as (connection, _):
        connection.data_received(INNER)
        ((cycle, _app),) = connection.pipeline
        assert (cycle.scope["path"], bytes(cycle.body), cycle.more_body) == ("/outer", INNER, False)


@pytest.mark.parametrize("framed", [b"content-length: 23", b"transfer-encoding: chunked"])
async def test_an_upgrade_with_a_body_is_refused(framed: bytes) -> None:
    """The parser takes that body for another protocol's, and what comes later of it for requests."""
    async with unanswered(b"GET / HTTP/1.1\r\n\r\n") as (connection, wire):
        connection.cycle.response_complete = True
        connection.data_received(ASKS + framed + b"\r\n\r\n")
        assert wire.is_closed
        assert wire.written.startswith(b"HTTP/1.1 400 ")
        connection.data_received(INNER)
        assert connection.cycle.scope["path"] == "/"
