"""Persons' own accounts on fakes: what comes between a refresh and its end, and whose token a call gets then."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.connections import Accounts, Link, PersonTokens, TokenParts, minting
from gateway.adapters.credentials.leases import LeaseParts, Leases
from gateway.core.connections import Consent
from gateway.core.errors import NotConnected, Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Provider, Template, VaultFault
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.fakes.accounts import AccountVault, FakeConnectionJournal, FakeHub, FakeKeeper, nobody
from tests.fakes.leases import Mint

DORA = make_principal(user="dora", agent=None, issuer="urn:test")
HOLDER = Holder("run-1", "call-1", agent="planner", user="dora", issuer="urn:test")
CALL = Template("hub-read", "secret", "hub", "hub", 3600, provider=Provider.OAUTH_USER, header="Authorization")
PLACE = replace(CALL, name="connection-hub")
TOKEN = MintingToken("accessor", "s.minting-token", 30, "request")


@dataclass(slots=True)
class Site:
    """A service and a vault, and the gateways that use them."""

    hub: FakeHub = field(default_factory=FakeHub)
    keeper: FakeKeeper = field(default_factory=FakeKeeper)
    journal: FakeConnectionJournal = field(default_factory=FakeConnectionJournal)
    clock: StepClock = field(default_factory=StepClock)

    def gateway(self) -> tuple[Accounts, PersonTokens]:
        """One of them, with a memory of its own."""
        parts = TokenParts(self.keeper, self.journal, KnownValues(), self.clock)
        links = {"hub": Link("hub", self.hub, PLACE, ())}
        tokens = PersonTokens(links, parts)
        return Accounts(links, AccountVault(), parts, tokens), tokens


async def connected(accounts: Accounts, account: str) -> None:
    """Dora connects her ``account``."""
    await accounts.open(DORA, "hub", Consent(account, "v" * 43, "http://127.0.0.1:7/callback/hub"))


async def minted(tokens: PersonTokens) -> MintedLogin:
    """What a call for Dora gets."""
    return await tokens.mint(CALL, TOKEN, HOLDER)


@pytest.mark.requirement("CRED-1")
async def test_what_is_given_while_the_person_disconnects_is_ended() -> None:
    """The refresh was under way: neither token of it is good at the service afterwards, and no call has one."""
    site = Site()
    accounts, tokens = site.gateway()
    await connected(accounts, "dora-1")

    async def close() -> None:
        assert await accounts.close(DORA, "hub")

    site.hub.during = close
    with pytest.raises(Unavailable):
        await minted(tokens)
    assert (site.hub.good, site.hub.access, site.keeper.kept) == ({}, {}, {})


@pytest.mark.requirement("CRED-1")
async def test_a_closed_connection_does_not_come_back() -> None:
    """A token that a gateway could not write down is not written over a connection that was made anew meanwhile."""
    site = Site()
    accounts, tokens = site.gateway()
    other, _ = site.gateway()
    await connected(accounts, "old-account")

    async def down() -> None:
        site.keeper.is_down = True

    site.hub.during = down
    with pytest.raises(Unavailable):
        await minted(tokens)
    site.hub.during, site.keeper.is_down = nobody, False
    site.clock.advance(60)
    # By the other gateway, of whose memory this one knows nothing; the vault counts versions from one again.
    await other.close(DORA, "hub")
    for account in ("new-account", "new-account"):
        await connected(other, account)
    login = (await minted(tokens)).login
    assert login.password.startswith("access-of-new-account")
    assert set(site.hub.good.values()) == {"new-account"}, "and what was left of the old one is ended"


@pytest.mark.requirement("CRED-1")
async def test_disconnecting_ends_what_was_never_written_down() -> None:
    """The vault was gone after the refresh: the newest refresh token is in memory only, and is revoked all the same."""
    site = Site()
    accounts, tokens = site.gateway()
    await connected(accounts, "dora-1")

    async def down() -> None:
        site.keeper.is_down = True

    site.hub.during = down
    with pytest.raises(Unavailable):
        await minted(tokens)
    site.keeper.is_down = False
    assert await accounts.close(DORA, "hub")
    assert (site.hub.good, site.hub.access) == ({}, {})


@pytest.mark.requirement("CRED-1")
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("repo:read",), None),
        (("repo:read", "offline_access"), None),
        (None, None),
        (("repo:read", "repo:write"), VaultFault),
        (("repo:write",), NotConnected),
        ((), NotConnected),
    ],
)
async def test_a_token_can_do_what_the_person_and_the_tool_may_and_no_more(
    given: tuple[str, ...] | None, error: type[Exception] | None
) -> None:
    """Less than the tool needs, or more than it may: the token is ended at once, and no call has it."""
    site = Site()
    accounts, tokens = site.gateway()
    await connected(accounts, "dora-1")
    site.hub.scopes = given
    template = replace(CALL, scopes=("repo:read",))
    if error is None:
        assert (await tokens.mint(template, TOKEN, HOLDER)).scopes == (given or ("repo:read",))
        return
    with pytest.raises(error):
        await tokens.mint(template, TOKEN, HOLDER)
    assert site.hub.access == {}


@pytest.mark.requirement("CRED-1")
@pytest.mark.parametrize("at", [0, 1])
async def test_a_token_kept_for_the_next_read_ends_with_the_connection(at: int) -> None:
    """Closed at this gateway or at another one, and the service cannot be asked: no further read of the run has it."""
    site, template = Site(), replace(CALL, is_shared=True)
    accounts, tokens = site.gateway()
    other, _ = site.gateway()
    mint = Mint()
    parts = LeaseParts(AccountVault(), mint.lines, mint.known, site.clock, mint.meter, tokens)
    holder = structs.replace(HOLDER, tool="hub.me")
    await connected(accounts, "dora-1")
    async with Leases({template.name: template}, parts) as leases:
        used: list[str] = []
        for _ in range(2):
            async with leases.login(template.name, holder, 10, reads=True) as login:
                used.append(login.password)
        assert used[0] == used[1]
        site.hub.is_away = True
        await (accounts, other)[at].close(DORA, "hub")
        with pytest.raises(NotConnected):
            async with leases.login(template.name, holder, 10, reads=True):
                raise AssertionError("the person has taken it back")
        site.hub.is_away = False


async def test_a_service_that_hangs_collects_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits too long for their turn is told so, and leaves nothing behind: callers come and go meanwhile."""
    site = Site()
    accounts, tokens = site.gateway()
    await connected(accounts, "dora-1")
    monkeypatch.setattr(minting, "_LONGEST_WAIT_S", 0.01)
    goes_on, is_asked = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        is_asked.set()
        await goes_on.wait()

    site.hub.during = hang
    first = asyncio.create_task(minted(tokens))
    await is_asked.wait()
    others = [asyncio.create_task(minted(tokens)) for _ in range(20)]
    done, _ = await asyncio.wait(others, timeout=30)
    causes = {getattr(task.exception(), "cause_code", None) for task in done}
    goes_on.set()
    assert (len(done), causes) == (20, {"busy"})
    assert (await first).login.password.startswith("access-of-dora-1")


