"""The one door, told as conversations on fakes: who gets in, in what order, and how every call ends."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.core import pipeline
from gateway.core.approval import Signature, Verdict
from gateway.core.call import Call, Resumed
from gateway.core.errors import (
    BudgetExhausted,
    Denied,
    GatewayError,
    InvalidArguments,
    MalformedRequest,
    NotFound,
    OutcomeUnknown,
    Pending,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownTool,
)
from gateway.core.ports import PipelineSettings
from tests.fakes import STAGES, World
from tests.fakes.audit import COMPLETED, INTENT, REFUSED
from tests.fakes.callers import AGENT, RUN
from tests.fakes.rules import ALLOW, APPROVAL, DENY, SILENT

# Just under the cap of arguments, and over it. With LONG_PAST the first makes a document over the cap of documents.
LARGE, TOO_LARGE = (b'{"text": "' + b"x" * size + b'"}' for size in (190_000, 200_000))
LONG_PAST = "erp." + "x" * 80_000


@pytest.fixture
def world() -> World:
    """Fakes on which every call is allowed and answered."""
    return World()


async def refused(world: World, call: Call, error: type[GatewayError]) -> GatewayError:
    """The error a call is refused with, having shown that nothing went out and one refusal was recorded."""
    with pytest.raises(error) as caught:
        await pipeline.handle(call, world.ports())
    assert world.connector.sent == []
    assert world.audit.types(call.id) == [REFUSED]
    assert world.runs.usage(RUN.id).calls.total() == 0
    return caught.value


@pytest.mark.requirement("TEST-1")
async def test_a_call_passes_every_stage_in_order(world: World) -> None:
    """Identity, record, run, pin, decision, reservation, limits, intent, lease, call, contract, secrets, completion."""
    call = world.call()
    answer = await pipeline.handle(call, world.ports())
    assert tuple(world.journal.steps) == STAGES
    assert (answer.call_id, answer.run_id, answer.is_error) == (call.id, RUN.id, False)
    assert world.audit.types(call.id) == [INTENT, COMPLETED]
    assert world.runs.usage(RUN.id).calls == {"erp.stock": 1}


async def test_the_decided_arguments_are_what_policy_read(world: World) -> None:
    """Policy reads the very bytes the connector is given, and identity from the credential alone."""
    await pipeline.handle(world.call(arguments=b'{"n": 1.50, "principal": {"id": "root"}}'), world.ports())
    first, listed, called = world.policy.asked
    assert first == listed
    assert (listed["phase"], called["phase"]) == ("list", "call")
    assert "args" not in listed
    assert called["args"] == {"n": 1.5, "principal": {"id": "root"}}
    assert called["principal"]["id"] == AGENT.agent
    assert world.connector.sent[0].intent.call.arguments.canonical == b'{"n":1.50,"principal":{"id":"root"}}'


async def test_a_bad_credential_is_not_logged(world: World) -> None:
    """Whoever cannot prove who they are leaves no record and reaches nothing else."""
    with pytest.raises(Unauthenticated):
        await pipeline.handle(world.call(token="forged"), world.ports())
    assert world.journal.steps == ["identity.authenticate"]
    assert world.audit.lines == []


async def test_another_principals_run_is_no_run(world: World) -> None:
    """A run that is not the caller's is answered as one that does not exist."""
    world.runs.opened["stolen"] = replace(RUN, principal_key="somebody else")
    stolen = await refused(world, world.call(run="stolen"), NotFound)
    missing = await refused(world, world.call(run="missing"), NotFound)
    assert str(stolen) == str(missing)


@pytest.mark.requirement("TEST-1")
async def test_a_hidden_tool_and_a_missing_one_cannot_be_told_apart(world: World) -> None:
    """Both get the same error after the same one question to policy; the hidden tool's bad arguments stay unsaid."""
    world.policy.words[("list", "erp.wipe")] = SILENT
    world.policy.words[("list", "erp.nothing")] = SILENT
    world.catalog.faults["erp.wipe"] = InvalidArguments("rows: must be an integer")
    hidden = await refused(world, world.call("erp.wipe"), UnknownTool)
    missing = await refused(world, world.call("erp.nothing"), UnknownTool)
    assert (hidden.detail, hidden.reasons, hidden.cause_code) == (missing.detail, missing.reasons, missing.cause_code)
    assert world.policy.questions == 2


async def test_an_unlisted_tool_is_unknown_even_where_policy_allows_all(world: World) -> None:
    """A policy that lists everything cannot make a tool exist."""
    await refused(world, world.call("erp.nothing"), UnknownTool)


