"""The contract of a connector, on every connector there is: what is sent, and how a call can end."""

import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after

from connectors.http import HttpApi
from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from connectors.sql import SqliteConnector
from gateway.core.connector import Connector
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import ConnectorKind, EffectClass, Tool
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool
from tests.fakes.web import Exchange, serving
from tests.http_tools import CREATE, OPEN
from tests.processes import FIXTURES
from tests.rawhttp import answer, error, running, says

WORDS = "upstream's words"
SENT = {"text": "café", "number": 7}


@dataclass(frozen=True)
class Upstream:
    """A connector and the upstream it reaches, which behaves as the test asked.

    Attributes:
        connector: the connector.
        tool: a tool that writes.
        sent: what reached the upstream so far, a call each; ids that number messages are left out.
    """

    connector: Connector
    tool: Tool
    sent: Callable[[], list[bytes]]


Opened = Callable[[str, Path, pytest.MonkeyPatch], AbstractAsyncContextManager[Upstream]]


@asynccontextmanager
async def http(mood: str, _: Path, __: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    """An HTTP API."""
    async with serving() as web:
        web.json(b'{"done":true}')
        if mood == "refuses":
            web.json(b'{"why":"upstream\'s words"}', "500 X")
        elif mood == "breaks":
            web.play = _broken
        origin = "http://127.0.0.1:1" if mood == "down" else web.origin
        async with HttpApi(origin, OPEN) as connector:
            yield Upstream(connector, CREATE, lambda: [one.line.encode() + one.body for one in web.exchanges])


async def _broken(exchange: Exchange) -> None:
    exchange.writer.close()


def mcp(era: Era) -> Opened:
    """An MCP server of ``era`` by URL."""

    @asynccontextmanager
    async def opened(mood: str, _: Path, __: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
        moods = {"refuses": says(lambda seen: error(seen, -32602)), "breaks": says(lambda _: b"HTTP/1.1", close=True)}
        async with running(era, call=moods.get(mood, says(answer))) as up:
            url = "http://127.0.0.1:1/mcp" if mood == "down" else up.url
            async with Pool() as pool, HttpConnector(url, pool) as connector:
                yield Upstream(connector, make_tool(), lambda: [_bare(seen.body) for seen in up.calls("tools/call")])

    return opened


def _bare(message: bytes) -> bytes:
    return re.sub(rb'"id":\d+', b'"id":0', message)


@asynccontextmanager
async def stdio(mood: str, folder: Path, _: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    """An MCP server as a child process, with a tee in its input."""
    heard = folder / "heard"
    argv = [sys.executable, "-I", str(FIXTURES / "raw_stdio.py"), "well", str(folder / "starts")]
    if mood == "good":
        argv = ["/bin/sh", "-c", f"tee {heard} | {' '.join(argv)}"]
    elif mood == "down":
        argv = ["/nowhere/at/all"]
    name = {"refuses": "refuse", "breaks": "die"}.get(mood, "echo")
    options = StdioOptions(setup_timeout_s=10, first_pause_s=0.05, longest_pause_s=0.2)
    async with StdioConnector(Command(argv, {"PATH": "/usr/bin:/bin"}), lambda _: None, options) as connector:

        def sent() -> list[bytes]:
            return [_bare(line) for line in heard.read_bytes().splitlines() if b"tools/call" in line]

        yield Upstream(connector, make_tool(name), sent)


@asynccontextmanager
async def sql(mood: str, folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    """A SQLite database."""
    path = folder / "up.db"
    if mood != "down":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE heard (text TEXT NOT NULL, number INT)")
    if mood == "breaks":
        _break_commits(patch)
    value = "NULL || :text" if mood == "refuses" else ":text"
    binding = {
        "statement": f"INSERT INTO heard VALUES ({value}, :number)",
        "parameters": ("text", "number"),
        "mode": "write",
    }
    tool = make_tool("write", connector=ConnectorKind.SQL, effect=EffectClass.WRITE, binding=binding)

    def sent() -> list[bytes]:
        with closing(sqlite3.connect(path)) as database:
            return [repr(row).encode() for row in database.execute("SELECT * FROM heard")]

    async with SqliteConnector(path) as connector:
        yield Upstream(connector, tool, sent)


def _break_commits(patch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    class Broken(sqlite3.Connection):
        """A connection to a disk that fails at COMMIT."""

        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            """Fail on COMMIT with the error SQLite has for it."""
            if sql != "COMMIT":
                return super().execute(sql, *rest)
            failure = sqlite3.OperationalError(WORDS)
            failure.sqlite_errorcode, failure.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
            raise failure

    patch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, factory=Broken, **more))


CONNECTORS: Mapping[str, Opened] = {
    "http": http,
    "mcp 2025": mcp(Era.HANDSHAKE),
    "mcp 2026": mcp(Era.STATELESS),
    "mcp stdio": stdio,
    "sql": sql,
}
EVERY = pytest.mark.parametrize("opened", CONNECTORS.values(), ids=CONNECTORS)


async def failing(upstream: Upstream) -> GatewayError:
    """How a call fails; it must end by itself, and say nothing that the upstream said."""
    with pytest.raises(GatewayError) as caught, fail_after(20):
        await upstream.connector.invoke(lease(upstream.tool, SENT))
    assert WORDS not in caught.value.detail
    return caught.value


@pytest.mark.requirement("TOOL-8")
@EVERY
async def test_the_same_input_is_sent_as_the_same_bytes(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is sent once, in canonical form however its caller wrote it; the answer keeps the output contract."""
    async with opened("good", tmp_path, monkeypatch) as upstream:
        await upstream.connector.ping()
        for text in ('{"text":"café","number":7}', '{ "number" : 7, "text" : "caf\\u00e9" }'):
            wanted = lease(upstream.tool, text.encode())
            with fail_after(20):
                raw = await upstream.connector.invoke(wanted)
            assert raw.lease is wanted
            Verifier().verify(raw)
        first, second = upstream.sent()
        assert first == second
        assert "café".encode() in first or "café" in first.decode("unicode_escape")


@pytest.mark.requirement("TOOL-8")
@EVERY
async def test_what_the_upstream_refuses_has_failed(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the gateway's ``ToolFailed``, or a result that says so for the model to act on."""
    async with opened("refuses", tmp_path, monkeypatch) as upstream:
        if upstream.tool.connector is ConnectorKind.SQL:
            raw = await upstream.connector.invoke(lease(upstream.tool, SENT))
            assert raw.value["isError"] is True
            Verifier().verify(raw)
        else:
            assert type(await failing(upstream)) is ToolFailed


@pytest.mark.requirement("TOOL-8")
@EVERY
async def test_a_call_that_never_left_was_not_sent(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there to take it; readiness says so too."""
    async with opened("down", tmp_path, monkeypatch) as upstream:
        assert type(await failing(upstream)) is NotSent
        with pytest.raises(Unavailable):
            await upstream.connector.ping()


@pytest.mark.requirement("TOOL-8", "TEST-5")
@EVERY
async def test_a_call_whose_answer_is_lost_is_unknown(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left, and nobody can say what happened."""
    async with opened("breaks", tmp_path, monkeypatch) as upstream:
        assert type(await failing(upstream)) is OutcomeUnknown
