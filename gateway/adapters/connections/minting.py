"""An access token of one person for one call: implements ``core.connections.AccessTokens``.

The order, each step needing the one before: the person's connection is read; it is claimed, so that nobody else uses
its refresh token; the server gives an access token, and mostly another refresh token; what it gave is kept and the
claim with it is over; only then the access token leaves this module. Where the vault fails after the server gave
another refresh token, this process keeps it and writes it down before anything else is done with the connection.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace

from anyio import Lock, fail_after

from gateway.core.call import Login
from gateway.core.connections import (
    AuthorizationServer,
    ConnectionJournal,
    Granted,
    GrantRefused,
    Keeper,
    Kept,
    Person,
)
from gateway.core.errors import NotConnected, Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Template, VaultCause, VaultFault, crowded
from gateway.core.needles import TooManySecrets, UnfitSecret
from gateway.core.ports import Clock

_LOG = logging.getLogger("ostiary.credentials")
# Longer than asking the server and writing down what it gave can take; then its claimant has died.
CLAIM_S = 30
_LONGEST_WAIT_S = 8.0
_PAUSE_S = 0.05
_ATTEMPTS = 3
_PREFIX = "oauth_user/"
# Of these an access token can do nothing at the service's own API.
_NO_RIGHTS = frozenset({"offline_access", "openid"})


@dataclass(frozen=True, slots=True)
class Link:
    """A connection as configured.

    Attributes:
        name: in the settings.
        server: where its tokens come from.
        place: where it is kept, and which token role may do so.
        scopes: what persons are asked for.
        revokes: whether access tokens are revoked one by one; some services take the whole consent along (RFC 7009
            section 2.1 lets them).
    """

    name: str
    server: AuthorizationServer
    place: Template
    scopes: tuple[str, ...]
    revokes: bool = True


@dataclass(frozen=True, slots=True)
class TokenParts:
    """What access tokens are made with."""

    keeper: Keeper
    journal: ConnectionJournal
    known: KnownValues
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Live:
    link: Link
    owner: str
    access: str = field(repr=False)
    ends_at: float
    since_us: int


@dataclass(frozen=True, slots=True)
class _Work:
    """One minting: whose, by which template, and with which token of the vault."""

    link: Link
    template: Template
    token: MintingToken
    person: Person


class PersonTokens:
    """Access tokens of persons, minted by their own refresh tokens.

    Failure mode, closed: no connection, a broken one, or one of too little is ``NotConnected``; a service or vault that
    is down is ``Unavailable``. Nothing was sent upstream in either case.
    """

    def __init__(self, links: Mapping[str, Link], parts: TokenParts) -> None:
        """``links`` by name."""
        self._links = dict(links)
        self._parts = parts
        self._turns: dict[str, Lock] = {}
        self._live: dict[str, _Live] = {}
        # What the server gave and the vault did not take: nobody else has it.
        self._unsaved: dict[str, Kept] = {}

    async def mint(self, template: Template, token: MintingToken, holder: Holder) -> MintedLogin:
        """A new access token of the holder's person; see ``AccessTokens``."""
        link = self._links[template.role]
        if holder.issuer is None or holder.user is None:
            raise _missing(link, "the call is made for nobody who could have an account")
        work = _Work(link, template, token, Person(holder.issuer, holder.user))
        if template.must_revoke and not await link.server.can_revoke():
            fix = f"set revoke = false in [leases.{template.name}]: tokens then last until their ttl is over"
            raise VaultFault(VaultCause.UNFIT, f"tokens of {link.name!r} could not be revoked", fix=fix, undone=True)
        async with self._alone(f"{link.name}/{work.person.mark}"):
            granted, since_us = await self._granted(work, holder)
        return await self._minted(work, granted, since_us)

    async def is_theirs(self, template: Template, token: MintingToken, lease_id: str) -> bool:
        """Whether they have not closed it since; see ``AccessTokens``."""
        live = self._live.get(lease_id)
        if live is None:
            return False
        kept = await self._parts.keeper.read(template, token, live.owner)
        return kept is not None and kept.refresh is not None and kept.since_us == live.since_us

    def holds(self, lease_id: str) -> bool:
        """Whether it is one of these; see ``AccessTokens``."""
        return lease_id.startswith(_PREFIX)

    def exists(self, lease_id: str) -> bool:
        """Whether it lives; see ``AccessTokens``."""
        live = self._live.get(lease_id)
        if live is not None and self._parts.clock.monotonic() >= live.ends_at:
            del self._live[lease_id]  # it has ended by itself
            return False
        return live is not None

    async def revoke(self, lease_id: str) -> None:
        """End it; see ``AccessTokens``."""
        if self.exists(lease_id):
            live = self._live[lease_id]
            await live.link.server.revoke(live.access, "access_token")
            self._live.pop(lease_id, None)

    async def forget(self, link: Link, owner: str) -> str | None:
        """The person has closed the connection: whatever their calls have of it ends now, as far as it can be ended.

        Returns a refresh token that only this process has, which is to be revoked, too.
        """
        unsaved = self._unsaved.pop(f"{link.name}/{owner}", None)
        for lease_id, live in list(self._live.items()):
            if live.link.name == link.name and live.owner == owner:
                with suppress(Unavailable):  # ended with its call, once more
                    await self.revoke(lease_id)
        return None if unsaved is None else unsaved.refresh

    @asynccontextmanager
    async def _alone(self, place: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(place, Lock())
        try:
            # Not for ever: a caller who has gone leaves its minting here, and a service may hang.
            try:
                with fail_after(_LONGEST_WAIT_S):
                    await turn.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                yield
            finally:
                turn.release()
        finally:
            # Handed over to the next in the line, if there is one: then it stays locked.
            if not turn.locked():
                self._turns.pop(place, None)

    async def _granted(self, work: _Work, holder: Holder) -> tuple[Granted, int]:
        mine = await self._claimed(work)
        assert mine.refresh is not None  # otherwise it is not claimed
        try:
            with self._secret(mine.refresh):
                granted = await work.link.server.refresh(mine.refresh, work.template.scopes)
        except GrantRefused as refused:
            raise await self._refused(work, mine, refused, holder) from None
        except BaseException:
            await self._let_go(work, mine)
            raise
        await self._save(work, replace(mine, refresh=granted.refresh or mine.refresh, claimed_until_us=0), granted)
        return granted, mine.since_us

    async def _claimed(self, work: _Work) -> Kept:
        clock, keeper = self._parts.clock, self._parts.keeper
        deadline = clock.monotonic() + _LONGEST_WAIT_S
        while True:
            kept = await self._read(work)
            now_us = clock.now_us()
            if kept.claimed_until_us <= now_us:
                mine = replace(kept, claimed_until_us=now_us + CLAIM_S * 1_000_000)
                if await keeper.write(work.template, work.token, mine):
                    return replace(mine, version=mine.version + 1)
            if clock.monotonic() >= deadline:
                raise _busy()
            await asyncio.sleep(_PAUSE_S)

    async def _read(self, work: _Work) -> Kept:
        link, owner = work.link, work.person.mark
        kept = await self._parts.keeper.read(work.template, work.token, owner)
        if kept is not None and kept.owner != owner:
            raise _missing(link, "what is kept is another person's")
        unsaved = self._unsaved.pop(f"{link.name}/{owner}", None)
        if unsaved is not None and not _is_of_one_consent(kept, unsaved):
            await self._take_back(work, unsaved, None, is_closed=kept is None)
        elif kept is not None and unsaved is not None and kept.version == unsaved.version:
            await self._save(work, unsaved, None)
            kept = replace(unsaved, version=unsaved.version + 1)
        if kept is None:
            raise _missing(link, "you have not connected your account")
        if kept.refresh is None:
            raise _missing(link, "the connection to your account does not work any more")
        if kept.client != link.server.client:
            raise _missing(link, "your account was connected at another place than the one that is configured now")
        return kept

    async def _refused(self, work: _Work, mine: Kept, refused: GrantRefused, holder: Holder) -> Exception:
        link = work.link
        if not refused.is_over:
            await self._let_go(work, mine)
            if refused.code == "invalid_scope":
                return _missing(link, "your connection does not go as far as this tool")
            detail = f"the service refuses the gateway ({refused.code})"
            return Unavailable(detail, cause_code="provider_refused")
        # The service will never take it again: it is not kept, and calls do not try it any more.
        if await self._written(work, replace(mine, refresh=None, claimed_until_us=0)):
            self._parts.journal.broken(work.person, holder, link.name)
        return _missing(link, "the service does not accept your connection any more")

    async def _let_go(self, work: _Work, mine: Kept) -> None:
        await self._written(work, replace(mine, claimed_until_us=0))

    async def _written(self, work: _Work, kept: Kept) -> bool:
        # As far as the vault answers; a claim ends by itself.
        try:
            return await self._parts.keeper.write(work.template, work.token, kept)
        except Unavailable as error:
            _LOG.warning("a connection to %s could not be updated: %s", work.link.name, error.cause_code)
            return False

    async def _save(self, work: _Work, kept: Kept, granted: Granted | None) -> None:
        # Some services take a refresh token once only: what they gave instead must not be lost to a vault that blinks.
        place = f"{work.link.name}/{kept.owner}"
        self._unsaved[place] = kept
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                is_written = await self._parts.keeper.write(work.template, work.token, kept)
            except Unavailable:
                if attempt == _ATTEMPTS:
                    await self._drop(work, granted)
                    raise
                await asyncio.sleep(_PAUSE_S * 2**attempt)
                continue
            self._unsaved.pop(place, None)
            if not is_written and not await self._is_there(work, kept, granted):
                # Disconnected meanwhile, or taken over by somebody whose claim is newer.
                await self._drop(work, granted)
                raise Unavailable("the connection was changed meanwhile", retry_after=1, cause_code="connection")
            return

    async def _is_there(self, work: _Work, kept: Kept, granted: Granted | None) -> bool:
        # An attempt whose answer was lost may have been the one that wrote it.
        found = await self._parts.keeper.read(work.template, work.token, kept.owner)
        if not _is_of_one_consent(found, kept):
            await self._take_back(work, kept, granted, is_closed=found is None)
        return found is not None and found.refresh == kept.refresh

    async def _take_back(self, work: _Work, kept: Kept, granted: Granted | None, *, is_closed: bool) -> None:
        # The person has disconnected: they ended the refresh token that was kept, and this one came of it. Where they
        # have connected anew since, it stays where ending it would take the new consent along.
        if not is_closed and not work.link.revokes:
            return
        values = {"refresh_token": kept.refresh, "access_token": None if granted is None else granted.access}
        for hint, value in values.items():
            try:
                if value is not None:
                    await work.link.server.revoke(value, hint)
            except Unavailable as error:
                _LOG.warning("a token of %s could not be revoked: %s", work.link.name, error.cause_code)

    async def _drop(self, work: _Work, granted: Granted | None) -> None:
        if granted is not None and work.template.must_revoke:
            with suppress(Unavailable):  # it ends by itself; nobody has it
                await work.link.server.revoke(granted.access, "access_token")

    async def _minted(self, work: _Work, granted: Granted, since_us: int) -> MintedLogin:
        link, template = work.link, work.template
        scopes = template.scopes if granted.scopes is None else granted.scopes
        lasts_s = granted.lasts_s
        if lasts_s is None:
            await self._drop(work, granted)
            fix = "let the service give tokens with `expires_in`: what never ends is no credential for one call"
            raise VaultFault(VaultCause.UNFIT, f"tokens of {link.name!r} have no end", fix=fix)
        if not set(template.scopes) <= set(scopes):
            await self._drop(work, granted)
            raise _missing(link, "your connection does not go as far as this tool")
        if template.scopes and not set(scopes) <= set(template.scopes) | _NO_RIGHTS:
            await self._drop(work, granted)
            fix = f"the service gives more than was asked; where that is fine, [leases.{template.name}] has no scopes"
            raise VaultFault(VaultCause.UNFIT, f"tokens of {link.name!r} could do more than the tool may", fix=fix)
        lease_id = f"{_PREFIX}{link.name}/{self._parts.clock.uuid()}"
        accessor = None
        if template.must_revoke:
            ends_at = self._parts.clock.monotonic() + lasts_s
            self._live[lease_id] = _Live(link, work.person.mark, granted.access, ends_at, since_us)
        else:
            accessor = work.token.accessor
        login = Login("", granted.access)
        return MintedLogin(lease_id, login, lasts_s, work.token.request_id, accessor, scopes=scopes)

    @contextmanager
    def _secret(self, value: str) -> Iterator[None]:
        # Known to the redactor while it is handled here; the access token is lent where it leaves for the call.
        try:
            self._parts.known.lend(value)
        except TooManySecrets:
            raise crowded() from None
        except UnfitSecret as error:
            detail = f"a refresh token cannot be kept out of outputs: {error}"
            raise VaultFault(VaultCause.UNFIT, detail, fix="tokens of 8 to 8,192 characters can be used") from None
        try:
            yield
        finally:
            self._parts.known.retire(value)


def _is_of_one_consent(found: Kept | None, other: Kept) -> bool:
    # Versions do not tell: they begin anew where a connection was closed and another one was opened.
    return found is not None and found.since_us == other.since_us


def _busy() -> Unavailable:
    return Unavailable("the account is being used by too many calls", retry_after=1, cause_code="busy")


def _missing(link: Link, why: str) -> NotConnected:
    return NotConnected(f"{why}; `ostiary connect {link.name}` connects it")
