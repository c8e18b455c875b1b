"""What is carried between the eras as it is, or not at all: links, pages, addresses to open."""

from typing import Any

import pytest

from tests.edge_world import META, Edge, modern, rpc
from tests.fakes.upstream import STOCK, tool
from tests.story.test_edge_resources import described

ERAS = pytest.mark.parametrize("era", ["handshake", "stateless"])
LINK = {"type": "resource_link", "uri": "file:///a", "name": "a"}
PAGE = tool("erp.resources/file:///a")


def said(era: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A request of either era."""
    return {"json": rpc(method, params)} if era == "handshake" else modern(method, params)


@ERAS
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
async def test_links_stay_as_their_server_wrote_them(era: str, method: str) -> None:
    """On the aggregate, too: a result is handed on byte for byte, and its address is read under the aggregate's own."""
    edge = Edge()
    edge.world.catalog.shelf = (STOCK, PAGE, tool("erp.prompts/stock"))
    content = {"role": "user", "content": LINK}
    edge.world.connector.result = {"content": [LINK]} if method == "tools/call" else {"messages": [content]}
    async with edge.client() as client:
        result = (await client.post("/mcp", **said(era, method, {"name": "erp__stock"}))).json()["result"]
        assert result.get("content", result.get("messages")) == [LINK if method == "tools/call" else content]
        edge.world.connector.result = {"contents": []}
        uri = "ostiary:erp:file:///a"
        named: dict[str, Any] = {"json": rpc("resources/read", {"uri": uri})}
        if era == "stateless":
            named = modern("resources/read", {"uri": uri}, **{"mcp-name": uri})
        assert "result" in (await client.post("/mcp", **named)).json()
    assert edge.world.connector.sent[-1].intent.call.arguments.value == {"uri": "file:///a"}


@ERAS
@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"])
async def test_a_list_is_one_page(era: str, method: str) -> None:
    """However long it is; there is no cursor to go on by, and one is refused."""
    edge = Edge()
    kinds = (("", ""), ("prompts/", ""), ("resources/x:", "resource"), ("resources/x:{id}", "resourceTemplate"))
    edge.world.catalog.shelf = tuple(
        described(f"erp.{kind}{at}", member) for kind, member in kinds for at in range(300)
    )
    async with edge.client() as client:
        page = (await client.post("/mcp", **said(era, method, {}))).json()
        refused = (await client.post("/mcp", **said(era, method, {"cursor": "x"}))).json()
    (listed,) = [value for value in page["result"].values() if isinstance(value, list)]
    assert len(listed) >= 300
    assert "nextCursor" not in page["result"]
    assert refused["error"]["data"]["cause"] == "cursor"


@ERAS
async def test_a_client_is_asked_to_open_no_address(era: str) -> None:
    """Where it offers that and nothing else, its upstream is told that it cannot be asked."""
    edge = Edge()
    able: dict[str, Any] = {"elicitation": {"url": {}}}
    async with edge.client() as client:
        if era == "handshake":
            opening = await client.post(
                "/mcp", json=rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": able})
            )
            session = {"mcp-session-id": opening.headers["mcp-session-id"]}
            await client.post("/mcp", json=rpc("tools/call", {"name": "erp__stock"}), headers=session)
        else:
            posted = modern("tools/call", {"name": "erp__stock"})
            posted["json"]["params"]["_meta"] = META | {"io.modelcontextprotocol/clientCapabilities": able}
            await client.post("/mcp", **posted)
    flow = edge.world.connector.sent[-1].intent.call.flow
    assert flow is None or flow.wants.capabilities == {}
    assert (flow is None) is (era == "stateless")  # who can be asked and told nothing has no line
