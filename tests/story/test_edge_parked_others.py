"""A state of a parked call in the wrong hands, or too late: it is refused, recorded, and nothing is told by it."""

import gc
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint
from pydantic import ValidationError

from gateway.core.call import Principal
from gateway.core.flow import NotAnswered
from gateway.edge.asgi import Options
from gateway.edge.mcp import parking
from gateway.settings import LimitsSection
from tests.edge_world import OTHER, Edge
from tests.fakes.callers import AGENT, RUN
from tests.fakes.upstream import RESULT
from tests.story.test_edge_asking import ACCEPTED, before
from tests.story.test_edge_parked import WRITE, Asking, talking, words
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


def of(edge: Edge, principal: Principal) -> None:
    """The calls that name no run are this principal's from now on."""
    edge.world.runs.implicit = replace(RUN, principal_key=principal.key)


async def test_a_read_that_finds_no_place_is_told_when_to_come_again() -> None:
    """Its caller's share is taken: it is broken off, and the answer says for how long; others have their own share."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        parked = [(await talk.call(given={"sku": str(at)}))["result"] for at in range(8)]
        full = words(await talk.call(given={"sku": "more"}))
        assert (full["error"], full["cause"]) == ("throttled", "parked")
        assert 1 <= full["retry_after"] <= parking.PARKED_S
        assert upstream.ends == ["cancelled"]
        assert (edge.records()[-1], edge.world.audit.lines[-1].word) == ("tool.failed", "parked")
        of(edge, OTHER)
        assert "inputRequests" in (await talk.call(token="other"))["result"]
        of(edge, AGENT)
        await talk.back(parked[0], given={"sku": "0"})
        assert "inputRequests" in (await talk.call(given={"sku": "more"}))["result"]
        talk.stopping.set()


async def test_a_full_gateway_turns_away_who_has_none_parked() -> None:
    """All places together are bounded, too; who comes back to a call of theirs is not turned away."""
    edge, upstream = before(Asking, options=Options(parked=(2, 1)))
    eve = edge.world.identity.tokens["eve"] = replace(AGENT, user="eve")
    async with talking(edge) as talk:
        first = (await talk.call())["result"]
        of(edge, OTHER)
        assert "inputRequests" in (await talk.call(token="other"))["result"]
        of(edge, eve)
        full = words(await talk.call(token="eve"))
        assert full["cause"] == "parked"
        assert full["message"].startswith("too many calls wait for input")
        of(edge, AGENT)
        assert (await talk.back(first))["result"]["content"] == RESULT["content"]
        of(edge, eve)
        assert "inputRequests" in (await talk.call(token="eve"))["result"]
        talk.stopping.set()
    assert upstream.heard == [ACCEPTED]


async def test_a_user_with_many_agents_leaves_half_of_the_places() -> None:
    """Whoever opens runs may name any number of agents: they are one user all the same."""
    edge, _ = before(Asking, options=Options(parked=(4, 2)))
    async with talking(edge) as talk:
        answers = []
        for at in range(3):
            agent = edge.world.identity.tokens[f"agent-{at}"] = replace(AGENT, agent=f"agent-{at}")
            of(edge, agent)
            answers.append(await talk.call(token=f"agent-{at}"))
        assert ["inputRequests" in answer["result"] for answer in answers] == [True, True, False]
        assert words(answers[2])["message"].startswith("too many calls of your user's agents")
        of(edge, OTHER)
        assert "inputRequests" in (await talk.call(token="other"))["result"]
        talk.stopping.set()


async def test_a_gateway_that_parks_no_calls_tells_no_upstream_that_it_may_ask() -> None:
    """Its call goes on without, as with a client that cannot be asked."""
    edge, upstream = before(Asking, options=Options(parked=(0, 1)))
    async with talking(edge) as talk:
        assert (await talk.call())["result"]["content"] == RESULT["content"]
    assert upstream.heard == ["not_offered"]
    assert upstream.sent[0].intent.call.flow.askable == {}


@pytest.mark.parametrize(
    ("given", "parking_room"),
    [
        ({}, (64, 8)),
        ({"concurrency": 1}, (0, 1)),
        ({"concurrency": 40}, (10, 1)),
        ({"parked": 100}, (100, 12)),
        ({"parked": 128, "parked_each": 64}, (128, 64)),
        ({"parked": 1, "parked_each": 1}, (1, 1)),
        ({"parked": 0}, (0, 1)),
    ],
)
def test_what_is_parked_leaves_places_to_others(given: dict[str, int], parking_room: tuple[int, int]) -> None:
    """Calls that wait for clients who may never come back are no way to stop a gateway for everybody else."""
    assert LimitsSection.model_validate(given).parking == parking_room


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parked": 129}, "parked: at most half of concurrency"),
        ({"concurrency": 10, "parked": 6}, "parked: at most half of concurrency"),
        ({"parked_each": 33}, r"parked_each: at most half of parked \(64\)"),
        ({"parked": 4, "parked_each": 3}, r"parked_each: at most half of parked \(4\)"),
        ({"parked": -1}, "greater than or equal to 0"),
        ({"parked_each": 0}, "greater than or equal to 1"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(given: dict[str, int], said: str) -> None:
    """Each by its name, with what would do."""
    with pytest.raises(ValidationError, match=said):
        LimitsSection.model_validate(given)
