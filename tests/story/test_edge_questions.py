"""Questions about policy over REST: for people who answer for it, about anybody and any tool."""

import pytest

from tests.edge_world import Edge
from tests.fakes.rules import APPROVAL, DENY

QUESTION = {"tool": "erp.stock", "user": "dora", "agent": "clerk", "groups": ["desk"], "arguments": {}}


@pytest.mark.parametrize(("token", "status"), [("auditor", 200), ("admin", 200), ("person", 403), ("good", 403)])
async def test_who_may_ask(token: str, status: int) -> None:
    """Auditors and administrators; agents and other people learn nothing, hidden tools least of all."""
    edge = Edge()
    async with edge.client(token) as client:
        answer = await client.post("/v1/policy/questions", json=QUESTION)
    assert answer.status_code == status
    assert bool(edge.world.policy.asked) is (status == 200)


async def test_the_answer_tells_both_phases_apart() -> None:
    """Listing and call, each with reasons and whom it would wait for; nothing is recorded."""
    edge = Edge()
    edge.world.policy.words = {("list", "erp.stock"): DENY, ("call", "erp.stock"): APPROVAL}
    async with edge.client("auditor") as client:
        said = (await client.post("/v1/policy/questions", json=QUESTION)).json()
    assert said["listing"]["effect"] == "deny"
    assert said["listing"]["reasons"][0]["id"] == "test.deny"
    assert said["calling"]["effect"] == "needs_approval"
    assert said["calling"]["requirements"][0]["quorum"] == 1
    assert edge.records() == []
    (listing, calling) = edge.world.policy.asked
    assert listing["on_behalf_of"] == {"id": "dora", "groups": ["desk"]}
    assert calling["agent"] == {"id": "clerk"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"tool": "erp.none"}, 404),
        ({"user": "no name\n"}, 400),
        ({"scopes": ["admin"]}, 400),
        ({"arguments": []}, 400),
    ],
)
async def test_bad_questions_are_refused(change: dict[str, object], status: int) -> None:
    """Unknown tools and members, names that are none, arguments that are no object."""
    edge = Edge()
    async with edge.client("admin") as client:
        answer = await client.post("/v1/policy/questions", json=QUESTION | change)
    assert answer.status_code == status
    assert edge.world.policy.asked == []
