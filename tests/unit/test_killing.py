"""The kill switch and the one door, on fakes: who is refused, who is broken off, and what nobody is told."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from gateway.core import pipeline
from gateway.core.call import Principal
from gateway.core.errors import (
    GatewayError,
    InvalidArguments,
    Killed,
    OutcomeUnknown,
    ToolFailed,
    Unavailable,
    UnknownTool,
)
from gateway.core.kills import Kind, folded, target, targets_of
from gateway.core.leasing import Holder
from tests.fakes import World
from tests.fakes.audit import COMPLETED, INTENT
from tests.fakes.callers import AGENT
from tests.fakes.rules import SILENT
from tests.waiting import until


@pytest.fixture
def world() -> World:
    """Fakes on which every call is allowed and answered."""
    return World()


def stop(world: World, kind: Kind, name: str) -> Callable[[], None]:
    """Engages a kill at once, as another task of this gateway would."""

    def engage() -> None:
        kill, _ = world.book.engage(AGENT, target(kind, name), name, "a test")
        world.book.heard(kill)

    return engage


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.AGENT, "AP-Agent"), (Kind.USER, "ADA"), (Kind.TOOL, "erp.*"), (Kind.ALL, "")]
)
async def test_what_is_stopped_reaches_nothing(world: World, kind: Kind, name: str) -> None:
    """No intent, no credential, nothing sent; the reason names the kind."""
    await world.kills.engage(AGENT, kind, name, "a test")
    with pytest.raises(Killed) as caught:
        await pipeline.handle(world.call(), world.ports())
    assert [reason.id for reason in caught.value.reasons] == [f"kill.{kind}"]
    assert "entry.commit" not in world.journal.steps
    assert "broker.lease" not in world.journal.steps


async def test_a_hidden_tool_that_is_stopped_stays_hidden(world: World) -> None:
    """Who may not see the tool hears that there is none, not that it is stopped."""
    world.policy.words[("list", "erp.wipe")] = SILENT
    await world.kills.engage(AGENT, Kind.TOOL, "erp.wipe", "a test")
    with pytest.raises(UnknownTool):
        await pipeline.handle(world.call("erp.wipe"), world.ports())


async def test_who_is_stopped_is_shown_no_tools(world: World) -> None:
    """A listing is refused like a call."""
    await world.kills.engage(AGENT, Kind.USER, "ada", "a test")
    with pytest.raises(Killed):
        await pipeline.listing(world.call(), world.ports())


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize("step", ["entry.committed", "broker.lease"])
async def test_a_kill_between_intent_and_use_hands_nothing_out(world: World, step: str) -> None:
    """Engaged while the intent becomes durable, or while the credential is minted: nothing is sent."""
    world.journal.traps[step] = stop(world, Kind.AGENT, "ap-agent")
    call = world.call()
    with pytest.raises(Killed):
        await pipeline.handle(call, world.ports())
    assert world.connector.sent == []
    assert world.audit.types(call.id) == [INTENT, "tool.not_sent"]


async def test_a_kill_elsewhere_is_looked_for_before_the_credential_is_used(world: World) -> None:
    """Another gateway's kill that this one has not heard of yet: found by the look behind the minting."""
    kill = world.book.made(target(Kind.ALL, ""), "")
    world.broker.headers = {"authorization": "Bearer x"}
    world.journal.traps["broker.lease"] = lambda: world.book.elsewhere.append(kill)
    with pytest.raises(Killed):
        await pipeline.handle(world.call(), world.ports())
    assert world.connector.sent == []


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(
    ("tool", "error", "ending"),
    [("erp.stock", ToolFailed, "tool.failed"), ("bank.pay", OutcomeUnknown, "tool.outcome_unknown")],
)
async def test_a_call_under_way_is_broken_off(world: World, tool: str, error: type[GatewayError], ending: str) -> None:
    """A read has failed, a payment's outcome is unknown; each has one ending and gives its credential back."""
    world.journal.traps["connector.invoke"] = stop(world, Kind.AGENT, "ap-agent")
    call = world.call(tool)
    with pytest.raises(error) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == "kill.agent"
    assert world.audit.types(call.id) == [INTENT, ending]
    assert "broker.revoked" in world.journal.steps


