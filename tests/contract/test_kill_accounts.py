"""A kill and the access tokens of persons: what the service has not ended is never counted as ended."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from gateway.adapters.credentials.leases import LeaseParts, Leases
from gateway.core.call import Login
from gateway.core.errors import Unavailable
from gateway.core.kills import Cut
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Provider, Template
from tests.fakes.leases import READ, Mint

ACCOUNT = replace(READ, provider=Provider.OAUTH_USER, header="Authorization", prefix="Bearer ")
HOLDER = Holder("run-1", "call-1", agent="ap-agent", user="dora", issuer="urn:test")


@dataclass(slots=True)
class Persons:
    """Implements ``core.connections.AccessTokens``.

    Attributes:
        is_away: the service answers nothing.
    """

    is_away: bool = False
    live: set[str] = field(default_factory=set)

    async def mint(self, template: Template, token: MintingToken, holder: Holder) -> MintedLogin:
        """One that lives a minute."""
        self.live.add("oauth_user/one")
        return MintedLogin("oauth_user/one", Login("", "an-access-token"), 60, token.request_id)

    async def is_theirs(self, template: Template, token: MintingToken, lease_id: str) -> bool:
        """Nobody closes anything here."""
        return True

    def holds(self, lease_id: str) -> bool:
        """By its name."""
        return lease_id.startswith("oauth_user/")

    async def revoke(self, lease_id: str) -> None:
        """End it, where the service is there."""
        if self.is_away:
            raise Unavailable("the service does not answer", cause_code="provider_unreachable")
        self.live.discard(lease_id)

    def exists(self, lease_id: str) -> bool:
        """As the service has it."""
        return lease_id in self.live


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(("is_away", "cut"), [(False, Cut(ended=1)), (True, Cut(not_ended=1))])
async def test_a_kill_says_what_became_of_an_access_token(is_away: bool, cut: Cut) -> None:
    """Ended where the service says so; while it is away the token lives, and the answer says that."""
    mint, persons = Mint(), Persons()
    parts = LeaseParts(mint.vault, mint.lines, mint.known, mint.clock, mint.meter, persons)
    async with Leases({ACCOUNT.name: ACCOUNT}, parts) as leases:
        begun, done = asyncio.Event(), asyncio.Event()

        async def call() -> None:
            async with leases.login(ACCOUNT.name, HOLDER, 10):
                begun.set()
                await done.wait()

        task = asyncio.create_task(call())
        await begun.wait()
        persons.is_away = is_away
        assert await leases.kill(lambda holder: holder.user == "dora", whole_runs=True) == cut
        persons.is_away = False
        done.set()
        await task
