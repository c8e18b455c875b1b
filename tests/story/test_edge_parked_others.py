"""A state of a parked call in the wrong hands, or too late: it is refused, recorded, and nothing is told by it."""

import gc
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from gateway.core.flow import NotAnswered
from gateway.edge.mcp.parking import Parking
from gateway.settings import LimitsSection
from tests.fakes import World
from tests.fakes.callers import AGENT
from tests.story.test_edge_asking import ACCEPTED, before
from tests.story.test_edge_parked import WRITE, Asking, talking
from tests.waiting import until


@pytest.mark.requirement("TOOL-7", "FLOW-1")
@pytest.mark.parametrize("other", [{"delegation": ("clerk",)}, {"run": "another-run"}], ids=["actor", "run"])
async def test_a_state_is_of_one_run_and_its_actors(other: dict[str, Any]) -> None:
    """The same agent for the same user, but in another run, or with somebody else acting, takes up no parked call."""
    edge, upstream = before(Asking)
    edge.world.identity.tokens["else"] = replace(AGENT, **other)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        stolen = await talk.back(asked, token="else")
        assert stolen["error"]["data"]["cause"] == "request_state"
        assert upstream.heard == []
        assert "result" in await talk.back(asked)
    assert upstream.heard == [ACCEPTED]


async def test_a_state_that_was_used_leaves_a_record() -> None:
    """Coming back a second time is refused like any request that is no call: in the log."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        await talk.back(asked)
        known = len(edge.records())
        assert (await talk.back(asked))["error"]["data"]["cause"] == "request_state"
    assert edge.records()[known:] == ["call.refused"]
    assert upstream.heard == [ACCEPTED]


async def test_an_outcome_that_was_told_is_not_kept() -> None:
    """What a call came to while its client was away is forgotten once the client has it."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        (slot,) = edge.app._mcp._calls._parking._parked.values()  # type: ignore[attr-defined]
        for _, waiting in slot.open.values():
            waiting.set_exception(NotAnswered("given_up"))
        await until(lambda: "tool.completed" in edge.records())
        kept = weakref.ref(slot._task)
        del slot, waiting
        assert "result" in await talk.back(asked)
    upstream.sent.clear()  # the test's own
    gc.collect()
    assert kept() is None


async def test_a_gateway_that_stops_lets_a_call_end_whose_client_is_back() -> None:
    """It is under way as any other is; only what waits for an absent client is taken back."""
    edge, upstream = before(Asking, between=Event())
    async with talking(edge) as talk:
        asked = (await talk.call(WRITE))["result"]
        async with create_task_group() as group:
            group.start_soon(partial(talk.back, asked, tool=WRITE))
            await until(lambda: upstream.heard == [ACCEPTED])
            talk.stopping.set()
            for _ in range(10):
                await checkpoint()
            upstream.between.set()
    assert upstream.ends == []
    assert edge.records()[-1] == "tool.completed"


def test_what_is_parked_leaves_most_places_to_others() -> None:
    """Calls that wait for clients who may never come back are no way to stop a gateway for everybody else."""
    assert Parking(World().clock)._most * 4 <= LimitsSection().concurrency
