"""What a tool is called where, and what a call may not bring."""

from dataclasses import replace

import pytest

from tests.edge_world import Edge, rpc
from tests.fakes.upstream import STOCK


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/mcp", "erp.stock"),
        ("/mcp", "stock"),
        ("/servers/erp/mcp", "erp__stock"),
        ("/servers/erp/mcp", "erp.stock"),
        ("/servers/er/mcp", "p.stock"),
        ("/servers/erp./mcp", "stock"),
        ("/servers//mcp", "erp.stock"),
        ("/servers/erp.a/mcp", "b"),
        ("/servers/erp/mcp", "b"),
        ("/mcp", "erp__a.b"),
    ],
)
async def test_a_name_reaches_a_tool_only_where_it_is_its_name(path: str, name: str) -> None:
    """The aggregate knows wire names alone, a server's endpoint its own names alone: no separator moves a border."""
    edge = Edge()
    dotted = replace(STOCK, name="a.b")
    edge.world.catalog.shelf += (dotted,)
    async with edge.client() as client:
        answer = await client.post(path, json=rpc("tools/call", {"name": name}))
        assert (answer.json()["error"]["code"], answer.json()["error"]["message"]) == (-32602, "no such tool")
        assert len(edge.records()) == 1
        assert not edge.world.connector.sent
        own = await client.post("/servers/erp/mcp", json=rpc("tools/call", {"name": "a.b"}))
        wire = await client.post("/mcp", json=rpc("tools/call", {"name": dotted.wire_name}))
        assert "result" in own.json()
        assert "result" in wire.json()
    assert len(edge.world.connector.sent) == 2


async def test_an_idempotency_key_is_refused_until_it_is_kept() -> None:
    """Ignored, it would promise that a retry is safe. Both surfaces say so, nothing is executed, one record is left."""
    edge = Edge()
    async with edge.client() as client:
        key = {"idempotency-key": "k-1"}
        answer = await client.post("/mcp", json=rpc("tools/call", {"name": "erp__order"}), headers=key)
        assert answer.json()["error"]["data"]["cause"] == "idempotency_key"
        rest = await client.post("/v1/tools/erp.order/call", json={}, headers=key)
        assert (rest.status_code, rest.json()["cause"]) == (400, "idempotency_key")
        assert "nothing was executed" in rest.json()["detail"]
        said = (await client.get("/openapi.json")).json()["paths"]["/v1/tools/{tool}/call"]["post"]["parameters"]
        assert "Idempotency-Key" in {parameter["name"] for parameter in said}
    assert edge.records() == ["call.refused"] * 2
    assert not edge.world.connector.sent
