"""The Limits port in memory."""

from contextlib import AsyncExitStack

import anyio
import pytest

from gateway.adapters.limiter import MemoryLimits, OverallLimits
from gateway.core.call import Permit, Resolved
from gateway.core.decision import Obligations
from gateway.core.errors import Throttled
from gateway.core.tool import Tool, ToolLimits
from tests.clock import StepClock
from tests.evidence import make_call, make_caller, make_decision, make_permit, make_principal, make_tool


def permit(tool: Tool | None = None, user: str = "alice", per_minute: int | None = None) -> Permit:
    """A permit for ``user`` under the obligation of ``per_minute``."""
    which = tool or make_tool()
    caller = make_caller(make_call(which.fqn), make_principal(user=user))
    return make_permit(Resolved(caller, which, None), make_decision(obligations=Obligations(per_minute=per_minute)))


async def refused(limits: MemoryLimits, wanted: Permit) -> Throttled:
    """The refusal of one call."""
    with pytest.raises(Throttled) as caught:
        async with limits.spend(wanted):
            raise AssertionError("it was let through")
    return caught.value


async def test_a_permit_with_room_becomes_a_quota() -> None:
    """The quota is for this very permit, and the place is given back."""
    limits, wanted = MemoryLimits(StepClock()), permit(make_tool(limits=ToolLimits(concurrency=1)))
    async with limits.spend(wanted) as quota:
        assert quota.permit is wanted
        assert limits.held == 5
    assert limits.held == 0


@pytest.mark.requirement("RATE-1")
async def test_the_stricter_of_catalogue_and_policy_counts() -> None:
    """Tool says 5 a minute, policy says 2: two pass; the wait told is the wait needed."""
    clock = StepClock()
    limits, tool = MemoryLimits(clock), make_tool(limits=ToolLimits(per_minute=5))
    for _ in range(2):
        async with limits.spend(permit(tool, per_minute=2)):
            pass
    error = await refused(limits, permit(tool, per_minute=2))
    assert (error.retry_after, error.cause_code) == (30.0, "rate_tool")
    clock.advance(30)
    async with limits.spend(permit(tool, per_minute=2)):
        pass


@pytest.mark.requirement("RATE-1")
async def test_principals_do_not_use_each_others_rate() -> None:
    """One caller's flood leaves the other's tokens alone; another tool has its own."""
    limits, tool = MemoryLimits(StepClock()), make_tool(limits=ToolLimits(per_minute=1))
    other = make_tool("other", limits=ToolLimits(per_minute=1))
    for wanted in (permit(tool), permit(tool, "bob"), permit(other)):
        async with limits.spend(wanted):
            pass
    assert (await refused(limits, permit(tool))).cause_code == "rate_tool"


async def test_the_overall_rate_counts_all_tools() -> None:
    """A principal's calls of different tools add up, and a call refused elsewhere costs none of it."""
    limits = MemoryLimits(StepClock(), OverallLimits(per_minute=2))
    tight = make_tool("tight", limits=ToolLimits(per_minute=1))
    async with limits.spend(permit(tight)):
        pass
    assert (await refused(limits, permit(tight))).cause_code == "rate_tool"
    async with limits.spend(permit()):
        pass
    assert (await refused(limits, permit())).cause_code == "rate_principal"


@pytest.mark.parametrize(
    ("overall", "second", "cause"),
    [
        (OverallLimits(concurrency=1), "bob", "concurrency"),
        (OverallLimits(concurrency_per_principal=1), "alice", "concurrency_principal"),
        (OverallLimits(), "bob", "concurrency_tool"),
    ],
)
async def test_places_are_limited(overall: OverallLimits, second: str, cause: str) -> None:
    """While a call runs the next one over a concurrency limit is refused, afterwards it passes."""
    limits, tool = MemoryLimits(StepClock(), overall), make_tool(limits=ToolLimits(concurrency=1))
    async with limits.spend(permit(tool)):
        error = await refused(limits, permit(tool, second))
        assert (error.cause_code, error.retry_after) == (cause, 1.0)
    async with limits.spend(permit(tool, second)):
        assert limits.held == 5


async def test_places_come_back_on_every_exit() -> None:
    """After an error and after a cancellation nothing is held."""
    limits = MemoryLimits(StepClock())
    with pytest.raises(RuntimeError, match="boom"):
        async with limits.spend(permit()):
            raise RuntimeError("boom")
    with anyio.CancelScope() as scope:
        async with limits.spend(permit()):
            scope.cancel()
            await anyio.sleep_forever()
    assert limits.held == 0


async def test_an_upstream_that_hangs_leaves_places_to_the_others() -> None:
    """However many calls wait at one upstream: some places of each principal, and of all, are for others."""
    overall = OverallLimits(concurrency=12, concurrency_per_principal=6)
    limits, hung, other = MemoryLimits(StepClock(), overall), make_tool("a"), make_tool("b", server="other")
    async with AsyncExitStack() as stack:
        for user, most in (("alice", 5), ("bob", 4)):
            for _ in range(most):
                await stack.enter_async_context(limits.spend(permit(hung, user)))
            assert (await refused(limits, permit(hung, user))).cause_code == "concurrency_upstream"
            await stack.enter_async_context(limits.spend(permit(other, user)))
        assert (await refused(limits, permit(hung, "carol"))).cause_code == "concurrency_upstream"
        await stack.enter_async_context(limits.spend(permit(other, "carol")))
    assert limits.held == 0


async def test_a_limit_of_none_tells_no_wait() -> None:
    """Policy may say zero: waiting does not help, so none is told."""
    assert (await refused(MemoryLimits(StepClock()), permit(per_minute=0))).retry_after is None


async def test_many_at_once_never_pass_the_limit() -> None:
    """Twenty calls of a tool that takes five at a time: exactly five hold a place."""
    limits, tool = MemoryLimits(StepClock()), make_tool(limits=ToolLimits(concurrency=5))
    async with AsyncExitStack() as stack:
        through = 0
        for _ in range(20):
            try:
                await stack.enter_async_context(limits.spend(permit(tool)))
                through += 1
            except Throttled:
                pass
        assert through == 5
    assert limits.held == 0


async def test_what_is_known_of_limits_is_bounded_and_forgets_no_place() -> None:
    """However many tools are called: a place that is held meanwhile still counts."""
    clock, busy = StepClock(), permit(make_tool(limits=ToolLimits(concurrency=1)))
    limits = MemoryLimits(clock)
    async with limits.spend(busy):
        for number in range(5000):
            async with limits.spend(permit(make_tool(f"other-{number}"))):
                pass
            clock.advance(1)
        assert len(limits._needs) <= 4096
        assert (await refused(limits, busy)).cause_code == "concurrency_tool"
    async with limits.spend(busy):
        assert limits.held == 5
