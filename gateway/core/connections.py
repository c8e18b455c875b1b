"""Accounts that persons have at other services, and what is said between their parts.

A person lets the gateway act for them at a service once: the refresh token that comes of it is kept in the vault and
nowhere else. A call made for them gets an access token of theirs, with the template's scopes, and of nobody else: all
that is kept is found by issuer and user together, and what is found says whose it is.

A refresh token that is rotated works once, and services take a second use for theft. So whoever wants to use one first
claims it, by a conditional write: one gateway of several, and one call of many, refreshes at a time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gateway.core.call import Principal
from gateway.core.errors import NotFound
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Template


@dataclass(frozen=True, slots=True)
class Person:
    """Who has the account: the same user name at two issuers is two persons."""

    issuer: str
    user: str

    @property
    def mark(self) -> str:
        """Where their connections are kept: SHA-256 of both names with their lengths, hex."""
        digest = hashlib.sha256()
        for part in (self.issuer.encode(), self.user.encode()):
            digest.update(b"%d:%b" % (len(part), part))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    """A person's connection, as it is kept.

    Attributes:
        owner: ``Person.mark`` of whose it is.
        client: mark of the authorization server and client id that gave the token: it is sent to no other.
        refresh: the refresh token; None = the service refused it, the person has to connect anew.
        scopes: what the person agreed to, as far as the service said so.
        since_us: when they did.
        claimed_until_us: until then somebody is using the refresh token, and nobody else may; 0 = nobody is.
        version: of what is kept; 0 = nothing is kept yet.
    """

    owner: str
    client: str
    refresh: str | None = field(repr=False)
    scopes: tuple[str, ...]
    since_us: int
    claimed_until_us: int = 0
    version: int = 0


class Keeper(Protocol):
    """Keeps connections in the vault. Closed: whatever is no clear yes raises ``VaultFault``."""

    async def read(self, template: Template, token: MintingToken, owner: str) -> Kept | None:
        """What is kept for ``owner`` at the connection ``template.role``; None = nothing."""

    async def write(self, template: Template, token: MintingToken, kept: Kept) -> bool:
        """Replace version ``kept.version``; False = somebody else has replaced it before, and nothing was written."""

    async def erase(self, template: Template, token: MintingToken, owner: str) -> None:
        """Nothing of it is kept any more, in any version."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What an authorization server gave.

    Attributes:
        access: access token.
        refresh: refresh token, where it gave one.
        lasts_s: how long the access token lives; None = it did not say.
        scopes: what it may do; None = it did not say, so it is what was asked for.
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    lasts_s: int | None
    scopes: tuple[str, ...] | None


class GrantRefused(Exception):
    """The authorization server said no.

    Attributes:
        is_over: whether what was shown to it is worth nothing any more, and not merely the scope too much.
    """

    def __init__(self, code: str, *, is_over: bool) -> None:
        """``code`` is the server's word for it."""
        super().__init__(code)
        self.code = code
        self.is_over = is_over


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person brings back from the authorization server.

    Attributes:
        code: authorization code.
        verifier: proves that who redeems it is who asked for it (RFC 7636).
        redirect: where the person was sent back to.
        issuer: who says that it gave the code (RFC 9207), where it does.
    """

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect: str
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a person at the authorization server.

    Attributes:
        challenge: SHA-256 of the verifier, in base64url.
        state: comes back with the code, so that whoever waits knows its own.
        redirect: where the person is sent back to.
    """

    challenge: str
    state: str
    redirect: str


class AuthorizationServer(Protocol):
    """One OAuth 2 server and the gateway's client there.

    Closed: a server that is gone, slow or cannot be understood is ``Unavailable``.
    """

    client: str

    async def page(self, wish: Wish, scopes: Sequence[str]) -> str:
        """Where the person says yes or no."""

    async def redeem(self, consent: Consent) -> Granted:
        """Tokens for a code.

        Raises:
            GrantRefused: it is no good code.
        """

    async def refresh(self, token: str, scopes: Sequence[str]) -> Granted:
        """An access token with these scopes; none named = all that the person agreed to.

        Raises:
            GrantRefused: the refresh token is worth nothing, or the scopes are too much for it.
        """

    async def can_revoke(self) -> bool:
        """Whether tokens can be revoked there (RFC 7009)."""

    async def revoke(self, token: str, hint: str) -> None:
        """End a token; one that has ended is fine. ``hint``: ``access_token`` or ``refresh_token``."""