@pytest.mark.requirement("SCOPE-1")
async def test_a_tool_outside_the_runs_scope_does_not_exist(world: World) -> None:
    """A run opened for ``erp.*`` knows of no bank."""
    world.runs.implicit = replace(RUN, scope=("erp.*",))
    await refused(world, world.call("bank.pay"), UnknownTool)
    assert "bank.pay" not in {tool.fqn for tool in await pipeline.listing(world.call(), world.ports())}


@pytest.mark.requirement("CLEAN-1")
async def test_a_visible_tools_bad_arguments_are_told(world: World) -> None:
    """A caller who may see the tool hears what is wrong, and policy was never shown the arguments."""
    world.catalog.faults["erp.stock"] = InvalidArguments("sku: required")
    error = await refused(world, world.call(), InvalidArguments)
    assert error.detail == "sku: required"
    assert [document["phase"] for document in world.policy.asked] == ["list"]


async def test_a_call_document_that_is_too_large_is_told_to_those_who_see_the_tool(world: World) -> None:
    """The caller of a visible tool hears that it is too large, after the question was asked about listing alone."""
    world.runs.usage(RUN.id).calls[LONG_PAST] = 1
    with pytest.raises(TooLarge) as caught:
        await pipeline.handle(world.call(arguments=LARGE), world.ports())
    assert caught.value.cause_code == "policy_input"
    assert world.connector.sent == []
    assert [document["phase"] for document in world.policy.asked] == ["list"]


@pytest.mark.requirement("TEST-1")
@pytest.mark.parametrize("observe", [False, True])
@pytest.mark.parametrize("listing_fault", [None, "engine.error"])
@pytest.mark.parametrize("call_fault", [None, "engine.error", "deadly"])
@pytest.mark.parametrize("arguments", [b"{}", LARGE, TOO_LARGE])
@pytest.mark.parametrize("word", [SILENT, DENY, ALLOW, APPROVAL])
@pytest.mark.parametrize("bad", [False, True])
async def test_no_fault_tells_a_hidden_tool_from_a_missing_one(  # noqa: PLR0913  each is a column of the table
    *,
    bad: bool,
    word: dict[str, Any],
    arguments: bytes,
    call_fault: str | None,
    listing_fault: str | None,
    observe: bool,
) -> None:
    """Whatever is wrong with arguments, call document or engine: same error, cause and number of documents asked."""
    ends = []
    for name in ("erp.wipe", "erp.nothing"):
        world = World()
        world.settings = PipelineSettings(observe=observe)
        world.runs.usage(RUN.id).calls[LONG_PAST] = 1
        world.policy.words |= {("list", name): SILENT, ("call", "erp.wipe"): word}
        if listing_fault is not None:
            world.policy.faults[("list", name)] = listing_fault
        if name == "erp.wipe":
            # Only a tool that exists can have rules and a schema of its own that something fails in.
            if bad:
                world.catalog.faults[name] = InvalidArguments("rows: must be an integer")
            if call_fault == "deadly":
                world.policy.deadly.add(("call", name))
            elif call_fault is not None:
                world.policy.faults[("call", name)] = call_fault
        with pytest.raises(GatewayError) as caught:
            await pipeline.handle(world.call(name, arguments=arguments), world.ports())
        ends.append((type(caught.value), caught.value.detail, caught.value.cause_code, caught.value.reasons))
    assert ends[0] == ends[1]


@pytest.mark.requirement("REDACT-2")
async def test_a_secret_in_an_argument_goes_nowhere(world: World) -> None:
    """A value the gateway keeps secret is refused before policy reads it; a hidden tool stays hidden."""
    world.redactor.secrets = ("s3cret-value",)
    error = await refused(world, world.call(arguments=b'{"note": "s3cret-value"}'), InvalidArguments)
    assert error.cause_code == "known_secret"
    assert "s3cret" not in str(world.policy.asked)
    world.policy.words[("list", "erp.wipe")] = SILENT
    await refused(world, world.call("erp.wipe", arguments=b'{"note": "s3cret-value"}'), UnknownTool)


async def test_what_rules_over_a_hidden_tool_is_the_listing(world: World) -> None:
    """Where a package would allow the call of a tool that listing hides, the refusal is what is decided and counted."""
    world.policy.words |= {("list", "erp.stock"): SILENT, ("call", "erp.stock"): ALLOW}
    await refused(world, world.call(), UnknownTool)
    assert [key for key in world.meter.counts if key.startswith("decided")] == ["decided:deny:default.no_allow"]


async def test_a_call_document_that_kills_the_engine_is_unavailable(world: World) -> None:
    """Who may see the tool hears that policy is not there; the answer about listing alone lets nothing through."""
    world.policy.deadly.add(("call", "erp.stock"))
    error = await refused(world, world.call(), Unavailable)
    assert (error.cause_code, error.reasons[0].id) == ("policy_unavailable", "engine.unavailable")
    assert [document["phase"] for document in world.policy.asked] == ["list", "list", "call", "list"]


