"""A request whose application ends without a whole answer: its client learns that, and nothing of why."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.edge.ears import STOPPING, Stopping
from gateway.serving.connections import within
from gateway.serving.places import Bounds
from tests.unit.test_heads import Wire, request

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
BODY = {"type": "http.response.body", "body": b"a", "more_body": True}
App = Callable[[Any, Any, Any], Awaitable[None]]

pytestmark = pytest.mark.anyio


def connected(app: App, stopping: Stopping | None = None) -> tuple[Any, Wire]:
    """A connection to ``app``."""
    given: dict[str, Any] = {"interface": "asgi3", "lifespan": "off", "log_config": None, "proxy_headers": False}
    config = uvicorn.Config(app, http=within(Bounds(), stopping), **given)
    config.load()
    made: Any = config.http_protocol_class
    protocol, wire = made(config=config, server_state=ServerState(), app_state={}), Wire()
    protocol.connection_made(wire)
    return protocol, wire


async def turned() -> None:
    """The loop has turned so often that nobody has anything left to do."""
    for _ in range(20):
        await asyncio.sleep(0)


async def served(app: App, stopping: Stopping | None = None) -> tuple[Any, Wire]:
    """The connection of one request that ``app`` has answered, or not."""
    protocol, wire = connected(app, stopping)
    protocol.data_received(request())
    await turned()
    assert not protocol.tasks
    return protocol, wire


def ends(sent: list[dict[str, Any]], error: BaseException | None = None) -> App:
    """An application that sends this, and then ends, or fails."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize("error", [None, RuntimeError("secret"), asyncio.CancelledError()])
async def test_who_was_sent_nothing_is_told_that_it_failed(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection goes on; only what is a fault is logged: being broken off at the end of a drain is none."""
    protocol, wire = await served(ends([], error))
    assert wire.written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert wire.written.endswith(b"\r\n\r\nInternal Server Error")
    assert b"content-length: 21\r\n" in wire.written
    assert not wire.is_closed
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(faults) == (1 if isinstance(error, RuntimeError) else 0)
    protocol.connection_lost(None)


@pytest.mark.parametrize("error", [None, RuntimeError("secret")])
async def test_who_was_sent_a_part_learns_that_this_was_all(error: BaseException | None) -> None:
    """By the end of the connection."""
    protocol, wire = await served(ends([START, BODY], error))
    assert wire.written.endswith(b"\r\n\r\na")
    assert wire.is_closed
    protocol.connection_lost(None)


async def test_a_whole_answer_stands_whatever_comes_after_it() -> None:
    """The client has what it asked for."""
    protocol, wire = await served(ends([START, {**BODY, "body": b"abcd", "more_body": False}], RuntimeError("late")))
    assert wire.written.endswith(b"\r\n\r\nabcd")
    assert not wire.is_closed
    protocol.connection_lost(None)


async def test_nothing_is_said_to_who_has_gone() -> None:
    """Nor is the connection closed twice."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        send.__self__.disconnected = True

    protocol, wire = await served(app)
    assert wire.written == b""
    assert not wire.is_closed
    protocol.connection_lost(None)


@pytest.mark.parametrize("behind", [0, 1, 3])
async def test_who_leaves_is_missed_whatever_waits_behind_the_request(behind: int) -> None:
    """By the request that is under way; those behind it are not begun any more."""
    seen: list[str] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            seen.append("begun")
        seen.append("gone")

    protocol, wire = connected(app)
    protocol.data_received(request() * (1 + behind))
    await turned()
    protocol.connection_lost(None)
    await turned()
    assert seen == ["begun", "gone"]
    assert wire.written == b""
    assert not protocol.tasks


async def test_each_request_hears_when_the_server_stops() -> None:
    """By the same word that the server has."""
    stopping, seen = Stopping(), []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope[STOPPING])

    protocol, _ = await served(app, stopping)
    assert seen == [stopping]
    protocol.connection_lost(None)
