"""Whether a hidden tool exists cannot be told from how much work an answer takes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.adapters.rego import layers
from gateway.adapters.rego.frames import Asked
from gateway.adapters.rego.link import Question
from gateway.adapters.rego.pool import Pool
from gateway.core import pipeline
from gateway.core.bundle import Module, bundled
from gateway.core.errors import InvalidArguments, UnknownTool
from gateway.core.ports import Ports
from tests.fakes import World
from tests.fakes.callers import AGENT
from tests.fakes.upstream import ORDER, STOCK
from tests.rego_demo import SETTINGS, serving

# The order tool exists and a deny list hides it; of what does not exist, one name is within the lists and one is not.
ALL = {"allow": ["erp.*"]}
LISTS = {"allow": ["erp.*"], "deny": [ORDER.fqn]}
DATA = {"gateway": {"scope": {"agents": {AGENT.agent: LISTS}, "users": {AGENT.user: {"allow": ["erp.*"]}}}}}
SEEN = {"gateway": {"scope": {"agents": {AGENT.agent: ALL}, "users": {AGENT.user: ALL}}}}
HIDING = """package gateway.policies.hiding

deny contains {"id": "hiding.hidden", "msg": "hidden"} if input.phase == "list"
"""
UNKNOWN, BEYOND = "erp.nothing", "crm.nothing"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents each question took to a worker."""
    seen: list[int] = []
    inner = Pool.ask

    def ask(pool: Pool, decision_id: str, inputs: Sequence[Asked]) -> Question:
        seen.append(len(inputs))
        return inner(pool, decision_id, inputs)

    monkeypatch.setattr(Pool, "ask", ask)
    return seen


async def work(world: World, ports: Ports, asked: list[int], name: str, *, bad: bool = False) -> list[int]:
    """What a worker was asked while one call of ``name`` was refused."""
    asked.clear()
    world.catalog.faults = {name: InvalidArguments("bad")} if bad else {}
    with pytest.raises(UnknownTool):
        await pipeline.handle(world.call(name), ports)
    return list(asked)


@pytest.mark.parametrize("lists_first", [False, True])
async def test_hidden_and_unknown_tools_take_the_same_work(asked: list[int], *, lists_first: bool) -> None:
    """However often one asks, with whatever arguments, and whether or not one has listed the tools before."""
    world = World()
    async with serving(layers.load([layers.shipped()], DATA), SETTINGS) as engine:
        ports = replace(world.ports(), policy=engine)
        if lists_first:
            assert ORDER not in await pipeline.listing(world.call(), ports)
        for _ in range(3):
            for name, bad in ((ORDER.fqn, False), (ORDER.fqn, True), (UNKNOWN, False), (BEYOND, False)):
                assert await work(world, ports, asked, name, bad=bad) == [1]
                assert "catalog.checked" not in world.journal.steps


@pytest.mark.parametrize(("limits", "work"), [({}, [1, 1]), ({STOCK.fqn: {"calls_per_run": 9}}, [1, 1, 1, 1])])
async def test_a_tool_that_may_be_seen_takes_less_from_its_second_call_on(
    asked: list[int], limits: dict[str, Any], work: list[int]
) -> None:
    """What is remembered is that the caller may know of it, and the call's answer where nothing else can change it."""
    world = World()
    data = {"gateway": {**SEEN["gateway"], "limits": limits}}
    async with serving(layers.load([layers.shipped()], data), SETTINGS) as engine:
        ports = replace(world.ports(), policy=engine)
        asked.clear()
        for _ in range(3):
            await pipeline.handle(world.call(), ports)
        assert asked == work


async def test_a_call_that_is_remembered_says_nothing_of_a_hidden_tool(asked: list[int]) -> None:
    """Policy lets it be called, though not be known of: its calls take the same work as those of no tool."""
    world = World()
    rules = [Module("hidden.rego", HIDING)]
    both = bundled([*layers.load([layers.shipped()]).modules, *rules], SEEN)
    async with serving(both, SETTINGS) as engine:
        ports = replace(world.ports(), policy=engine)
        for _ in range(3):
            for name in (ORDER.fqn, UNKNOWN):
                assert await work(world, ports, asked, name) == [1]


@pytest.mark.parametrize("name", [ORDER.fqn, UNKNOWN, BEYOND])
async def test_hidden_and_unknown_tools_are_refused_by_the_same_kind_of_decision(name: str) -> None:
    """A denial, also for a name of no tool that the lists would cover: so each leaves one record of one form."""
    world = World()
    async with serving(layers.load([layers.shipped()], DATA), SETTINGS) as engine:
        with pytest.raises(UnknownTool):
            await pipeline.handle(world.call(name), replace(world.ports(), policy=engine))
    ((counted, times),) = world.meter.counts.items()
    assert (counted.split(":")[:2], times) == (["decided", "deny"], 1)
    assert world.pace.held == 1
    assert world.journal.steps[-1] == "pace.beat"
