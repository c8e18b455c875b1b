"""What is said to an agent that asks before it acts itself: policy's word, and nothing else happens."""

from typing import Any

import pytest

from gateway.core import pipeline
from gateway.core.advice import Word
from gateway.core.call import Call
from gateway.core.errors import Denied, GatewayError, InvalidArguments, NotFound, Unavailable, UnknownTool
from gateway.core.tool import ConnectorKind, EffectClass, Tool
from tests.fakes import World
from tests.fakes.audit import ADVISORY, REFUSED
from tests.fakes.callers import RUN
from tests.fakes.rules import ALLOW, APPROVAL, DENY, SILENT
from tests.fakes.upstream import STOCK

BASH = "coder.hooks/Bash"
# What a question may reach. Of the rest, nothing: no reservation, no limit, no intent, no credential, no connector.
REACHED = [
    "identity.authenticate",
    "audit.consult",
    "runs.enter",
    "consultation.entered",
    "catalog.resolve",
    "runs.section",
    "policy.evaluate",
    "catalog.checked",
    "policy.evaluate",
    "runs.section.left",
    "consultation.decided",
    "consultation.advise",
]


def hook(approval: str = "deny") -> Tool:
    """An agent's shell."""
    definition = {"name": "hooks/Bash", "inputSchema": {"type": "object"}}
    return Tool(
        "coder",
        "hooks/Bash",
        ConnectorKind.HOOK,
        definition,
        "digest:bash",
        EffectClass.DESTRUCTIVE,
        binding={"approval": approval},
    )


@pytest.fixture
def world() -> World:
    """Fakes with an agent's shell among the tools."""
    found = World()
    found.catalog.shelf = (STOCK, hook())
    return found


def obliged(**said: Any) -> dict[str, Any]:
    """An allowing word that binds the call to something."""
    return ALLOW | {"oblige": {"test": [{"id": "test.bound", **said}]}}


async def denied(world: World, call: Call, error: type[GatewayError]) -> GatewayError:
    """The error a question is answered with, having shown that one line was written, and none of a call's."""
    with pytest.raises(error) as caught:
        await pipeline.advise(call, world.ports())
    assert world.audit.types(call.id) == [ADVISORY]
    assert set(world.journal.steps) <= set(REACHED) | {"pace.beat"}
    return caught.value


async def test_a_question_is_answered_by_policy_and_reaches_nothing_else(world: World) -> None:
    """Decided on as a call is, recorded before it is answered; the run's ledger is read, and stays as it was."""
    call = world.call(BASH, b'{"command": "ls"}')
    advice = await pipeline.advise(call, world.ports())
    assert (advice.word, advice.call_id, advice.run_id, advice.reasons) == (
        Word.ALLOW,
        call.id,
        RUN.id,
        ("test.allow",),
    )
    assert world.journal.steps == REACHED
    assert world.audit.types(call.id) == [ADVISORY]
    assert world.runs.usage(RUN.id).calls.total() == 0
    _, _, asked = world.policy.asked
    assert (asked["kind"], asked["tool"]["connector"], asked["args"]) == ("hook", "hook", {"command": "ls"})


async def test_a_hidden_and_an_unknown_tool_of_an_agent_are_alike(world: World) -> None:
    """Same words, same questions to policy, same beat; a hidden one's arguments are not looked at."""
    world.policy.words[("list", BASH)] = SILENT
    world.policy.words[("list", "coder.hooks/Other")] = SILENT
    world.catalog.faults[BASH] = InvalidArguments("command: must be a string")
    hidden = await denied(world, world.call(BASH), UnknownTool)
    asked = world.policy.questions
    unknown = await denied(world, world.call("coder.hooks/Other"), UnknownTool)
    assert (hidden.detail, hidden.cause_code) == (unknown.detail, unknown.cause_code)
    assert world.policy.questions == 2 * asked
    assert world.pace.held == 2


async def test_a_denial_says_why(world: World) -> None:
    """The rule and its message, as for a call."""
    world.policy.words[("call", BASH)] = DENY
    error = await denied(world, world.call(BASH), Denied)
    assert error.reasons[0].id == "test.deny"


async def test_bad_arguments_and_secrets_are_told(world: World) -> None:
    """A known secret among the arguments is on its way out."""
    world.redactor.secrets = ("s3cret-value",)
    error = await denied(world, world.call(BASH, b'{"command": "curl s3cret-value"}'), InvalidArguments)
    assert error.cause_code == "known_secret"


@pytest.mark.parametrize(("approval", "word"), [("ask", Word.ASK), ("deny", None)])
async def test_what_waits_for_people_is_no_or_asked_of_the_person_there(
    world: World, approval: str, word: Word | None
) -> None:
    """Nothing is parked: there is no call to be carried out later, and a word at a terminal approves nothing."""
    world.catalog.shelf = (hook(approval),)
    world.policy.words[("call", BASH)] = APPROVAL
    call = world.call(BASH)
    if word is None:
        error = await denied(world, call, Denied)
        assert (error.cause_code, error.reasons[0].id) == ("approval_needed", "test.approval")
    else:
        advice = await pipeline.advise(call, world.ports())
        assert advice.word is word
    assert "approvals.park" not in world.journal.steps


@pytest.mark.parametrize("said", [{"kind": "timeout", "timeout_s": 5}, {"kind": "rate_limit", "per_minute": 3}])
async def test_what_only_goes_under_a_condition_does_not_go(world: World, said: dict[str, Any]) -> None:
    """Nobody here could hold the agent to it."""
    world.policy.words[("call", BASH)] = obliged(**said)
    error = await denied(world, world.call(BASH), Denied)
    assert error.cause_code == "unbound"


async def test_a_tool_of_the_gateway_is_called_and_not_asked_about(world: World) -> None:
    """An answer about it could be taken for a permit."""
    error = await denied(world, world.call("erp.stock"), Denied)
    assert error.cause_code == "not_a_hook"


async def test_what_an_agent_does_itself_is_no_tool_to_call(world: World) -> None:
    """Even where policy allows it and the name gets as far as the door: no intent, no call."""
    call = world.call(BASH)
    with pytest.raises(UnknownTool):
        await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == [REFUSED]
    assert world.connector.sent == []
    assert world.runs.usage(RUN.id).calls.total() == 0


async def test_what_cannot_be_recorded_is_not_said(world: World) -> None:
    """The log is full: no answer, and so no yes."""
    world.journal.fail("consultation.advise", Unavailable("the disk is full"))
    with pytest.raises(Unavailable):
        await pipeline.advise(world.call(BASH), world.ports())


async def test_a_policy_that_cannot_answer_says_no(world: World) -> None:
    """A fault of the engine is no word of policy."""
    world.policy.faults[("call", BASH)] = "engine.timeout"
    await denied(world, world.call(BASH), Unavailable)


async def test_a_strangers_run_is_no_run(world: World) -> None:
    """As for a call."""
    await denied(world, world.call(BASH, run="missing"), NotFound)
