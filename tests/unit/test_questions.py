"""Asking policy in advance: both phases, the arguments' faults, and nothing that could be executed."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core import questions
from gateway.core.decision import Effect
from gateway.core.errors import NotFound
from gateway.core.ports import PipelineSettings
from gateway.core.questions import Word
from gateway.core.tool import EffectClass, Measure
from tests.evidence import make_call, make_principal, make_tool
from tests.fakes import World
from tests.fakes.rules import DENY

SCHEMA = {"type": "object", "required": ["amount"], "properties": {"amount": {}}}
PAY = make_tool("pay", server="erp", schema=SCHEMA, effect=EffectClass.MONEY, measures=(Measure("amount", "/amount"),))
NOTE = make_tool("note", server="erp", effect=EffectClass.WRITE)


@pytest.fixture
def world() -> World:
    """A catalogue with a tool that moves money and one that does not."""
    found = World()
    found.catalog.shelf = (PAY, NOTE)
    return found


async def asked(
    world: World, arguments: dict[str, Any] | bytes | None = None, *, tool: str = "erp.pay", given: bool = True
) -> Word:
    """What policy would say to alice's agent."""
    call = make_call(tool, arguments)
    return await questions.ask(call, make_principal(), world.ports(), with_arguments=given)


async def test_both_phases_are_answered_and_nothing_happens(world: World) -> None:
    """Policy is asked once, with the caller as supposed; no run is entered, nothing recorded, reserved or invoked."""
    said = await asked(world, {"amount": 7})
    assert (said.listing.effect, said.calling and said.calling.effect) == (Effect.ALLOW, Effect.ALLOW)
    assert world.journal.steps == ["catalog.tools", "policy.evaluate"]
    listing, calling = world.policy.asked
    assert (listing["phase"], calling["phase"]) == ("list", "call")
    assert calling["agent"] == {"id": "test-agent"}
    assert calling["run"]["amounts"] == {"amount": 7}
    assert calling["run"]["calls"] == {}


@pytest.mark.parametrize("arguments", [{}, {"amount": -1}, b'{"amount": 9007199254740993}'])
async def test_faulty_arguments_are_named_and_not_put_to_policy(world: World, arguments: Any) -> None:
    """A broken schema, an amount that cannot be counted, an integer no engine reads: as a call would be refused."""
    said = await asked(world, arguments)
    assert said.calling is None
    assert said.faults
    assert [document["phase"] for document in world.policy.asked] == ["list"]


async def test_a_template_is_asked_about_by_its_address(world: World) -> None:
    """What policy says of one address says nothing of the next; an address it does not make is none."""
    world.catalog.shelf = (make_tool("resources/x:{id}", server="erp"),)
    said = await asked(world, {"uri": "x:7"}, tool="erp.resources/x:{id}")
    assert said.tool.decided_fqn == "erp.resources/x:7"
    assert [document["tool"]["fqn"] for document in world.policy.asked] == ["erp.resources/x:7"] * 2
    with pytest.raises(NotFound):
        await asked(world, {"uri": "x:../7"}, tool="erp.resources/x:{id}")


async def test_without_arguments_the_schema_is_left_out_of_account(world: World) -> None:
    """The question is then about the caller and the tool."""
    said = await asked(world, given=False)
    assert said.calling is not None
    assert world.policy.asked[1]["args"] == {}


async def test_observe_mode_shows_as_it_binds(world: World) -> None:
    """What would be let pass is marked so; money never is."""
    world.settings = replace(PipelineSettings(), observe=True)
    world.policy.words = {(phase, tool): DENY for phase in ("list", "call") for tool in ("erp.pay", "erp.note")}
    note, pay = await asked(world, {}, tool="erp.note"), await asked(world, {"amount": 1})
    assert not note.listing.enforced
    assert pay.listing.enforced


async def test_a_tool_that_is_not_there_is_not_found(world: World) -> None:
    """Whoever may ask may know which tools there are."""
    with pytest.raises(NotFound):
        await asked(world, tool="erp.none")
    assert world.policy.asked == []
