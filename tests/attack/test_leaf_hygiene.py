"""Nothing that people, agents, tools or policies write freely stands in a leaf: with the payload key it is gone."""

from contextlib import closing

from gateway.adapters.ledger.storage.files import DATABASE, connect_readonly
from tests.e2e.house import House, house

__all__ = ["house"]

GOAL = "quince-goal tidy the shed"
WORDS = {
    "a goal": GOAL,
    "arguments of a call that is made": "quince-made argument",
    "arguments of a call that is refused by policy": "QUINCE-SHOUTED",
    "arguments of a call that does not fit": "quince-unfit",
    "the name of no tool": "erp.quince_invented",
    "the name of a tool that is no name": "quince no name",
    "a client's name": "quince-client",
    "why a run was closed": "quince-reason because",
    "a rule's message": "notes are not shouted",
    "a path asked for": "quince-path",
}


def test_no_leaf_holds_a_free_text(house: House) -> None:
    """After calls made, refused, misspelt and misnamed: every leaf is searched for every text that was given."""
    gateway = house.gateway
    made, shouted = WORDS["arguments of a call that is made"], WORDS["arguments of a call that is refused by policy"]
    run_id, token = gateway.run("gardener", goal=GOAL, scope=["erp.*", "api.*"])
    statuses = [
        gateway.call(token, "erp.add_note", {"text": made}).status_code,
        gateway.call(token, "erp.add_note", {"text": shouted}).status_code,
        gateway.call(token, "erp.add_note", {"quince-unfit": 1}).status_code,
        gateway.call(token, "erp.quince_invented", {"id": "quince-unfit"}).status_code,
        gateway.call(token, "quince no name").status_code,
        gateway.call(token, "api.thing", {"id": "quince-path"}).status_code,
    ]
    assert statuses[:2] == [200, 403]
    assert all(400 <= status < 500 for status in statuses[2:5])
    with gateway.client(token) as client:
        client.post("/mcp", json={"jsonrpc": "2.0", "id": "quince-client", "method": "quince-path"})
    assert gateway.http.post(f"/v1/runs/{run_id}/end", json={"reason": WORDS["why a run was closed"]}).status_code < 500
    with closing(connect_readonly(gateway.state / DATABASE)) as database:
        leaves = [bytes(leaf) for (leaf,) in database.execute("select leaf from records")]
        sealed = b"".join(bytes(row) for (row,) in database.execute("select sealed from payloads"))
    assert len(leaves) > 10
    for text in {*WORDS.values(), "quince", "QUINCE"}:
        held = [leaf for leaf in leaves if text.encode() in leaf]
        assert held == [], text
        assert text.encode() not in sealed
    reasons = gateway.http.get("/v1/audit/decisions", params={"effect": "deny", "tool": "erp.add_note"}).json()
    assert "QUINCE-SHOUTED" in str(reasons["decisions"][-1]["input"])
