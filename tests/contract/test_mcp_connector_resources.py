"""Resources and completion between connector and upstream, in both eras: what is listed, and what is sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from gateway.core.errors import GatewayError
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import encode
from tests.evidence import lease, make_tool
from tests.rawhttp import RawUpstream, answer, error, http, running, says

OFFERS: dict[str, Any] = {"tools": {}, "resources": {}, "completions": {}}
CONTENTS = {"contents": [{"uri": "x:7", "text": "seven"}]}
VALUES = {"completion": {"values": ["7"]}}


def offering(up: RawUpstream) -> None:
    """Let the upstream say that it has resources, and list some."""
    named = {"protocolVersion": "2025-11-25", "capabilities": OFFERS, "serverInfo": {"name": "raw", "version": "0"}}
    whole = {"supportedVersions": ["2026-07-28"], "capabilities": OFFERS, "resultType": "complete"}
    if up.era is Era.HANDSHAKE:
        up.scripts["initialize"] = says(lambda seen: answer(seen, named, extra="mcp-session-id: one\r\n"))
    else:
        up.scripts["server/discover"] = says(lambda seen: answer(seen, whole))
    listed = {
        "tools/list": {"tools": [{"name": "echo"}]},
        "resources/list": {"resources": [{"uri": "x:a%2Fb", "name": "one"}]},
        "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "x:{id}", "name": "many"}]},
        "resources/read": CONTENTS,
        "completion/complete": VALUES,
    }
    for method, result in listed.items():
        up.scripts.setdefault(method, says(partial(answer, result=result)))


@asynccontextmanager
async def connected(era: Era) -> AsyncIterator[tuple[RawUpstream, HttpConnector]]:
    """A connector to an upstream with resources."""
    async with running(era) as up, Pool() as pool, HttpConnector(up.url, pool) as connector:
        offering(up)
        yield up, connector


@pytest.mark.requirement("TOOL-7")
@pytest.mark.parametrize("era", list(Era))
async def test_what_is_read_is_the_very_address_that_was_decided_on(era: Era) -> None:
    """Resources and templates are discovered; a read sends its argument, and the header of the era repeats it."""
    async with connected(era) as (up, connector):
        names = [definition["name"] for definition in await connector.discover()]
        assert names == ["echo", "resources/x:a%2Fb", "resources/x:{id}"]
        listed, made = make_tool(names[1]), replace(make_tool(names[2]), uri="x:7")
        for tool, uri in ((listed, "x:a%2Fb"), (made, "x:7")):
            assert (await connector.invoke(lease(tool, {"uri": uri}))).value == CONTENTS
        sent = up.calls("resources/read")
        assert [seen.message["params"]["uri"] for seen in sent] == ["x:a%2Fb", "x:7"]
        repeated = [seen.headers.get("mcp-name") for seen in sent]
        assert repeated == (["x:a%2Fb", "x:7"] if era is Era.STATELESS else [None, None])


@pytest.mark.parametrize("era", list(Era))
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("prompts/letter", {"type": "ref/prompt", "name": "letter"}),
        ("resources/x:{id}", {"type": "ref/resource", "uri": "x:{id}"}),
    ],
)
async def test_what_is_typed_is_sent_with_what_it_is_for(era: Era, name: str, reference: dict[str, str]) -> None:
    """The reference is made of the tool's name, the rest is what was decided on; no header repeats anything of it."""
    async with connected(era) as (up, connector):
        typed = {"argument": {"name": "id", "value": "7"}, "context": {"arguments": {"a": "b"}}}
        tool = make_tool(f"completions/{name}")
        assert (await connector.invoke(lease(tool, encode(typed)))).value == VALUES
        (seen,) = up.calls("completion/complete")
        assert {key: value for key, value in seen.message["params"].items() if key != "_meta"} == {
            "ref": reference,
            **typed,
        }
        assert "mcp-name" not in seen.headers


async def test_what_is_known_of_one_definition_names_no_other_call() -> None:
    """Addresses of one template, and tools whose pins are alike: each call repeats its own name, again and again."""
    async with connected(Era.STATELESS) as (up, connector):
        up.scripts["tools/call"] = says(partial(answer, result=CONTENTS))
        template, tool = make_tool("resources/x:{id}"), make_tool("one")
        typed = replace(tool, name="completions/prompts/one")
        for number in ("7", "8"):
            address = f"x:{number}"
            await connector.invoke(lease(replace(template, uri=address), {"uri": address}))
            for named in (tool, replace(tool, name="two")):
                await connector.invoke(lease(named))
            await connector.invoke(lease(typed, encode({"argument": {"name": "id", "value": "7"}})))
        assert [seen.headers.get("mcp-name") for seen in up.calls("resources/read")] == ["x:7", "x:8"]
        assert [seen.headers.get("mcp-name") for seen in up.calls("tools/call")] == ["one", "two"] * 2
        assert [seen.headers.get("mcp-name") for seen in up.calls("completion/complete")] == [None, None]


@pytest.mark.parametrize("era", list(Era))
async def test_resources_that_cannot_be_listed_keep_no_tool_away(era: Era) -> None:
    """A refusal, garbage or a listing that is none leaves resources out, and the tools are there."""
    async with connected(era) as (up, connector):
        for script in (
            says(lambda seen: error(seen, -32603)),
            says(lambda seen: error(seen, -32601)),
            says(lambda seen: answer(seen, {"resources": 3})),
            says(lambda seen: answer(seen, {"resources": [{"uri": f"x:{at}"} for at in range(1001)]})),
        ):
            up.scripts["resources/list"] = script
            assert [item["name"] for item in await connector.discover()] == ["echo", "resources/x:{id}"]


async def test_what_there_is_besides_tools_is_known_while_the_era_is_not() -> None:
    """One caller's lost session has the era found out afresh, and takes nobody's resources away meanwhile."""
    async with connected(Era.HANDSHAKE) as (up, connector):
        found = await connector.discover()
        assert len(found) == 3
        up.scripts["tools/call"] = says(lambda _: http(b"", status="404 Not Found"))
        with pytest.raises(GatewayError):
            await connector.invoke(lease(make_tool()))
        assert (await connector.discover(), connector.era) == (found, None)
