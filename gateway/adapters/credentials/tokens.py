"""The minting tokens of a gateway: one for each run and template in use, renewed while it is, ended when it is not.

A token that nobody renews ends by itself after its period, and all its logins with it. So nothing here needs to happen
for what was minted to end; it only ends sooner.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, LeaseJournal, MintingToken, Template, Vault, VaultCause, crowded, name_of
from gateway.core.needles import TooManySecrets
from gateway.core.ports import Clock

_LOG = logging.getLogger("ostiary.credentials")
_LOOKS_A_PERIOD = 6
_LONGEST_LOOK_S = 5.0
_SHORTEST_LOOK_S = 0.1
# Younger than any explicit max ttl an operator would set; a run that goes on gets a new one.
_MAX_AGE_S = 900.0


@dataclass(slots=True, eq=False)
class HeldToken:
    """A minting token and who uses it.

    Attributes:
        opener: whose call it was opened for; its run is one principal's.
        users: logins of it in use.
        is_retired: gets no new users.
        is_closing: is ended, or about to be.
        is_reported: the operator was told that it could not be ended.
        is_doubtful: a minting of it was cut off, so that the database may hold a role that the vault does not know.
        is_reaping: drops what another one left, and mints nothing.
    """

    template: Template
    holder: Holder
    opener: Holder
    token: MintingToken
    opened_at: float
    renewed_at: float
    used_at: float
    users: int = 0
    is_retired: bool = False
    is_closing: bool = False
    is_reported: bool = False
    is_doubtful: bool = False
    is_reaping: bool = False

    @property
    def is_to_be_reaped(self) -> bool:
        """Whether something may be left when it has ended: also where a minting goes on meanwhile."""
        can_lose = self.template.reaper is not None and not self.is_reaping
        return can_lose and (self.is_doubtful or self.users > 0)

    def retire(self) -> None:
        """No new users from now on; it is ended when the last one is gone."""
        self.is_retired = True

    def release(self, now: float) -> bool:
        """One user fewer; whether it is to be ended now."""
        self.users -= 1
        self.used_at = now
        return self.is_retired and self.users == 0


@dataclass(slots=True)
class Tokens:
    """The minting tokens by run and template.

    Attributes:
        doubt: takes over, with the cause of its end, what has ended with a minting in doubt, and journals that end.
    """

    vault: Vault
    journal: LeaseJournal
    known: KnownValues
    clock: Clock
    doubt: "Callable[[HeldToken, str], None] | None" = None
    _held: dict[tuple[str | None, str], HeldToken] = field(default_factory=dict)
    _open: set[HeldToken] = field(default_factory=set)
    _turns: dict[tuple[str | None, str], asyncio.Lock] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _is_stopped: bool = False

    async def hold(self, template: Template, holder: Holder) -> HeldToken:
        """The token of the holder's run for this template, with one user more.

        Where there is no lease that could be ended, each call has a token of its own.

        Raises:
            Unavailable: there is none and none can be had.
        """
        if template.is_single:
            found = await self._opened(template, holder)
            found.retire()
        else:
            found = await self._shared(template, holder)
        found.users += 1
        found.used_at = self.clock.monotonic()
        return found

    async def _shared(self, template: Template, holder: Holder) -> HeldToken:
        key = (holder.run_id, template.name)
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            found = self._held.get(key)
            if found is None or found.is_retired or self._is_stale(found):
                if found is not None and self._drop(found):
                    await self.close(found, "retired")
                found = await self._opened(template, holder)
                self._held[key] = found
        return found

    async def named(self, template: Template, run_id: str | None, name: str) -> HeldToken:
        """A token for one use, called as an earlier one was; to be given back.

        Raises:
            Unavailable: none can be had.
        """
        held = await self._opened(template, Holder(run_id), name)
        held.retire()
        held.is_reaping = True
        held.users = 1
        return held

    async def give_back(self, held: HeldToken) -> None:
        """End one that ``named`` gave; where the vault cannot be asked, the next round tries again."""
        held.release(self.clock.monotonic())
        await self.close(held, "reaped")

    async def keep(self) -> None:
        """Renew what is used and end what is not, until ``stop``."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while not self._is_stopped:
            self._wake.clear()
            left = looked_at + self._pause_s() - loop.time()
            if left <= 0:
                await self._look_on()
                looked_at = loop.time()
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    def _pause_s(self) -> float:
        # A new token may have a shorter period than all others: whoever opens one wakes the keeper.
        shortest = min((held.token.period_s / _LOOKS_A_PERIOD for held in self._open), default=_LONGEST_LOOK_S)
        return max(_SHORTEST_LOOK_S, min(shortest, _LONGEST_LOOK_S))

    async def _look_on(self) -> None:
        try:
            await self.look()
        # Whatever it is: without these rounds no token would be renewed or ended any more.
        except Exception:  # noqa: BLE001
            _LOG.exception("a round over the minting tokens failed")

    async def look(self) -> None:
        """One round of ``keep``."""
        now = self.clock.monotonic()
        for held in list(self._open):
            period = held.token.period_s
            if held.users == 0 and (held.is_retired or now - held.used_at >= period / 2):
                self._drop(held)
                await self.close(held, "idle")
            elif now - held.renewed_at >= period / 3:
                await self._renew(held)  # one that is retired, too, while a call still uses it
        self._turns = {key: turn for key, turn in self._turns.items() if key in self._held or turn.locked()}

    def stop(self) -> None:
        """End ``keep``."""
        self._is_stopped = True
        self._wake.set()

    async def close(self, held: HeldToken, cause: str) -> None:
        """End a token and all its logins; where the vault cannot be asked, the next round tries again."""
        if held.is_closing:
            return
        held.retire()
        held.is_closing = True
        try:
            await self.vault.revoke_token(held.token.accessor)
        # Whatever it is: it stays open here and is tried again.
        except Exception as error:  # noqa: BLE001
            cause = error.cause_code if isinstance(error, Unavailable) else type(error).__name__
            if not held.is_reported:
                _LOG.warning("a minting token of %s could not be ended yet: %s", held.template.name, cause)
            held.is_reported, held.is_closing = True, False
            return
        self._open.discard(held)
        self.known.retire(held.token.secret)
        if held.is_to_be_reaped and self.doubt is not None:
            self.doubt(held, cause)
        else:
            self.journal.closed(held.holder, held.template.name, held.token.accessor, cause)

    async def cut(self, meant: Callable[[Holder], bool]) -> None:
        """End, now, the tokens of the runs that are meant, and the vault their logins with them."""
        found = [held for held in self._open if meant(held.opener)]
        for held in found:
            self._drop(held)
        await asyncio.gather(*(self.close(held, "killed") for held in found))

    async def close_all(self) -> None:
        """End all tokens: the gateway stops. What cannot be ended is left to the period and the next start."""
        await asyncio.gather(*(self.close(held, "stopped") for held in list(self._open)))

    async def _opened(self, template: Template, holder: Holder, name: str | None = None) -> HeldToken:
        if self.known.room <= 0:
            raise crowded()
        token = await self.vault.open_token(template, name or name_of(self.clock.random(10)))
        now = self.clock.monotonic()
        run = Holder(holder.run_id)
        held = HeldToken(template, run, holder, token, now, now, now)
        try:
            self.known.lend(token.secret)
            await self.journal.opened(run, template, token)
        except TooManySecrets:  # others came first while it was opened
            await self._unused(held)
            raise crowded() from None
        except BaseException:
            await self._unused(held)
            raise
        self._open.add(held)
        self._wake.set()
        return held

    async def _unused(self, held: HeldToken) -> None:
        # Never journalled, never minted with: its end needs no record.
        try:
            await self.vault.revoke_token(held.token.accessor)
        except Unavailable:
            return  # it ends by itself
        finally:
            self.known.retire(held.token.secret)

    async def _renew(self, held: HeldToken) -> None:
        try:
            lasts_s = await self.vault.renew_token(held.token.accessor)
        except Unavailable as error:
            _LOG.warning("a minting token of %s could not be renewed: %s", held.template.name, error.cause_code)
            if error.cause_code in {VaultCause.NO_ROLE, VaultCause.DENIED}:
                held.retire()
            return
        held.renewed_at = self.clock.monotonic()
        if lasts_s < held.token.period_s:  # its longest life is nearly over
            held.retire()

    def _is_stale(self, held: HeldToken) -> bool:
        now = self.clock.monotonic()
        return now - held.opened_at >= _MAX_AGE_S or now - held.renewed_at >= held.token.period_s * 0.8

    def _drop(self, held: HeldToken) -> bool:
        # Whether it has no users, so that it can be ended at once; otherwise its last user ends it.
        held.retire()
        key = (held.holder.run_id, held.template.name)
        if self._held.get(key) is held:
            del self._held[key]
        return held.users == 0