async def test_a_denied_call_of_a_visible_tool_says_why(world: World) -> None:
    """Denied carries the reasons of the call decision."""
    world.policy.words[("call", "erp.stock")] = DENY
    error = await refused(world, world.call(), Denied)
    assert [reason.id for reason in error.reasons] == ["test.deny"]


async def test_nothing_said_is_denied(world: World) -> None:
    """A call that no package allows is denied."""
    world.policy.words[("call", "erp.stock")] = SILENT
    error = await refused(world, world.call(), Denied)
    assert error.reasons[0].id == "default.no_allow"


@pytest.mark.requirement("GATE-1")
async def test_a_call_that_needs_people_is_parked(world: World) -> None:
    """Nothing goes out and nothing is reserved; the same call again waits for the same approval."""
    world.policy.words[("call", "bank.pay")] = APPROVAL
    first = await refused(world, world.call("bank.pay"), Pending)
    again = await refused(world, world.call("bank.pay"), Pending)
    other = await refused(world, world.call("bank.pay", b'{"amount": 2}'), Pending)
    waits = [error.approval_id for error in (first, again, other) if isinstance(error, Pending)]
    assert waits == ["approval-0", "approval-0", "approval-1"]


def signature(person: str = "vera") -> Signature:
    """A reviewer's word for it."""
    return Signature("k-1", person, frozenset(), Verdict.APPROVE, 1)


async def parked(world: World) -> str:
    """Id of the approval a payment waits for."""
    world.policy.words[("call", "bank.pay")] = APPROVAL
    with pytest.raises(Pending) as caught:
        await pipeline.handle(world.call("bank.pay"), world.ports())
    return caught.value.approval_id


def resumed(world: World, origin: Resumed, arguments: bytes = b"{}") -> Call:
    """The parked call, as it is taken up again."""
    return structs.replace(world.call("bank.pay", arguments), origin=origin, run=None)


@pytest.mark.requirement("GATE-1")
async def test_what_people_signed_is_carried_out(world: World) -> None:
    """A resumed call takes the same way as any other, as who it was parked for; policy reads the signatures."""
    origin = world.approvals.sign(await parked(world), signature())
    world.identity.tokens.clear()  # the token has expired meanwhile
    call = resumed(world, origin)
    answer = await pipeline.handle(call, world.ports())
    assert (answer.call_id, world.audit.types(call.id)) == (call.id, [INTENT, COMPLETED])
    assert world.connector.sent[0].intent.approval_id == origin.approval_id
    said = world.policy.asked[-1]["approvals"]
    assert [(word["by"], word["verdict"]) for word in said] == [("vera", "approve")]
    assert said[0]["args_digest"] == call.arguments.digest


@pytest.mark.requirement("GATE-1")
@pytest.mark.parametrize("spoilt", ["arguments", "quorum", "denied", "unsigned"])
async def test_an_approval_is_good_for_what_was_signed_only(world: World, spoilt: str) -> None:
    """Other arguments, too few persons, a policy that now denies, no signature at all: nothing goes out."""
    approval_id = await parked(world)
    origin = world.approvals.sign(approval_id, *([] if spoilt == "unsigned" else [signature()]))
    need = {"id": "test.two", "msg": "two persons must agree", "quorum": 2}
    words = {"denied": DENY, "quorum": APPROVAL | {"require": {"test": [need]}}}
    world.policy.words[("call", "bank.pay")] = words.get(spoilt, APPROVAL)
    arguments = b'{"amount": 2}' if spoilt == "arguments" else b"{}"
    error = await refused(world, resumed(world, origin, arguments), Denied)
    assert error.cause_code == ("denied" if spoilt == "denied" else "approval_stale")


async def test_a_parked_call_ends_with_the_issuer_who_vouched_for_its_caller(world: World) -> None:
    """An issuer that was taken out of the settings meanwhile takes along what waited."""
    origin = world.approvals.sign(await parked(world), signature())
    world.identity.dropped = {AGENT.issuer}
    with pytest.raises(Unauthenticated) as refusal:
        await pipeline.handle(resumed(world, origin), world.ports())
    assert (refusal.value.cause_code, world.connector.sent) == ("issuer", [])


async def test_an_approval_that_is_not_given_opens_nothing(world: World) -> None:
    """A call that says it is resumed, and is not, gets no further than a stranger."""
    approval_id = await parked(world)
    with pytest.raises(NotFound):
        await pipeline.handle(resumed(world, Resumed(approval_id)), world.ports())
    assert world.connector.sent == []


@pytest.mark.parametrize("phase", ["list", "call"])
async def test_an_engine_fault_is_unavailable(world: World, phase: str) -> None:
    """A fault in either phase refuses the call as a part that is down, also in observe mode."""
    world.policy.faults[(phase, "erp.stock")] = "engine.timeout"
    world.settings = PipelineSettings(observe=True)
    error = await refused(world, world.call(), Unavailable)
    assert error.cause_code == "policy_unavailable"
    assert error.reasons[0].id == "engine.timeout"


