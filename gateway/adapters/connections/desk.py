"""What persons do with their own connections: implements ``core.connections.ConnectionDesk``."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from anyio import CancelScope

from gateway.adapters.connections.minting import Link, PersonTokens, TokenParts
from gateway.core.call import Principal
from gateway.core.connections import (
    Account,
    AccountState,
    Consent,
    Granted,
    GrantRefused,
    Kept,
    Person,
    Wish,
    unknown,
)
from gateway.core.errors import Conflict, Forbidden, NotFound, Unavailable
from gateway.core.leasing import MintingToken, Vault

_LOG = logging.getLogger("ostiary.credentials")


class Accounts:
    """The connections of persons.

    Failure mode, closed: what the vault does not keep or the log does not take is not opened, and what the service gave
    for it is revoked. Closing erases also where the service cannot be asked.
    """

    def __init__(self, links: Mapping[str, Link], vault: Vault, parts: TokenParts, tokens: PersonTokens) -> None:
        """``links`` by name; ``tokens``: what calls have of them."""
        self._links = dict(links)
        self._vault = vault
        self._parts = parts
        self._tokens = tokens

    async def all(self, by: Principal) -> tuple[Account, ...]:
        """The person's own; see ``ConnectionDesk``."""
        owner, found = _person(by).mark, list[Account]()
        for link in self._links.values():
            async with self._token(link) as token:
                kept = await self._parts.keeper.read(link.place, token, owner)
            found.append(_shown(link, kept))
        return tuple(found)

    async def page(self, name: str, wish: Wish) -> str:
        """Where they say yes; see ``ConnectionDesk``."""
        link = self._link(name)
        return await link.server.page(wish, link.scopes)

    async def open(self, by: Principal, name: str, consent: Consent) -> Account:
        """Keep what they agreed to; see ``ConnectionDesk``."""
        link, owner = self._link(name), _person(by).mark
        async with self._token(link) as token:
            before = await self._parts.keeper.read(link.place, token, owner)
            granted = await self._redeemed(link, consent)
            kept = Kept(
                owner=owner,
                client=link.server.client,
                refresh=granted.refresh,
                scopes=link.scopes if granted.scopes is None else granted.scopes,
                since_us=self._parts.clock.now_us(),
                version=0 if before is None else before.version,
            )
            # From here on something lasting exists: either it is kept and recorded, or it is ended.
            with CancelScope(shield=True):
                try:
                    await self._keep(by, link, token, kept)
                finally:
                    if link.revokes:
                        await _end(link, granted.access, "access_token")
        return _shown(link, kept)

    async def close(self, by: Principal, name: str) -> bool:
        """Revoke and erase; see ``ConnectionDesk``."""
        link, owner = self._link(name), _person(by).mark
        # Once it is recorded that it is to be it is done, whatever becomes of whoever asked.
        with CancelScope(shield=True):
            kept = await self._erased(by, link, owner)
            unsaved = await self._tokens.forget(link, owner)
            ended = [await _end(link, one, "refresh_token") for one in (unsaved, kept.refresh) if one is not None]
        return bool(ended) and all(ended)

    async def _erased(self, by: Principal, link: Link, owner: str) -> Kept:
        async with self._token(link) as token:
            kept = await self._parts.keeper.read(link.place, token, owner)
            if kept is None:
                raise NotFound(f"you have no connection {link.name!r}", cause_code="connection")
            await self._parts.journal.closing(by, link.name)
            await self._parts.keeper.erase(link.place, token, owner)
            # Only now: whoever is killed in between has not said that it is gone while it was there.
            with suppress(Unavailable):  # the record follows
                await self._parts.journal.closed(by, link.name, "asked")
        return kept

    async def check(self, name: str) -> bool:
        """Whether the service revokes; it and the place in the vault are tried on the way.

        Raises:
            Unavailable: one of them cannot be used.
        """
        link = self._link(name)
        async with self._token(link) as token:
            await self._parts.keeper.read(link.place, token, "0" * 64)
        return await link.server.can_revoke()

    async def _redeemed(self, link: Link, consent: Consent) -> Granted:
        try:
            granted = await link.server.redeem(consent)
        except GrantRefused as refused:
            detail = f"the service does not take the code ({refused.code}): begin anew"
            raise Forbidden(detail, cause_code="consent") from None
        if granted.refresh is None:
            await _end(link, granted.access, "access_token")
            detail = "the service gave nothing that lasts: it may want a scope such as offline_access"
            raise Forbidden(detail, cause_code="consent")
        return granted

    async def _keep(self, by: Principal, link: Link, token: MintingToken, kept: Kept) -> None:
        assert kept.refresh is not None  # otherwise it was not redeemed
        try:
            await self._parts.journal.opened(by, link.name, kept.scopes)
        except BaseException:
            await _end(link, kept.refresh, "refresh_token")
            raise
        try:
            if not await self._parts.keeper.write(link.place, token, kept):
                raise Conflict("the connection was changed meanwhile: begin anew", cause_code="connection")
        except BaseException:
            with suppress(Unavailable):
                await self._parts.journal.closed(by, link.name, "failed")
            await _end(link, kept.refresh, "refresh_token")
            raise

    @asynccontextmanager
    async def _token(self, link: Link) -> AsyncIterator[MintingToken]:
        # Reads and writes below this connection's place only; it ends by itself where its end is not heard.
        token = await self._vault.open_token(link.place)
        try:
            self._parts.known.lend(token.secret)
            yield token
        finally:
            with CancelScope(shield=True):
                with suppress(Unavailable):
                    await self._vault.revoke_token(token.accessor)
                self._parts.known.retire(token.secret)

    def _link(self, name: str) -> Link:
        found = self._links.get(name)
        if found is None:
            raise unknown(name)
        return found


def _person(by: Principal) -> Person:
    return Person(by.issuer, by.user)


def _shown(link: Link, kept: Kept | None) -> Account:
    if kept is None:
        return Account(link.name, AccountState.NONE)
    is_open = kept.refresh is not None and kept.client == link.server.client
    return Account(link.name, AccountState.OPEN if is_open else AccountState.BROKEN, kept.scopes, kept.since_us)


async def _end(link: Link, value: str, hint: str) -> bool:
    # As far as the service can: whether it says that it did.
    try:
        if not await link.server.can_revoke():
            return False
        await link.server.revoke(value, hint)
    except Unavailable as error:
        _LOG.warning("a token of %s could not be revoked: %s", link.name, error.cause_code)
        return False
    return True
