"""What policy has said before of such calls is not asked again, and nothing else about a call changes."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.core import pipeline
from gateway.core.call import Resolved
from gateway.core.decision import Evaluation, Phase
from gateway.core.errors import Denied, GatewayError, InvalidArguments, Pending, Unavailable, UnknownTool
from tests.fakes import STAGES, World
from tests.fakes.callers import RUN
from tests.fakes.rules import APPROVAL, DENY, SILENT, FakePolicy
from tests.fakes.upstream import STOCK, FakeCatalog


@pytest.fixture
def world() -> World:
    """Fakes on which every call is allowed, and policy knows that without being asked."""
    found = World()
    found.policy.remembers = True
    return found


async def test_a_call_that_is_known_passes_every_other_stage(world: World) -> None:
    """Policy is not asked; what is recorded is the very document that it would have been asked."""
    asking = World()
    for each in (asking, world):
        await pipeline.handle(each.call(arguments=b'{"n": 1}'), each.ports())
    assert tuple(world.journal.steps) == tuple(step for step in STAGES if step != "policy.evaluate")
    assert world.policy.questions == 0
    known, asked = (each.connector.sent[0].intent.decision for each in (world, asking))
    assert known.document == asked.document
    assert (known.effect, known.reasons, known.phase) == (asked.effect, asked.reasons, Phase.CALL)


@pytest.mark.parametrize(("words", "error"), [(DENY, Denied), (SILENT, Denied), (APPROVAL, Pending)])
async def test_a_refusal_that_is_known_refuses(world: World, words: dict[str, Any], error: type[GatewayError]) -> None:
    """What is known is judged as what is said."""
    world.policy.words[("call", "erp.stock")] = words
    with pytest.raises(error):
        await pipeline.handle(world.call(), world.ports())
    assert world.connector.sent == []
    assert world.policy.questions == 0


async def test_the_listing_is_asked_for_where_the_arguments_have_a_fault(world: World) -> None:
    """What is recorded of such a call is that decision, so that it is made."""
    world.catalog.faults["erp.stock"] = InvalidArguments("sku: required")
    with pytest.raises(InvalidArguments):
        await pipeline.handle(world.call(), world.ports())
    assert [document["phase"] for document in world.policy.asked] == ["list"]


@pytest.mark.parametrize(
    ("found", "detail"), [(InvalidArguments("headers: odd"), "headers: odd"), (None, "sku: required")]
)
async def test_what_its_surface_finds_wrong_comes_first(world: World, found: GatewayError | None, detail: str) -> None:
    """Then what is wrong with the arguments; both are told to those only who may see the tool."""
    world.catalog.faults["erp.stock"] = world.catalog.faults["erp.wipe"] = InvalidArguments("sku: required")
    world.policy.words[("list", "erp.wipe")] = SILENT
    seen, hidden = (structs.replace(world.call(name), objection=lambda: found) for name in ("erp.stock", "erp.wipe"))
    with pytest.raises(InvalidArguments, match=detail):
        await pipeline.handle(seen, world.ports())
    with pytest.raises(UnknownTool):
        await pipeline.handle(hidden, world.ports())


async def test_a_tool_that_is_hidden_by_then_stays_hidden(world: World) -> None:
    """Nothing of the arguments is said where the listing, asked for their fault, says no."""
    world.catalog.faults["erp.stock"] = InvalidArguments("sku: required")
    world.policy = _Forgets(world.journal, remembers=True)
    with pytest.raises(UnknownTool):
        await pipeline.handle(world.call(), world.ports())


class _Forgets(FakePolicy):
    """Knows once, and then serves a bundle that hides the tool."""

    def known(self, about: bytes) -> Evaluation | None:
        """What was known, for the last time."""
        found = super().known(about)
        self.words[("list", "erp.stock")] = SILENT
        return found


async def test_another_bundle_meanwhile_decides(world: World) -> None:
    """What was known when a call came is not known any more when it is decided: listing and call are asked."""
    world.policy = _Forgets(world.journal, remembers=True)
    with pytest.raises(UnknownTool):
        await pipeline.handle(world.call(), world.ports())
    assert [document["phase"] for document in world.policy.asked] == ["list", "call"]
    assert world.runs.usage(RUN.id).calls.total() == 0


async def test_a_tool_that_is_another_by_then_is_asked_about(world: World) -> None:
    """What was known of the tool before is not taken for the one that is pinned now."""
    world.catalog = _Repinned(world.journal, world.connector)
    await pipeline.handle(world.call(), world.ports())
    assert [(one["phase"], one["tool"]["digest"]) for one in world.policy.asked] == [
        ("list", "another"),
        ("call", "another"),
    ]


class _Repinned(FakeCatalog):
    """A catalogue whose generation changes once a call is resolved."""

    def checked(self, target: Resolved) -> Resolved:
        """The tool as it is pinned by then."""
        return Resolved(target.caller, replace(STOCK, digest="another"), None)


async def test_a_name_of_no_tool_is_none_whatever_is_known(world: World) -> None:
    """An engine that claimed to know of it cannot make it exist: it is asked, and the answer does not matter."""
    with pytest.raises(UnknownTool):
        await pipeline.handle(world.call("erp.nothing"), world.ports())
    assert [document["phase"] for document in world.policy.asked] == ["list"]


async def test_what_is_not_known_is_asked(world: World) -> None:
    """A fault of the engine is no answer to be remembered."""
    world.policy.faults[("call", "erp.stock")] = "engine.timeout"
    with pytest.raises(Unavailable):
        await pipeline.handle(world.call(), world.ports())
    assert world.policy.questions == 2
