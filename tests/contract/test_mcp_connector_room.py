"""Where there are too many sessions with a server over HTTP, none makes room that a call is about to be sent in."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.eras import Era
from tests.asking_client import Client
from tests.rawhttp import RawUpstream, answer, running, says
from tests.waiting import until

EACH: list[Mapping[str, Any]] = [{}, {"sampling": {}}, {"elicitation": {}}]
FIRST, SECOND, THIRD = (asking.declared(capabilities) for capabilities in EACH)  # each has a session of its own


@asynccontextmanager
async def crowded() -> AsyncIterator[tuple[RawUpstream, HttpConnector]]:
    """An upstream with room for one session, and the connector to it."""
    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        Pool() as pool,
        HttpConnector(up.url, pool, HttpOptions(max_sessions=1)) as connector,
    ):
        yield up, connector


async def test_a_session_whose_call_waits_for_its_own_stream_is_in_use() -> None:
    """What is asked at once is to be heard: the call waits for that, and its session must not end meanwhile."""
    async with crowded() as (up, connector), create_task_group() as tasks:
        up.scripts["GET"] = up.hang
        tasks.start_soon(Client(SECOND).call, connector)
        await until(lambda: len(up.calls("GET")) == 1)
        await Client(FIRST).call(connector)
        await until(lambda: len(up.calls("tools/call")) == 2)
        assert up.calls("DELETE") == []


async def test_a_session_that_was_just_opened_is_in_use() -> None:
    """Also while its own call waits for the end of one that made room for it."""
    async with crowded() as (up, connector), create_task_group() as tasks:
        up.scripts["DELETE"] = up.hang
        await Client(FIRST).call(connector)
        tasks.start_soon(Client(SECOND).call, connector)
        await until(lambda: len(up.calls("DELETE")) == 1)
        tasks.start_soon(Client(THIRD).call, connector)
        await until(lambda: len(up.calls("tools/call")) == 3)
        assert [seen.headers["mcp-session-id"] for seen in up.calls("DELETE")] == ["session-1"]
