"""What the door says of resources that are followed: who may see them now, and that nobody's word is waited for."""

from dataclasses import replace

import pytest

from gateway.core import pipeline
from gateway.core.errors import Denied, Killed, UnknownTool
from gateway.core.kills import Kind
from tests.edge_world import ADMIN
from tests.fakes import World
from tests.fakes.callers import RUN
from tests.fakes.rules import APPROVAL, DENY
from tests.fakes.upstream import ORDER, STOCK, tool

FOLLOWS = tool("erp.subscriptions/x:page")


async def test_what_may_be_seen_of_some_tools() -> None:
    """By policy and the run's scope, in one question, without a record."""
    world = World()
    world.policy.words["list", ORDER.fqn] = DENY
    asked = [STOCK, ORDER, FOLLOWS]
    assert await pipeline.visible(world.call(), world.ports(), asked) == (STOCK, FOLLOWS)
    world.runs.implicit = replace(RUN, scope=("erp.stock",))
    assert await pipeline.visible(world.call(), world.ports(), asked) == (STOCK,)
    assert (world.policy.questions, world.audit.lines) == (2, [])


@pytest.mark.requirement("INC-1")
async def test_what_is_stopped_is_not_to_be_seen() -> None:
    """A tool by its name; who is stopped is told so."""
    world = World()
    await world.kills.engage(ADMIN, Kind.TOOL, STOCK.fqn, "a test")
    assert await pipeline.visible(world.call(STOCK.fqn), world.ports(), [STOCK]) == ()
    assert await pipeline.visible(world.call(ORDER.fqn), world.ports(), [ORDER]) == (ORDER,)
    await world.kills.engage(ADMIN, Kind.AGENT, "ap-agent", "a test")
    with pytest.raises(Killed):
        await pipeline.visible(world.call(ORDER.fqn), world.ports(), [ORDER])


async def test_a_subscription_waits_for_nobody() -> None:
    """Who is to be told is there now, and may be gone once somebody has signed: nothing is parked."""
    world = World()
    world.catalog.shelf = (FOLLOWS,)
    world.policy.words["call", FOLLOWS.fqn] = APPROVAL
    with pytest.raises(Denied) as caught:
        await pipeline.handle(world.call(FOLLOWS.fqn, b'{"uri":"x:page"}'), world.ports())
    assert caught.value.cause_code == "approval_needed"
    assert caught.value.reasons[0].id == "test.approval"
    assert world.connector.sent == []


@pytest.mark.parametrize("word", ["allow", "deny", "approval", "hidden"])
async def test_a_call_that_waits_for_its_client_is_decided_on_again(word: str) -> None:
    """It goes on where policy would let it go now, and leaves no record of that; a refusal leaves one."""
    world = World()
    words = {"deny": DENY, "approval": APPROVAL, "hidden": DENY}
    if word != "allow":
        world.policy.words["list" if word == "hidden" else "call", STOCK.fqn] = words[word]
    if word == "allow":
        await pipeline.reconsider(world.call(), world.ports())
        assert world.audit.lines == []
        return
    with pytest.raises(UnknownTool if word == "hidden" else Denied):
        await pipeline.reconsider(world.call(), world.ports())
    assert [line.type for line in world.audit.lines] == ["call.refused"]
    assert world.connector.sent == []


@pytest.mark.requirement("INC-1")
async def test_a_call_that_waits_for_its_client_may_be_stopped() -> None:
    """Its tool, or who made it."""
    world = World()
    await world.kills.engage(ADMIN, Kind.TOOL, STOCK.fqn, "a test")
    with pytest.raises(Killed):
        await pipeline.reconsider(world.call(), world.ports())
    await pipeline.reconsider(world.call(ORDER.fqn), world.ports())
