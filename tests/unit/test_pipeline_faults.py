"""The invariant under faults, on fakes: an attempt has its own earlier durable intent, an intent ends exactly once.

Every step of every port is made to fail in every way, and callers leave at every await.
"""

from collections.abc import Callable
from functools import partial

import pytest
from anyio import CancelScope, create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import pipeline
from gateway.core.call import Answer, Call
from gateway.core.errors import (
    BudgetExhausted,
    Denied,
    GatewayError,
    InvalidArguments,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Tainted,
    Throttled,
    ToolFailed,
    Unauthenticated,
    Unavailable,
)
from tests.fakes import STAGES, World
from tests.fakes.audit import COMPLETED, INTENT, REFUSED
from tests.fakes.callers import RUN
from tests.fakes.upstream import ORDER, STOCK

ERRORS = (
    Unauthenticated,
    Denied,
    NotFound,
    InvalidArguments,
    Throttled,
    BudgetExhausted,
    Unavailable,
    NotSent,
    ToolFailed,
    Tainted,
    OutcomeUnknown,
)
ENDINGS = {COMPLETED, "tool.failed", "tool.not_sent", "tool.outcome_unknown"}
EXITS = {"runs.section.left", "broker.revoked", "limits.returned"}
AFTER_INTENT = STAGES[STAGES.index("entry.committed") :]


@pytest.fixture
def world() -> World:
    """Fakes on which every call is allowed and answered."""
    return World()


def assert_invariant(world: World, *calls: Call) -> None:
    """Every upstream attempt has its own earlier durable intent; every intent ends exactly once; nothing stays held."""
    intents = 0
    for call in calls:
        types = world.audit.types(call.id)
        attempts = [lease for lease in world.connector.sent if lease.intent.call.id == call.id]
        assert types in ([], [REFUSED]) or (types[0] == INTENT and len(types) == 2 and types[1] in ENDINGS), types
        assert len(attempts) <= types.count(INTENT)
        intents += types.count(INTENT)
    assert len({lease.intent.record_id for lease in world.connector.sent}) == len(world.connector.sent)
    assert world.runs.usage(RUN.id).calls.total() == intents
    assert world.limits.held == 0
    assert world.broker.live == 0


@pytest.mark.requirement("TEST-5")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("step", [step for step in STAGES if step not in EXITS])
async def test_a_stage_that_fails_ends_the_call_once(world: World, step: str, error: type[GatewayError]) -> None:
    """Whatever a stage raises reaches the caller, the call ends exactly once, and nothing leaves without an intent."""
    call = world.call()
    world.journal.fail(step, error("injected"))
    with pytest.raises(GatewayError) as caught:
        await pipeline.handle(call, world.ports())
    lost = step == "entry.complete" and error is Unavailable
    assert type(caught.value) is (OutcomeUnknown if lost else error)
    assert_invariant(world, call)
    if step in AFTER_INTENT:
        assert world.audit.types(call.id) == [INTENT, caught.value.ending]
    elif step in {"identity.authenticate", "audit.open"}:
        assert world.audit.lines == []
    else:
        assert world.audit.types(call.id) == [REFUSED]


@pytest.mark.parametrize("step", [step for step in STAGES if step not in EXITS | {"audit.open"}])
async def test_a_part_that_breaks_its_contract_ends_the_call_once(world: World, step: str) -> None:
    """A bug in a part (an error that is none of ours) leaves no intent open and sends nothing without one."""
    call = world.call()
    world.journal.fail(step, RuntimeError("a bug"))
    with pytest.raises(RuntimeError):
        await pipeline.handle(call, world.ports())
    assert_invariant(world, call)


@pytest.mark.parametrize("step", [step for step in STAGES if step not in EXITS | {"audit.open"}])
async def test_a_reads_caller_who_leaves_cancels_it(world: World, step: str) -> None:
    """Wherever the caller of a read leaves: at most one call went out, after its intent, and one ending is recorded."""
    call = world.call(STOCK.fqn)
    with CancelScope() as scope:
        world.journal.traps[step] = scope.cancel
        await pipeline.handle(call, world.ports())
    assert scope.cancelled_caught
    assert_invariant(world, call)
    if step in AFTER_INTENT:
        assert world.audit.types(call.id) == [INTENT, "tool.outcome_unknown"]


@pytest.mark.parametrize("step", AFTER_INTENT)
async def test_a_committed_write_finishes_though_its_caller_leaves(world: World, step: str) -> None:
    """Once the intent is durable a write goes on to its completion; its outcome is kept."""
    call = world.call(ORDER.fqn)
    with CancelScope() as scope:
        world.journal.traps[step] = scope.cancel
        await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == [INTENT, COMPLETED]
    assert len(world.connector.sent) == 1


@pytest.mark.parametrize("step", ["runs.enter", "runs.section", "policy.evaluate", "limits.spend", "entry.commit"])
async def test_a_write_not_yet_committed_is_cancelled(world: World, step: str) -> None:
    """Before the intent a caller who leaves takes the call along, and its reservation."""
    call = world.call(ORDER.fqn)
    with CancelScope() as scope:
        world.journal.traps[step] = scope.cancel
        await pipeline.handle(call, world.ports())
    assert scope.cancelled_caught
    assert world.audit.types(call.id) == [REFUSED]
    assert_invariant(world, call)


def once(action: Callable[[], None], nth: int) -> Callable[[], None]:
    """A trap that acts the ``nth`` time its step is reached, and only then."""
    left = iter(range(nth, -1, -1))

    def trap() -> None:
        if next(left, -1) == 0:
            action()

    return trap


def throw(error: type[Exception]) -> None:
    """Raise the error."""
    raise error("injected")


async def attempt(call: Call, world: World, answers: list[Answer]) -> None:
    """One caller, who keeps an answer and shrugs at a refusal."""
    try:
        answers.append(await pipeline.handle(call, world.ports()))
    except (GatewayError, RuntimeError):
        return


FAULT = st.tuples(
    st.sampled_from([step for step in STAGES if step not in EXITS | {"audit.open"}]),
    st.integers(0, 3),
    st.sampled_from([*ERRORS, RuntimeError, None]),  # None: every caller leaves
)


@pytest.mark.requirement("TEST-5")
@settings(max_examples=50, deadline=None)
@given(
    tools=st.lists(st.sampled_from(["erp.stock", "erp.order", "bank.pay", "erp.nothing"]), min_size=1, max_size=4),
    faults=st.lists(FAULT, max_size=3),
)
async def test_the_invariant_holds_for_calls_at_once(
    tools: list[str], faults: list[tuple[str, int, type[Exception] | None]]
) -> None:
    """Calls of one run at the same time, with faults at any step of any of them and callers who leave."""
    world, answers = World(), list[Answer]()
    calls = [world.call(name) for name in tools]
    async with create_task_group() as group:
        for step, nth, error in faults:
            action = group.cancel_scope.cancel if error is None else partial(throw, error)
            world.journal.traps[step] = once(action, nth)
        for call in calls:
            group.start_soon(attempt, call, world, answers)
    assert_invariant(world, *calls)
    assert {answer.call_id for answer in answers} <= {
        line.call_id for line in world.audit.lines if line.type == COMPLETED
    }