async def test_who_is_done_keeps_the_answer(world: World) -> None:
    """A kill while the completion is written does not take back what the log has."""
    world.journal.traps["entry.complete"] = stop(world, Kind.AGENT, "somebody-else")
    call = world.call()
    await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == [INTENT, COMPLETED]


async def test_nobody_gets_in_where_nobody_can_say(world: World) -> None:
    """A book that cannot be read lets no call through."""
    world.book.trouble = Unavailable("the log cannot be read")
    with pytest.raises(Unavailable):
        await pipeline.handle(world.call(), world.ports())
    assert world.connector.sent == []


async def test_a_disk_that_does_not_write_keeps_nobody_going(world: World) -> None:
    """In force and carried out before the record is there; what cannot be recorded is said, and stays in force."""
    world.book.written = None
    asking = asyncio.create_task(world.kills.engage(AGENT, Kind.ALL, "", "a test"))
    await until(lambda: bool(world.book.cuts))
    with pytest.raises(Killed):
        await pipeline.handle(world.call(), world.ports())
    assert not asking.done()
    world.book.waits[0].set_exception(Unavailable("the audit log cannot be written"))
    with pytest.raises(Unavailable):
        await asking
    with pytest.raises(Killed):
        await pipeline.handle(world.call(), world.ports())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.ALL, "x"),
        (Kind.AGENT, " "),
        (Kind.TOOL, "erp"),
        (Kind.TOOL, "erp."),
        (Kind.TOOL, ".pay"),
        (Kind.TOOL, "erp.pay*"),
        (Kind.TOOL, "*.pay"),
        (Kind.TOOL, "*.*"),
        (Kind.RUN, "a\nb"),
        (Kind.AGENT, "ap-*"),
        (Kind.USER, "*"),
        (Kind.RUN, "0197a000*"),
    ],
)
async def test_a_name_that_means_nothing(world: World, kind: Kind, name: str) -> None:
    """It is refused, and nothing is in force: nobody is told of a kill that stops nothing, as by a pattern."""
    by: Principal = AGENT
    with pytest.raises(InvalidArguments):
        await world.kills.engage(by, kind, name, "a test")
    assert world.kills.all() == ()


def test_what_stops_one_holder_is_its_own() -> None:
    """However often they are asked for: another member is another target, another call of the same is none."""
    one = Holder(run_id="r", call_id="c", agent="a", user="u", tool="up.t", delegation=("d",))
    told = targets_of(one)
    assert told == targets_of(replace(one, call_id="d", issuer="i"))
    for other in (
        {"run_id": "other"},
        {"agent": "other"},
        {"user": "other"},
        {"tool": "other.t"},
        {"tool": None},
        {"delegation": ("other",)},
    ):
        assert targets_of(replace(one, **other)) != told
    assert targets_of(one) == told


async def test_more_than_the_tool_is_stopped(world: World) -> None:
    """Where the tool and its agent are stopped, the agent's kill is said, whichever came first."""
    for kind, name in ((Kind.TOOL, "erp.*"), (Kind.AGENT, "AP-Agent")):
        await world.kills.engage(AGENT, kind, name, "a test")
    with pytest.raises(Killed) as caught:
        await pipeline.handle(world.call(), world.ports())
    assert [reason.id for reason in caught.value.reasons] == ["kill.agent"]


def test_a_name_is_compared_the_same_however_long_it_is() -> None:
    """Case, width and white space around a name do not matter, also of one that is too long to be remembered."""
    assert folded(" \uff21lice ") == folded("alice") == "alice"
    assert folded("A" * 300) == folded("a" * 300 + " ") == "a" * 300
