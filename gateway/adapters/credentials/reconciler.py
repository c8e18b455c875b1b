"""Ends logins that could not be ended with their calls: asks again, ever more slowly, until the vault says so."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.adapters.credentials.ending import end, exists
from gateway.adapters.credentials.lending import Lending
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, LeaseJournal, MintedLogin, Template, Vault

_LOG = logging.getLogger("ostiary.credentials")
_FIRST_PAUSE_S = 0.25
_MOST_PAUSE_S = 15.0
_LAST_LOOKS = 10
_LAST_PAUSE_S = 0.1


@dataclass(slots=True, eq=False)
class _Pending:
    holder: Holder
    template: Template
    minted: MintedLogin
    is_asked: bool = False


@dataclass(slots=True)
class Reconciler:
    """Logins waiting to be ended."""

    vault: Vault
    journal: LeaseJournal
    known: Lending
    changed: Callable[[], None]
    _pending: list[_Pending] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped: bool = False

    @property
    def waiting(self) -> int:
        """How many there are."""
        return len(self._pending)

    def take(self, holder: Holder, template: Template, minted: MintedLogin) -> None:
        """End this one as soon as the vault lets us."""
        self._pending.append(_Pending(holder, template, minted))
        self._news.set()

    async def run(self) -> None:
        """Work until ``stop``."""
        pause = _FIRST_PAUSE_S
        while not self._stopped:
            self._news.clear()
            before = len(self._pending)
            await self._round()
            if not self._pending:
                pause = _FIRST_PAUSE_S
                await self._news.wait()
                continue
            pause = _FIRST_PAUSE_S if len(self._pending) < before else min(pause * 2, _MOST_PAUSE_S)
            try:
                await asyncio.wait_for(self._news.wait(), pause)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End ``run`` after its present round."""
        self._stopped = True
        self._news.set()

    async def settle(self) -> None:
        """All tokens were ended, as far as the vault answers: note which logins went with them."""
        waiting = list(self._pending)
        for _ in range(_LAST_LOOKS):
            waiting = [pending for pending in waiting if await self._is_left(pending)]
            if not waiting:
                return
            await asyncio.sleep(_LAST_PAUSE_S)  # the vault goes on by itself

    async def _is_left(self, pending: _Pending) -> bool:
        try:
            if await exists(self.vault, pending.minted):
                return True
        except Unavailable:
            return False  # left to its token's period and to the next start, which ends it by the journal
        self._done(pending, "stopped")
        return False

    async def _round(self) -> None:
        causes = set[str]()
        for pending in list(self._pending):
            try:
                await self._try(pending)
            # Whatever it is: it must be tried again, and must not keep the others waiting.
            except Exception as error:  # noqa: BLE001
                causes.add(str(error.cause_code if isinstance(error, Unavailable) else type(error).__name__))
        if causes:
            _LOG.warning("%d credentials cannot be ended yet: %s", len(self._pending), ", ".join(sorted(causes)))

    async def _try(self, pending: _Pending) -> None:
        if not pending.is_asked:
            # Not waiting for it: the vault takes it over and tries for itself.
            await end(self.vault, pending.minted, wait=False)
            pending.is_asked = True
        elif await exists(self.vault, pending.minted):
            # Seen of OpenBao: what it failed to end it leaves alone for long, though its database is back. Ask anew.
            await end(self.vault, pending.minted, wait=True)
        if not await exists(self.vault, pending.minted):
            self._done(pending, "reconciled")

    def _done(self, pending: _Pending, cause: str) -> None:
        self._pending.remove(pending)
        self.known.retire(pending.minted.login.password, pending.minted.lease_id)
        self.journal.revoked(pending.holder, pending.template, pending.minted, cause)
        self.changed()
        _LOG.warning("a credential of %s is ended now", pending.template.name)
