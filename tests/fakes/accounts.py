"""Persons' connections in memory: where they are kept, a service that rotates refresh tokens, and the journal."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.core.call import Principal
from gateway.core.connections import Consent, Granted, GrantRefused, Kept, Person, Wish
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, MintingToken, Template, VaultCause
from tests.fakes.leases import FakeVault, fault


async def nobody() -> None:
    """Nobody comes in between."""


class AccountVault(FakeVault):
    """Opens tokens for whatever template."""

    async def open_token(self, template: Template, name: str = "") -> MintingToken:
        """One of its own for each."""
        number = next(self._numbers)
        self.tokens[f"accessor-{number}"] = template.name
        accessor, secret = f"accessor-{number}", f"s.token-secret-{number}"
        return MintingToken(accessor, secret, self.period_s, f"request-{number}", name)


@dataclass(slots=True)
class FakeKeeper:
    """The Keeper port, with the versions of a kv engine: they begin anew where all was erased.

    Attributes:
        kept: by owner.
        is_down: nothing can be written or erased.
    """

    kept: dict[str, Kept] = field(default_factory=dict)
    is_down: bool = False

    async def read(self, template: Template, token: MintingToken, owner: str) -> Kept | None:
        """What is there."""
        return self.kept.get(owner)

    async def write(self, template: Template, token: MintingToken, kept: Kept) -> bool:
        """Replace the version it names."""
        if self.is_down:
            raise fault(VaultCause.UNREACHABLE)
        present = self.kept.get(kept.owner)
        if (0 if present is None else present.version) != kept.version:
            return False
        self.kept[kept.owner] = replace(kept, version=kept.version + 1)
        return True

    async def erase(self, template: Template, token: MintingToken, owner: str) -> None:
        """Nothing is there."""
        if self.is_down:
            raise fault(VaultCause.UNREACHABLE)
        self.kept.pop(owner, None)


@dataclass(slots=True)
class FakeHub:
    """The AuthorizationServer port: a refresh token works once, and ends by being revoked; others are not touched.

    Attributes:
        good: the refresh tokens that work, each with its account.
        access: the access tokens that work, each with its account.
        revoked: what was revoked, in order.
        scopes: what it says its tokens may do; None = it does not say.
        is_away: nothing can be revoked.
        during: happens while a refresh is under way, after the new tokens were made.
    """

    client: str = "hub-client"
    good: dict[str, str] = field(default_factory=dict)
    access: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    scopes: tuple[str, ...] | None = None
    is_away: bool = False
    during: Callable[[], Awaitable[object]] = nobody
    drawn: int = 0

    async def page(self, wish: Wish, scopes: Sequence[str]) -> str:
        """No test goes there."""
        raise NotImplementedError

    async def redeem(self, consent: Consent) -> Granted:
        """The code is the account's name."""
        return self._given(consent.code)

    async def refresh(self, token: str, scopes: Sequence[str]) -> Granted:
        """Another of each."""
        account = self.good.pop(token, None)
        if account is None:
            raise GrantRefused("invalid_grant", is_over=True)
        granted = self._given(account)
        await self.during()
        return granted

    async def can_revoke(self) -> bool:
        """It does."""
        return True

    async def revoke(self, token: str, hint: str) -> None:
        """This one, and no other."""
        if self.is_away:
            raise Unavailable("the service cannot be reached", cause_code="provider_down")
        self.revoked.append(token)
        self.good.pop(token, None)
        self.access.pop(token, None)

    def _given(self, account: str) -> Granted:
        self.drawn += 1
        refresh, access = f"refresh-of-{account}-{self.drawn:04}", f"access-of-{account}-{self.drawn:04}"
        self.good[refresh] = self.access[access] = account
        return Granted(access, refresh, 600, self.scopes)


@dataclass(slots=True)
class FakeConnectionJournal:
    """The ConnectionJournal port.

    Attributes:
        lines: what was journalled, in order.
        is_down: nothing can be recorded.
    """

    lines: list[str] = field(default_factory=list)
    is_down: bool = False

    async def opened(self, by: Principal, name: str, scopes: Sequence[str]) -> None:
        """Note it."""
        self._note(f"opened {by.user}")

    async def closing(self, by: Principal, name: str) -> None:
        """Note it."""
        self._note(f"closing {by.user}")

    async def closed(self, by: Principal, name: str, cause: str) -> None:
        """Note it."""
        self._note(f"closed {by.user} {cause}")

    def broken(self, person: Person, holder: Holder, name: str) -> None:
        """Note it."""
        self.lines.append(f"broken {person.user}")

    def _note(self, line: str) -> None:
        if self.is_down:
            raise Unavailable("the log cannot be written")
        self.lines.append(line)
