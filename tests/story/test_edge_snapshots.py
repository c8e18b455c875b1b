"""States of runs over HTTP: only who works in a run keeps them, only who may see the run finds them."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.call import RunKind
from tests.edge_world import Edge
from tests.fakes.callers import RUN

PATH = f"/v1/runs/{RUN.id}/snapshots"


def edge() -> Edge:
    """With an open run."""
    found = Edge()
    found.world.runs.opened[RUN.id] = replace(RUN, kind=RunKind.OPENED)
    return found


@pytest.mark.requirement("PROV-4")
async def test_an_agent_keeps_where_it_stands_and_finds_it_again() -> None:
    """Its person and auditors see it, too, and that is recorded; the agent's own look is not."""
    world = edge()
    async with world.client() as agent, world.client("person") as person, world.client("auditor") as auditor:
        assert (await agent.get(f"{PATH}/newest")).status_code == 404
        kept = await agent.post(PATH, json={"label": "match/3", "state": {"b": [1.50, "x"], "a": None}})
        assert kept.status_code == 201, kept.text
        for client in (agent, person, auditor):
            found = (await client.get(f"{PATH}/newest")).json()
            assert found == kept.json()
            assert (found["label"], found["state"]) == ("match/3", {"b": [1.5, "x"], "a": None})
    assert [seen.roles for _, seen in world.views.seen] == [("state",), ("state",)]


async def test_nobody_else_keeps_or_finds_one() -> None:
    """A stranger hears that there is no such run; a person and an auditor do not work in it."""
    world = edge()
    for token, read in (("other", 404), ("person", 200), ("auditor", 200), (None, 401)):
        async with world.client() as agent, world.client(token) as client:
            await agent.post(PATH, json={"label": "one", "state": {}})
            kept = await client.post(PATH, json={"label": "two", "state": {}})
            assert kept.status_code in {401, 403, 404}
            assert (await client.get(f"{PATH}/newest")).status_code == read


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"label": "one"}, 400),
        ({"label": "", "state": {}}, 400),
        ({"label": "a b", "state": {}}, 400),
        ({"label": "x" * 65, "state": {}}, 400),
        ({"label": "one", "state": []}, 400),
        ({"label": "one", "state": {}, "more": 1}, 400),
        ({"label": "one", "state": {"x": "x" * 300_000}}, 413),
        ({"label": "one", "state": {"x": "port-s3cret"}}, 422),
        ({"label": "step/port-s3cret", "state": {}}, 422),
    ],
)
async def test_what_is_no_state_is_refused(body: dict[str, Any], status: int) -> None:
    """By shape, by size, and where it would carry a secret out."""
    world = edge()
    world.world.redactor.secrets = ("port-s3cret",)
    async with world.client() as agent:
        refused = await agent.post(PATH, json=body)
        assert refused.status_code == status, refused.text
        assert (await agent.get(f"{PATH}/newest")).status_code == 404