class AccessTokens(Protocol):
    """Access tokens of persons, for one call each. Closed: ``Unavailable`` or ``NotConnected``, and none was used."""

    async def mint(self, template: Template, token: MintingToken, holder: Holder) -> MintedLogin:
        """A new one of the holder's person.

        Raises:
            NotConnected: they have not connected their account, or not far enough.
        """

    async def is_theirs(self, template: Template, token: MintingToken, lease_id: str) -> bool:
        """Whether the person still has the connection that this access token came of.

        Raises:
            Unavailable: that cannot be told.
        """

    def holds(self, lease_id: str) -> bool:
        """Whether it names an access token, ended or not."""

    async def revoke(self, lease_id: str) -> None:
        """End it at the service; one that has ended is fine."""

    def exists(self, lease_id: str) -> bool:
        """Whether it has not ended yet."""


class AccountState(StrEnum):
    """How a connection is."""

    OPEN = "open"
    BROKEN = "broken"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Account:
    """A connection as its person sees it.

    Attributes:
        name: of the connection in the settings.
        since_us: when it was opened; None where it is not.
    """

    name: str
    state: AccountState
    scopes: tuple[str, ...] = ()
    since_us: int | None = None


class ConnectionJournal(Protocol):
    """Which connections were opened and closed, in the signed log."""

    async def opened(self, by: Principal, name: str, scopes: Sequence[str]) -> None:
        """A person lets the gateway act for them; returns when that is durable.

        Raises:
            Unavailable: the log cannot be written.
        """

    async def closing(self, by: Principal, name: str) -> None:
        """They ask for its end, and nothing is ended yet; returns when that is durable.

        Raises:
            Unavailable: the log cannot be written.
        """

    async def closed(self, by: Principal, name: str, cause: str) -> None:
        """They do no more, or it did not come to it; returns when that is durable, and else it is written later.

        Raises:
            Unavailable: the log cannot be written.
        """

    def broken(self, person: Person, holder: Holder, name: str) -> None:
        """The service let a call have no token any more; handed to the log."""


class ConnectionDesk(Protocol):
    """What a person does with their own connections. Closed: what cannot be recorded is not done."""

    async def all(self, by: Principal) -> tuple[Account, ...]:
        """Theirs, by name."""

    async def page(self, name: str, wish: Wish) -> str:
        """Where they say yes.

        Raises:
            NotFound: no such connection.
        """

    async def open(self, by: Principal, name: str, consent: Consent) -> Account:
        """Keep what they agreed to; replaces what was kept.

        Raises:
            NotFound: no such connection.
            Forbidden: the service does not take the code, or gives nothing that lasts.
        """

    async def close(self, by: Principal, name: str) -> bool:
        """Keep nothing any more; whether the service has revoked it, too.

        Raises:
            NotFound: no such connection, or the person has none.
        """


class NoConnections:
    """Implements ``ConnectionDesk`` where no service is configured."""

    async def all(self, by: Principal) -> tuple[Account, ...]:  # noqa: ARG002 - the signature is the desk's
        """None."""
        return ()

    async def page(self, name: str, wish: Wish) -> str:  # noqa: ARG002
        """There is none."""
        raise unknown(name)

    async def open(self, by: Principal, name: str, consent: Consent) -> Account:  # noqa: ARG002
        """There is none."""
        raise unknown(name)

    async def close(self, by: Principal, name: str) -> bool:  # noqa: ARG002
        """There is none."""
        raise unknown(name)


def unknown(name: str) -> NotFound:
    """No such connection."""
    return NotFound(f"no connection {name!r} is configured", cause_code="connection")
