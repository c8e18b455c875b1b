"""No interleaving of calls, ends, cuts and time gives one person's login to another, or to two calls at a time."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway.core.desk import Whose
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder
from tests.fakes.leases import SHARED, Mint
from tests.tiers import tiered

CALLERS = tuple(
    Holder(run, "call", agent, user, tool, issuer, delegation)
    for issuer, user, agent, run, tool, delegation in (
        ("i1", "u1", "a1", "r1", "t1", ()),
        ("i2", "u1", "a1", "r1", "t1", ()),
        ("i1", "u2", "a1", "r1", "t1", ()),
        ("i1", "u1", "a2", "r1", "t1", ()),
        ("i1", "u1", "a1", "r2", "t1", ()),
        ("i1", "u1", "a1", "r1", "t2", ()),
        ("i1", "u1", "a1", "r1", "t1", ("x",)),
    )
)
WHO = st.integers(0, len(CALLERS) - 1)
STEPS = st.sampled_from([0, 1, 2, 3, 5, 8, 30, 30, 30])
# Nobody here is of the third: what ends everybody's logins all the time leaves none to share.
THIRD = ["1", "2", "3", "3", "3"]


@dataclass(slots=True, eq=False)
class Going:
    """A call that is minting, or has its login."""

    holder: Holder
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    user: str | None = None
    task: "asyncio.Task[None] | None" = None


class Sharing(RuleBasedStateMachine):
    """Leases on fakes, driven step by step on a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.mint = Mint()
        self.leases = self.mint.leases()
        self.going: list[Going] = []
        self.owners: dict[str, Holder] = {}
        self.wrong: list[str] = []
        self.cutting: list[asyncio.Task[None]] = []
        self.cut: set[str] = set()
        self.latest = CALLERS[0]
        self.loop.run_until_complete(self.leases.__aenter__())

    @rule(who=WHO, steps=STEPS)
    def begin(self, who: int, steps: int) -> None:
        """A call comes in; it gets as far as a number of steps."""
        self._begin(CALLERS[who], steps)

    @rule(steps=STEPS)
    def come_again(self, steps: int) -> None:
        """Whose call ended last calls once more: it is for such a caller that a login is kept."""
        self._begin(self.latest, steps)

    def _begin(self, holder: Holder, steps: int) -> None:
        going = Going(holder)
        going.task = self.loop.create_task(self._call(going))
        self.going.append(going)
        self._steps(steps)

    @rule(which=st.integers(0, 9), how=st.sampled_from(["well", "well", "well", "fails", "leaves"]), steps=STEPS)
    def finish(self, which: int, how: str, steps: int) -> None:
        """A call ends well, fails, or is left by its caller."""
        if not self.going:
            return
        going = self.going[which % len(self.going)]
        self.latest = going.holder
        going.fails = how == "fails"
        going.leave.set()
        if how == "leaves" and going.task is not None:
            going.task.cancel()
        self._steps(steps)

    @rule(number=st.sampled_from(THIRD), steps=STEPS)
    def end_run(self, number: str, steps: int) -> None:
        """A run ends: no call that comes later gets what was there before."""

        async def end() -> None:
            self.cut |= self._users(lambda holder: holder.run_id == f"r{number}")
            self.leases.run_ended(f"r{number}")

        self.loop.run_until_complete(end())
        self._steps(steps)

    @rule(number=st.sampled_from(THIRD), steps=STEPS)
    def cut_agent(self, number: str, steps: int) -> None:
        """An operator cuts an agent: the same."""

        async def cut() -> None:
            self.cut |= self._users(lambda holder: holder.agent == f"a{number}")
            await self.leases.revoke(Whose(agent=f"a{number}"))

        self.cutting.append(self.loop.create_task(cut()))
        self._steps(steps)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.mint.clock.advance(seconds)
        self._steps(2)

    @invariant()
    def nobody_shares(self) -> None:
        """What is in use is in use once, by whom it was minted for."""
        assert self.wrong == []
        users = [going.user for going in self.going if going.user is not None]
        assert len(users) == len(set(users))

    def teardown(self) -> None:
        """Everything ends: nothing is left in the vault."""
        for going in self.going:
            going.leave.set()
        for task in [*self.cutting, *(going.task for going in self.going)]:
            assert task is not None
            self.loop.run_until_complete(asyncio.wait([task]))
        self.loop.run_until_complete(self.leases.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        assert (self.mint.vault.logins, self.mint.vault.tokens, self.mint.meter.live) == ({}, {}, 0)
        self.loop.close()

    def _users(self, meant: Callable[[Holder], bool]) -> set[str]:
        return {held.minted.login.user for held in self.leases._in_use.values() if meant(held.holder)}

    async def _call(self, going: Going) -> None:
        barred = frozenset(self.cut)
        try:
            async with self.leases.login(SHARED.name, going.holder, 5, reads=True) as login:
                going.user = login.user
                owner = self.owners.setdefault(login.user, going.holder)
                self.wrong += [f"{login.user} is somebody else's"] if owner != going.holder else []
                self.wrong += [f"{login.user} was to be ended"] if login.user in barred else []
                await going.leave.wait()
                going.user = None
                if going.fails:
                    raise RuntimeError("the call failed")
        except (RuntimeError, Unavailable):
            return
        finally:
            going.user = None
            self.going = [one for one in self.going if one is not going]

    def _steps(self, number: int) -> None:
        async def go() -> None:
            for _ in range(number):
                await asyncio.sleep(0)

        self.loop.run_until_complete(go())


@pytest.mark.parametrize("lives", tiered([75], deep=[150]))
def test_no_interleaving_mixes_two_callers(lives: int) -> None:
    """Issuer, user, agent, actor, run, tool: whatever differs, the login does; an ended one is given to nobody."""
    steps: Counter[str] = Counter()

    class Counted(Sharing):
        def teardown(self) -> None:
            steps.update(self.mint.lines.words())
            super().teardown()

    run_state_machine_as_test(Counted, settings=settings(max_examples=lives, stateful_step_count=40, deadline=None))
    assert steps["reused"] > 0, "nothing was shared, so nothing was tried"
