"""Whose turn it is where something that was lost stays stuck: what is new, and what was passed over, has one soon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from gateway.adapters.credentials.reaper import Doubt, Reaper
from gateway.adapters.credentials.tokens import Tokens
from gateway.core.leasing import VaultCause
from tests.fakes.leases import READ, Mint, fault
from tests.waiting import until

pytestmark = pytest.mark.requirement("CRED-2")
HOUR_S = 3600.0
SOON_S = 15.0


@dataclass
class Keeper:
    """A reaper at work on a fake vault, and the loop's clock, which is set ahead."""

    real: Callable[[], float]
    ahead_s: float = 0.0
    mint: Mint = field(default_factory=Mint)
    reaper: Reaper = field(init=False)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Build it."""
        mint = self.mint
        tokens = Tokens(mint.vault, mint.lines, mint.known, mint.clock)
        self.reaper = Reaper(mint.vault, tokens, mint.meter, lambda: None)

    def now(self) -> float:
        """The loop's time, seconds."""
        return self.real() + self.ahead_s

    def lose(self, name: str, *, is_stuck: bool = False) -> None:
        """Something is lost by the token of that name; ``is_stuck``: and cannot be dropped."""
        if is_stuck:
            self.mint.vault.stuck.add(name)
        self.reaper.take(Doubt(READ, None, f"accessor-of-{name}", name, lambda _: None, self.said.append))

    async def fail(self, later_s: float) -> None:
        """After so long, one more try that fails."""
        before = len(self.mint.meter.faults)
        self.ahead_s += later_s
        await until(lambda: len(self.mint.meter.faults) > before)

    async def reaped(self, name: str) -> None:
        """Return when nothing is lost by that name."""
        await until(lambda: name in self.mint.vault.reaped)


@pytest.fixture
async def keeper(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keeper]:
    """One that has had something stuck for a day, and asks about it once an hour."""
    loop = asyncio.get_running_loop()
    made = Keeper(loop.time)
    monkeypatch.setattr(loop, "time", made.now)
    work = asyncio.create_task(made.reaper.run())
    made.lose("old", is_stuck=True)
    for _ in range(24):
        await made.fail(HOUR_S)
    yield made
    made.reaper.stop()
    await work


async def test_what_comes_while_another_is_tried_does_not_wait_for_that_one(keeper: Keeper) -> None:
    """It came too late for that round, and the next one is soon."""
    vault = keeper.mint.vault

    def come() -> None:
        del keeper.mint.journal.traps["vault.reap"]
        keeper.lose("new")

    keeper.mint.journal.traps["vault.reap"] = come
    await keeper.fail(HOUR_S)
    assert vault.reaped == []
    keeper.ahead_s += SOON_S
    await keeper.reaped("new")


async def test_of_two_that_come_together_one_that_fails_does_not_hold_up_the_other(keeper: Keeper) -> None:
    """In between it is the turn of what failed before; no pause is longer than after what is new."""
    keeper.lose("worse", is_stuck=True)
    keeper.lose("new")
    for _ in ("worse", "old"):
        await keeper.fail(SOON_S)
    assert keeper.mint.vault.reaped == []
    keeper.ahead_s += SOON_S
    await keeper.reaped("new")


async def test_those_that_come_and_fail_keep_nothing_waiting_that_failed_before(keeper: Keeper) -> None:
    """However many come: who can make them come, and fail, must not keep another's from being dropped."""
    keeper.lose("hit", is_stuck=True)
    await keeper.fail(SOON_S)
    keeper.mint.vault.stuck.remove("hit")
    for number in range(8):
        keeper.lose(f"more-{number}", is_stuck=True)
        await keeper.fail(SOON_S)
        if "hit" in keeper.mint.vault.reaped:
            break
    assert keeper.mint.vault.reaped == ["hit"]


async def test_a_minting_while_one_is_tried_makes_it_tried_again(keeper: Keeper) -> None:
    """The try began before the database was back: that it failed says nothing."""

    def back() -> None:
        del keeper.mint.journal.traps["vault.reap"]
        keeper.mint.vault.stuck.clear()
        keeper.reaper.minted(READ.name)
        raise fault(VaultCause.SLOW)

    keeper.mint.journal.traps["vault.reap"] = back
    await keeper.fail(HOUR_S)
    await keeper.reaped("old")


async def test_what_stays_stuck_is_journalled_again_twice_a_day(keeper: Keeper) -> None:
    """A gateway that starts looks a day back for what an earlier one left, and finds it for as long as it is so."""
    for _ in range(24):
        await keeper.fail(HOUR_S)
    assert keeper.said == [VaultCause.FAILED] * 4