@pytest.mark.parametrize(
    ("name", "passes"), [("erp.stock", True), ("erp.order", True), ("bank.pay", False), ("erp.wipe", False)]
)
async def test_observe_mode_lets_reads_and_writes_pass(world: World, name: str, *, passes: bool) -> None:
    """Observed, a refusal is recorded and not enforced, but never for money or destructive tools."""
    world.settings = PipelineSettings(observe=True)
    world.policy.words[("call", name)] = DENY
    if not passes:
        await refused(world, world.call(name), Denied)
        return
    await pipeline.handle(world.call(name), world.ports())
    decision = world.connector.sent[0].intent.decision
    assert (decision.effect, decision.enforced) == ("deny", False)


async def test_two_calls_cannot_share_the_last_place_of_a_budget(world: World) -> None:
    """While a call is in flight its reservation already counts."""
    world.runs.implicit = replace(RUN, budget={"calls": 1})
    answered = world.call()
    await pipeline.handle(answered, world.ports())
    late = world.call()
    with pytest.raises(BudgetExhausted):
        await pipeline.handle(late, world.ports())
    assert world.policy.asked[-1]["run"]["calls"] == {"erp.stock": 1}
    assert world.audit.types(late.id) == [REFUSED]


async def test_a_throttled_call_gives_its_reservation_back(world: World) -> None:
    """No room under a limit: nothing counted, nothing sent."""
    world.limits.room = 0
    await refused(world, world.call(), Throttled)


async def test_only_what_hides_waits_for_a_beat(world: World) -> None:
    """A hidden tool does, once its record is there; a denial and an answer leave at once."""
    world.policy.words[("call", "erp.stock")] = DENY
    await refused(world, world.call(), Denied)
    world.policy.words[("list", "erp.wipe")] = SILENT
    await refused(world, world.call("erp.wipe"), UnknownTool)
    assert (world.pace.held, world.journal.steps[-1]) == (1, "pace.beat")
    await pipeline.handle(world.call("erp.order"), world.ports())
    assert world.pace.held == 1


async def test_a_failed_call_stays_counted(world: World) -> None:
    """Once the intent is durable the call counts, however it ends."""
    world.journal.fail("connector.invoke", OutcomeUnknown("lost"))
    with pytest.raises(OutcomeUnknown):
        await pipeline.handle(world.call(), world.ports())
    assert world.runs.usage(RUN.id).calls == {"erp.stock": 1}


async def test_a_completion_that_cannot_be_written_withholds_the_output(world: World) -> None:
    """The caller hears that the outcome is unknown, never the output."""
    world.journal.fail("entry.complete", Unavailable("disk full"))
    call = world.call("erp.order")
    with pytest.raises(OutcomeUnknown):
        await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == [INTENT, "tool.outcome_unknown"]


async def test_secrets_do_not_reach_the_answer(world: World) -> None:
    """The answer is the redactor's text."""
    world.redactor.secrets = ("42",)
    answer = await pipeline.handle(world.call(), world.ports())
    assert b"42" not in answer.body
    assert answer.redactions == 1


async def test_a_refused_request_of_a_known_caller_is_recorded(world: World) -> None:
    """Bad bytes from an authenticated caller get one record and their own error."""
    call = world.call()
    with pytest.raises(MalformedRequest):
        await pipeline.refuse(call, MalformedRequest("not JSON"), world.ports())
    assert world.audit.types(call.id) == [REFUSED]


async def test_a_refused_request_of_a_stranger_is_not_recorded(world: World) -> None:
    """Bad bytes from nobody are an authentication failure and leave no record."""
    with pytest.raises(Unauthenticated):
        await pipeline.refuse(world.call(token="forged"), MalformedRequest("not JSON"), world.ports())
    assert world.audit.lines == []


async def test_the_listing_shows_what_policy_lists(world: World) -> None:
    """Denied and faulty tools are hidden, in one question, without a record."""
    world.policy.words[("list", "erp.wipe")] = DENY
    world.policy.words[("list", "erp.order")] = ALLOW
    world.policy.faults[("list", "bank.pay")] = "engine.timeout"
    listed = await pipeline.listing(world.call(), world.ports())
    assert [tool.fqn for tool in listed] == ["erp.stock", "erp.order"]
    assert world.policy.questions == 1
    assert world.audit.lines == []


async def test_the_listing_fails_closed(world: World) -> None:
    """Where policy cannot be asked there is no listing."""
    world.journal.fail("policy.evaluate", Unavailable("no worker"))
    with pytest.raises(Unavailable):
        await pipeline.listing(world.call(), world.ports())
