"""What an agent says of its own call, on both surfaces: it reaches policy as it was said, or the call is refused."""

from typing import Any

import pytest

from gateway.core.call import Proof
from tests.edge_world import Edge, rpc

STOCK = "/v1/tools/erp.stock/call"
EARLIER = "0197a000-0000-7000-8000-0000000000aa"
UNKNOWN = "0197a000-0000-7000-8000-0000000000bb"


def by_mcp(said: dict[str, Any]) -> dict[str, Any]:
    """The members of a REST body as they stand in an MCP request."""
    return rpc("tools/call", {"name": "erp__stock", "_meta": {f"ostiary/{key}": value for key, value in said.items()}})


@pytest.mark.parametrize(
    "said", [{}, {"risk": {"confidence_pct": 40}}, {"risk": {"confidence_pct": 0, "score_pct": 9}}]
)
async def test_policy_reads_what_was_said(said: dict[str, Any]) -> None:
    """In phase call only, and on both surfaces the same."""
    edge = Edge()
    async with edge.client() as client:
        assert (await client.post(STOCK, json=said)).status_code == 200
        assert "result" in (await client.post("/mcp", json=by_mcp(said))).json()
    asked = edge.world.policy.asked
    assert [document.get("risk") for document in asked if document["phase"] == "call"] == [said.get("risk")] * 2
    assert not any("risk" in document for document in asked if document["phase"] == "list")


async def test_evidence_is_what_the_log_bears_out() -> None:
    """What else is named is not there; a call that names nothing has no evidence at all."""
    edge = Edge()
    edge.world.runs.proofs[EARLIER] = Proof(EARLIER, "erp.check")
    said = {"evidence": [UNKNOWN, EARLIER, EARLIER]}
    async with edge.client() as client:
        await client.post(STOCK, json=said)
        await client.post("/mcp", json=by_mcp(said))
        await client.post(STOCK, json={"evidence": [UNKNOWN]})
        await client.post(STOCK, json={})
    found = [document.get("evidence") for document in edge.world.policy.asked if document["phase"] == "call"]
    proven = [{"call_id": EARLIER, "tool": "erp.check"}]
    assert found == [proven, proven, [], None]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("risk", {}),
        ("risk", 7),
        ("risk", {"confidence_pct": 101}),
        ("risk", {"confidence_pct": -1}),
        ("risk", {"confidence_pct": 0.5}),
        ("risk", {"confidence_pct": "90"}),
        ("risk", {"confidence_pct": True}),
        ("risk", {"score_pct": 1, "allow": True}),
        ("evidence", EARLIER),
        ("evidence", ["call-1"]),
        ("evidence", [EARLIER.upper()]),
        ("evidence", [7]),
        ("evidence", [EARLIER] * 17),
    ],
)
async def test_what_cannot_be_read_is_refused(member: str, value: Any) -> None:
    """Nothing is executed, the member is named, and there is one record of it."""
    edge = Edge()
    async with edge.client() as client:
        rest = await client.post(STOCK, json={member: value})
        mcp = (await client.post("/mcp", json=by_mcp({member: value}))).json()["error"]
    assert (rest.status_code, mcp["code"]) == (400, -32602)
    assert member in rest.json()["detail"]
    assert f"ostiary/{member}" in mcp["message"]
    assert not edge.world.connector.sent
    assert edge.records() == ["call.refused"] * 2