@pytest.mark.parametrize("step", ["closing", "erase", "closed"])
async def test_the_log_never_says_of_a_connection_that_is_there_that_it_is_closed(step: str) -> None:
    """Whichever step of its end fails: it is asked for, then gone, then said to be; asking once more ends it."""
    site = Site()
    accounts, _ = site.gateway()
    await connected(accounts, "dora-1")
    erase, note = site.keeper.erase, site.journal._note

    async def kept(*given: Any) -> None:
        if step == "erase":
            raise Unavailable("the vault cannot be reached")
        await erase(*given)

    def noted(line: str) -> None:
        if line.startswith(step):
            raise Unavailable("the log cannot be written")
        assert line.startswith("closing") is bool(site.keeper.kept)
        note(line)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeKeeper, "erase", lambda _, *given: kept(*given))
        patched.setattr(FakeConnectionJournal, "_note", lambda _, line: noted(line))
        if step == "closed":
            assert await accounts.close(DORA, "hub")
        else:
            with pytest.raises(Unavailable):
                await accounts.close(DORA, "hub")
            assert site.hub.good
    is_gone = step == "closed"
    assert bool(site.keeper.kept) is not is_gone
    if not is_gone:
        assert await accounts.close(DORA, "hub")
        assert site.journal.lines[-2:] == ["closing dora", "closed dora asked"]
    assert (site.hub.good, site.keeper.kept) == ({}, {})
