"""Prompts over MCP: the same pipeline as for tools, under a kind and names of their own."""

import json
from typing import Any

import pytest

from tests.edge_world import Edge, modern, rpc
from tests.fakes.rules import APPROVAL, DENY
from tests.fakes.upstream import STOCK, tool

MESSAGES = {"messages": [{"role": "user", "content": {"type": "text", "text": "Write a letter."}}]}
LETTER = tool("erp.prompts/letter")
TWIN = tool("erp.prompts/stock")


def edge_with_prompts() -> Edge:
    """A server with a tool and two prompts, one of which has the tool's name."""
    edge = Edge()
    edge.world.catalog.shelf = (STOCK, LETTER, TWIN)
    edge.world.connector.result = MESSAGES
    return edge


def names(answer: Any, member: str) -> list[str]:
    """The names in a listing."""
    return [item["name"] for item in answer.json()["result"][member]]


async def test_prompts_are_listed_apart_from_tools() -> None:
    """Each list has its own kind only, under the endpoint's names; the schema made of the arguments is not shown."""
    edge = edge_with_prompts()
    async with edge.client() as client:
        everywhere = await client.post("/mcp", json=rpc("prompts/list"))
        own = await client.post("/servers/erp/mcp", **modern("prompts/list"))
        tools = await client.post("/servers/erp/mcp", **modern("tools/list"))
        over_rest = (await client.get("/v1/tools")).json()["tools"]
    assert names(everywhere, "prompts") == ["erp__letter", "erp__stock"]
    assert names(own, "prompts") == ["letter", "stock"]
    assert own.json()["result"]["cacheScope"] == "private"
    assert "inputSchema" not in own.json()["result"]["prompts"][0]
    assert names(tools, "tools") == ["stock"]
    assert [shown["name"] for shown in over_rest] == ["erp.stock"]


async def test_a_prompt_passes_the_one_pipeline() -> None:
    """It is decided on and recorded as a call of ``server.prompts/NAME``, intent first, in both eras."""
    edge = edge_with_prompts()
    async with edge.client() as client:
        old = await client.post("/mcp", json=rpc("prompts/get", {"name": "erp__letter"}))
        params = {"name": "letter", "arguments": {"to": "x"}}
        new = await client.post("/servers/erp/mcp", **modern("prompts/get", params))
    assert old.json()["result"] == MESSAGES
    assert new.json()["result"] == {"resultType": "complete", **MESSAGES}
    assert [lease.intent.tool.fqn for lease in edge.world.connector.sent] == ["erp.prompts/letter"] * 2
    assert edge.records().count("tool.requested") == edge.records().count("tool.completed") == 2


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_a_hidden_prompt_is_one_that_does_not_exist(era: str) -> None:
    """Both are answered in the same words, ask policy as often and leave the same records; nothing is sent."""
    said = []
    for name in ("letter", "nothing"):
        edge = edge_with_prompts()
        edge.world.policy.words["list", "erp.prompts/letter"] = DENY
        params = {"name": name}
        post = modern("prompts/get", params) if era == "stateless" else {"json": rpc("prompts/get", params)}
        async with edge.client() as client:
            answer = (await client.post("/servers/erp/mcp", **post)).json()["error"]
            listed = names(await client.post("/servers/erp/mcp", json=rpc("prompts/list")), "prompts")
        assert listed == ["stock"]
        assert not edge.world.connector.sent
        said.append((answer["code"], answer["message"], edge.world.policy.questions, edge.records()))
    assert said[0] == said[1]
    assert said[0][:2] == (-32602, "no such prompt")


@pytest.mark.parametrize("name", ["prompts/letter", "letter"])
async def test_no_surface_for_tools_reaches_a_prompt(name: str) -> None:
    """Neither ``tools/call`` nor REST, whatever name is given; what policy says of tools says nothing of prompts."""
    edge = edge_with_prompts()
    async with edge.client() as client:
        own = await client.post("/servers/erp/mcp", json=rpc("tools/call", {"name": name}))
        everywhere = await client.post("/mcp", json=rpc("tools/call", {"name": f"erp__{name}"}))
        over_rest = await client.post(f"/v1/tools/erp.{name}/call", json={"arguments": {}})
    assert own.json()["error"] | {"data": 0} == everywhere.json()["error"] | {"data": 0}
    assert own.json()["error"]["message"] == "no such tool"
    assert over_rest.status_code == 404
    assert not edge.world.connector.sent


@pytest.mark.parametrize("name", ["wipe", "prompts/letter", "erp__letter"])
async def test_no_prompt_reaches_a_tool(name: str) -> None:
    """A prompt and a tool of one name are two things, and other names name nothing."""
    edge = edge_with_prompts()
    async with edge.client() as client:
        missing = await client.post("/servers/erp/mcp", json=rpc("prompts/get", {"name": name}))
        assert missing.json()["error"]["message"] == "no such prompt"
        assert not edge.world.connector.sent
        twin = await client.post("/servers/erp/mcp", json=rpc("prompts/get", {"name": "stock"}))
    assert "messages" in twin.json()["result"]
    assert [lease.intent.tool.fqn for lease in edge.world.connector.sent] == ["erp.prompts/stock"]


async def test_a_refused_prompt_is_an_error_of_the_protocol() -> None:
    """No tool result that says so: a client would look for messages in it. Who may see it is told the rule."""
    edge = edge_with_prompts()
    edge.world.policy.words["call", "erp.prompts/letter"] = DENY
    async with edge.client() as client:
        answer = (await client.post("/mcp", json=rpc("prompts/get", {"name": "erp__letter"}))).json()
        twice = await client.post("/mcp", json=rpc("prompts/list", {"cursor": "x"}))
        silent = {"jsonrpc": "2.0", "method": "prompts/get", "params": {"name": "erp__letter"}}
        unanswered = await client.post("/mcp", json=silent)
    assert answer["error"]["data"]["code"] == "denied"
    assert twice.json()["error"]["code"] == -32602
    assert unanswered.status_code == 400
    assert not edge.world.connector.sent


async def test_a_prompt_that_waits_for_people_says_how_to_go_on() -> None:
    """The error has what a pending tool result has: the approval, and what to do."""
    edge = edge_with_prompts()
    edge.world.policy.words["call", "erp.prompts/letter"] = APPROVAL
    async with edge.client() as client:
        answer = (await client.post("/mcp", json=rpc("prompts/get", {"name": "erp__letter"}))).json()
    assert answer["error"]["data"]["status"] == "pending", json.dumps(answer)
    assert answer["error"]["data"]["approval_id"]
    assert not edge.world.connector.sent
