"""Two persons, two gateways, one service, in any order and in the middle of each other: whose account a call gets."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.connections import Accounts, Link, PersonTokens, TokenParts, minting
from gateway.core.call import Principal
from gateway.core.connections import Consent
from gateway.core.errors import GatewayError
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, MintingToken, Provider, Template
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.fakes.accounts import AccountVault, FakeConnectionJournal, FakeHub, FakeKeeper, nobody

CALL = Template("hub-read", "secret", "hub", "hub", 3600, provider=Provider.OAUTH_USER, header="Authorization")
PLACE = replace(CALL, name="connection-hub")
TOKEN = MintingToken("accessor", "s.minting-token", 30, "request")
# The same name at two issuers, and two names at one, are three persons.
PERSONS = tuple(
    make_principal(user=user, agent=None, issuer=issuer)
    for issuer, user in (("urn:a", "dora"), ("urn:b", "dora"), ("urn:a", "emil"))
)
Do = Literal["connect", "close", "call", "down", "up"]


@dataclass(frozen=True)
class Step:
    """What a person does at a gateway, and what happens while its refresh is under way, where it is a call."""

    do: Do
    who: int
    at: int
    meanwhile: "Step | None" = None


class Running(StepClock):
    """A clock that goes on whenever somebody looks, so that nobody waits for ever."""

    def monotonic(self) -> float:
        """A second later each time."""
        self.advance(1)
        return super().monotonic()


@dataclass
class World:
    """The service, the vault, and what is true of them.

    Attributes:
        open: the account each person has connected, by their place in ``PERSONS``.
        ever: all that each has ever connected, in order.
        replaced: those that another one was connected over.
        was_down: whether the vault ever was.
        waiting: calls that wait for another one of the same person.
    """

    hub: FakeHub = field(default_factory=FakeHub)
    keeper: FakeKeeper = field(default_factory=FakeKeeper)
    clock: Running = field(default_factory=Running)
    open: dict[int, str] = field(default_factory=dict)
    ever: dict[int, list[str]] = field(default_factory=lambda: {who: [] for who in range(len(PERSONS))})
    replaced: set[str] = field(default_factory=set)
    was_down: bool = False
    waiting: list[asyncio.Task[None]] = field(default_factory=list)
    gateways: list[tuple[Accounts, PersonTokens]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Two gateways, each with a memory of its own."""
        for _ in range(2):
            parts = TokenParts(self.keeper, FakeConnectionJournal(), KnownValues(), self.clock)
            links = {"hub": Link("hub", self.hub, PLACE, ())}
            tokens = PersonTokens(links, parts)
            self.gateways.append((Accounts(links, AccountVault(), parts, tokens), tokens))

    async def take(self, step: Step) -> None:
        """Do it; what is refused is refused."""
        self.clock.advance(1)
        accounts, tokens = self.gateways[step.at]
        person = PERSONS[step.who]
        try:
            if step.do == "connect":
                await self._connect(accounts, step.who, person)
            elif step.do == "close":
                await accounts.close(person, "hub")
                self.open.pop(step.who, None)
            elif step.do == "call":
                await self._call(tokens, step)
            else:
                self.keeper.is_down = step.do == "down"
                self.was_down |= self.keeper.is_down
        except GatewayError:
            return

    async def _connect(self, accounts: Accounts, who: int, person: Principal) -> None:
        account = f"account-{who}-{self.hub.drawn}"
        await accounts.open(person, "hub", Consent(account, "v" * 43, "http://127.0.0.1:7/callback/hub"))
        if who in self.open:
            self.replaced.add(self.open[who])
        self.open[who] = account
        self.ever[who].append(account)

    async def _call(self, tokens: PersonTokens, step: Step) -> None:
        person, before, since = PERSONS[step.who], self.open.get(step.who), len(self.ever[step.who])
        self.hub.during = self._once(step)
        try:
            minted = await tokens.mint(CALL, TOKEN, Holder("run", "call", "agent", person.user, issuer=person.issuer))
        finally:
            self.hub.during = nobody
        account = self.hub.access[minted.login.password]
        assert account in {before, *self.ever[step.who][since:]}, "not theirs, or not any more"
        await tokens.revoke(minted.lease_id)

    def _once(self, step: Step) -> Callable[[], Awaitable[None]]:
        async def happen() -> None:
            self.hub.during, nested = nobody, step.meanwhile
            if nested is None:
                return
            task = asyncio.create_task(self.take(nested))
            if nested.do == "call" and (nested.who, nested.at) == (step.who, step.at):
                self.waiting.append(task)
            else:
                await task

        return happen


def steps(meanwhile: st.SearchStrategy[Step | None]) -> st.SearchStrategy[Step]:
    """One step; calls are what is most of it, and one person does most of it."""
    do: st.SearchStrategy[Do] = st.sampled_from(["call", "call", "call", "connect", "close", "close", "up", "down"])
    return st.builds(Step, do, st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 1), meanwhile)


STEPS = st.lists(steps(steps(st.none() | steps(st.none()))), min_size=1, max_size=16)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_no_call_gets_an_account_its_person_has_not_connected(taken: list[Step]) -> None:
    """Whatever happens in the middle of a refresh, at either gateway; and what was closed is ended at the service."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minting, "_PAUSE_S", 0.0)
        asyncio.run(_lived(taken))


async def _lived(taken: list[Step]) -> None:
    world = World()
    for step in (*(Step("connect", who, 0) for who in range(len(PERSONS))), *taken):
        await world.take(step)
        await asyncio.gather(*world.waiting)
    world.keeper.is_down = False
    for who in range(len(PERSONS)):
        await world.take(Step("close", who, 0))
        for at in range(2):
            await world.take(Step("call", who, at))
    assert world.keeper.kept == {}
    assert world.hub.access == {}
    if not world.was_down:
        assert set(world.hub.good.values()) <= world.replaced
