"""The kill switch at the surfaces: what may be named, and what a person who is stopped may still do."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.kills import Kind
from gateway.edge.asgi import Options
from tests.edge_world import ADMIN, Edge


@pytest.mark.requirement("INC-1")
async def test_who_is_stopped_changes_nothing() -> None:
    """An account taken over makes no other accounts, keys or kills; it may look, and the operator goes on."""
    edge = Edge(options=Options(issuer=ADMIN.issuer))
    kill, _ = await edge.world.kills.engage(ADMIN, Kind.USER, "root", "account taken over")
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/v1/tokens", {"user": "zoe", "scopes": ["admin"]}),
        ("/v1/api-keys", {"name": "mine", "user": "zoe", "scopes": ["admin"]}),
        ("/v1/kills", {"kind": "all", "reason": "theirs"}),
        (f"/v1/kills/{kill.id}/lift", {"reason": "it is me"}),
    )
    async with edge.client("admin") as admin:
        for path, body in changes:
            answer = await admin.post(path, json=body)
            assert (answer.status_code, answer.json()["cause"]) == (403, "kill.user"), path
        assert (await admin.get("/v1/kills")).status_code == 200
    assert (edge.changes.recorded, len(edge.world.kills.all())) == ([], 1)
    edge.world.identity.tokens["second"] = replace(ADMIN, user="second")
    await edge.world.kills.engage(ADMIN, Kind.ALL, "", "a test")
    async with edge.client("second") as other:
        mine = {"user": "second", "scopes": ["admin"]}
        assert (await other.post("/v1/tokens", json=mine)).status_code == 201, "only calls are stopped by it"


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    "name", ["0197a000", "0197a000-0000-7000-8000", "run-1", "0197a000-0000-7000-8000-00000000000g"]
)
async def test_a_run_is_named_whole(name: str) -> None:
    """A part of an id stops nothing, and nobody is told that it did."""
    edge = Edge()
    async with edge.client("admin") as admin:
        answer = await admin.post("/v1/kills", json={"kind": "run", "name": name, "reason": "off its goal"})
        assert (answer.status_code, edge.world.kills.all()) == (422, ())
        whole = {"kind": "run", "name": " 0197A000-0000-7000-8000-000000000001", "reason": "off its goal"}
        assert (await admin.post("/v1/kills", json=whole)).status_code == 201
