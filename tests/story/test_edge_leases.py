"""Minted credentials at the surface: who sees which are in use, and ending those of an agent at once."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.desk import LiveLease
from tests.edge_world import Edge
from tests.fakes.callers import AGENT
from tests.fakes.desk import FakeLeaseDesk

LEASES = [
    LiveLease("erp-read", "r-1", "c-1", "clerk", "ada", "erp.find", 1),
    LiveLease("erp-write", "r-1", "c-2", "clerk", "ada", "erp.stage", 2),
    LiveLease("erp-read", "r-2", "c-3", "bot", "ben", "erp.find", 3),
]


def edge() -> Edge:
    """A gateway with three credentials in use, and an administrator."""
    made = Edge(leases=FakeLeaseDesk(list(LEASES), frozenset({"erp-write"})))
    person = replace(AGENT, agent=None, user="adam", scopes=frozenset({"admin"}))
    made.world.identity.tokens["adam"] = person
    return made


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    ("whose", "revoked", "pending", "left"),
    [
        ({"agent": "clerk"}, 1, 1, ["c-3"]),
        ({"user": "ben"}, 1, 0, ["c-1", "c-2"]),
        ({"tool": "erp.find"}, 2, 0, ["c-2"]),
        ({"run": "r-1", "tool": "erp.find"}, 1, 0, ["c-2", "c-3"]),
        ({"everything": True}, 2, 1, []),
        ({"agent": "nobody"}, 0, 0, ["c-1", "c-2", "c-3"]),
    ],
)
async def test_those_that_are_meant_are_ended(
    whose: dict[str, Any], revoked: int, pending: int, left: list[str]
) -> None:
    """By agent, user, tool, run or all; it is recorded who wanted it, and the rest goes on."""
    made = edge()
    async with made.client("adam") as adam:
        said = await adam.post("/v1/leases/revoke", json=whose)
        assert said.json() == {"revoked": revoked, "pending": pending}
        listed = (await adam.get("/v1/leases")).json()["leases"]
    assert [one["call_id"] for one in listed] == left
    assert made.changes.recorded == [("adam", "leases.revoked", whose)]


@pytest.mark.parametrize(
    "whose", [{}, {"agent": "a", "everything": True}, {"agent": ""}, {"everything": "yes"}, {"x": 1}]
)
async def test_nobody_is_meant_by_accident(whose: dict[str, Any]) -> None:
    """Neither nothing nor a mistake ends anything."""
    made = edge()
    async with made.client("adam") as adam:
        assert (await adam.post("/v1/leases/revoke", json=whose)).status_code in {400, 422}
    assert (len(made.leases.leases), made.changes.recorded) == (3, [])


async def test_no_agent_ends_or_sees_any() -> None:
    """An agent's credential has no say."""
    async with edge().client("good") as agent:
        assert (await agent.get("/v1/leases")).status_code == 403
        assert (await agent.post("/v1/leases/revoke", json={"everything": True})).status_code == 403
