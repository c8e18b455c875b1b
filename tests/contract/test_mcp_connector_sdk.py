"""The MCP connector over HTTP against servers built on the official SDKs, 1.x and 2.x."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import create_task_group

from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from gateway.core.mcpwire.eras import Era
from tests.asking_client import Client
from tests.evidence import lease, make_tool
from tests.processes import http_server
from tests.venvs import python

SERVERS = {
    "1.x, sessions and streams": ("mcp1", Era.HANDSHAKE, ["mcp1_http.py"]),
    "1.x, sessions and JSON": ("mcp1", Era.HANDSHAKE, ["mcp1_http.py", "--json"]),
    "1.x, without sessions": ("mcp1", Era.HANDSHAKE, ["mcp1_http.py", "--stateless"]),
    "2.x, streams": ("mcp2", Era.STATELESS, ["mcp2_http.py"]),
    "2.x, JSON": ("mcp2", Era.STATELESS, ["mcp2_http.py", "--json"]),
}
Upstream = tuple[HttpConnector, Era]


@pytest.fixture(scope="module", params=SERVERS)
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    """A connector to each kind of server, and the era it is expected to find."""
    venv, era, arguments = SERVERS[request.param]
    with http_server(python(venv), *arguments) as url:
        async with Pool() as pool, HttpConnector(url, pool) as connector:
            yield connector, era


async def called(connector: HttpConnector, name: str, arguments: dict[str, Any], **other: Any) -> dict[str, Any]:
    """The result of one call, against the definition the server itself lists."""
    definition = next(tool for tool in await connector.discover() if tool["name"] == name)
    tool = make_tool(name, definition=definition)
    return (await connector.invoke(lease(tool, arguments, **other))).value


@pytest.mark.requirement("TOOL-7")
async def test_tools_are_listed_and_called(upstream: Upstream) -> None:
    """The era is found; text and structured results come back; a tool's own failure is a result, not an error."""
    connector, era = upstream
    names = {tool["name"] for tool in await connector.discover()}
    assert names >= {"echo", "add", "fail", "chatty"}
    assert connector.era is era
    assert (await called(connector, "echo", {"text": "é€"}))["content"][0]["text"] == "é€"
    assert (await called(connector, "add", {"a": 1, "b": 2}))["structuredContent"] == {"sum": 3}
    assert (await called(connector, "fail", {}))["isError"] is True
    await connector.ping()


async def test_notes_before_the_answer_are_skipped(upstream: Upstream) -> None:
    """A tool that logs and reports progress is answered like any other."""
    connector, _ = upstream
    assert (await called(connector, "chatty", {}))["content"][0]["text"] == "done"


async def test_many_calls_at_once_get_their_own_answers(upstream: Upstream) -> None:
    """Concurrent calls are not mixed up."""
    connector, _ = upstream
    texts: dict[str, str] = {}

    async def one(text: str) -> None:
        raw = await connector.invoke(lease(make_tool("echo"), {"text": text}))
        texts[text] = raw.value["content"][0]["text"]

    async with create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, f"text {number}")
    assert texts == {text: text for text in texts}
    assert len(texts) == 20


async def test_each_call_goes_out_with_its_own_credential(upstream: Upstream) -> None:
    """The server sees the lease's credential, and in a session of that credential only."""
    connector, _ = upstream
    seen = [
        (await called(connector, "whoami", {}, headers={"Authorization": f"Bearer {who}"}))["content"][0]["text"]
        for who in ("alice", "bob", "alice")
    ]
    assert [text.split(" ")[1] for text in seen] == ["alice", "bob", "alice"]
    assert seen[0] == seen[2]


async def test_annotated_arguments_travel_in_headers() -> None:
    """The SDK's server refuses a call whose annotated argument is not repeated in its header."""
    with http_server(python("mcp2"), "mcp2_http.py") as url:
        async with Pool() as pool, HttpConnector(url, pool) as connector:
            result = await called(connector, "routed", {"region": "zürich ", "amount": 5})
            assert result["content"][0]["text"] == "zürich  5"


async def test_sampling_is_declined() -> None:
    """A server that asks for a model it was never offered is told so, and its tool goes on."""
    with http_server(python("mcp1"), "mcp1_http.py") as url:
        async with Pool() as pool, HttpConnector(url, pool) as connector:
            assert (await called(connector, "sample", {}))["content"][0]["text"] == "refused: not offered"


async def test_sampling_aside_reaches_the_one_call_that_is_under_way() -> None:
    """The SDK puts what names no request on the session's own stream: its caller is asked, who says no here."""
    client = Client(tool=make_tool("sample"))
    async with Pool() as pool:
        with http_server(python("mcp1"), "mcp1_http.py") as url:
            async with HttpConnector(url, pool) as connector:
                said = await client.call(connector, arguments={"aside": True})
    assert said.value["content"][0]["text"] == "refused: not answered (declined)"
    assert [question.method for question in client.shown] == ["sampling/createMessage"]
