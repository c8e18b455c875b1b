"""Logins minted for one call each, and ended with it.

``core/leasing.py`` says in which order. Minting and ending run in tasks of their own: a caller who is cancelled, in
whatever way, leaves nothing behind, as the task goes on and ends what it began.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio import CancelScope

from gateway.adapters.credentials.cutting import Cutting
from gateway.adapters.credentials.ending import end, exists
from gateway.adapters.credentials.fitness import check_life, unfit_secret
from gateway.adapters.credentials.injecting import Injection, injected
from gateway.adapters.credentials.lending import Lending
from gateway.adapters.credentials.pool import Key, Pool, key_of
from gateway.adapters.credentials.reaper import Reaper
from gateway.adapters.credentials.reconciler import Reconciler
from gateway.adapters.credentials.sources import Sources
from gateway.adapters.credentials.sweeper import Sweeper
from gateway.adapters.credentials.tokens import HeldToken, Tokens
from gateway.core.call import Login
from gateway.core.connections import AccessTokens
from gateway.core.desk import LiveLease, Whose
from gateway.core.errors import Unavailable
from gateway.core.kills import Cut
from gateway.core.known import KnownValues
from gateway.core.leasing import (
    Holder,
    LeaseJournal,
    LeaseMeter,
    MintedLogin,
    Step,
    Template,
    Vault,
    VaultCause,
    VaultFault,
    crowded,
)
from gateway.core.needles import TooManySecrets, UnfitSecret
from gateway.core.ports import Clock

_CUT_AGAIN_S = 0.5
# A login that is used again must outlive its call by this.
_MARGIN_S = 1.0
_LOG = logging.getLogger("ostiary.credentials")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LeaseParts:
    """What leases are made with.

    Attributes:
        persons: access tokens of persons; None where no connection is configured.
    """

    vault: Vault
    journal: LeaseJournal
    known: KnownValues
    clock: Clock
    meter: LeaseMeter
    persons: AccessTokens | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A login in use, or kept for the next read of its run.

    Attributes:
        ends_at: when it ends by itself, monotonic.
    """

    holder: Holder
    template: Template
    token: HeldToken
    minted: MintedLogin
    since_us: int
    ends_at: float

    @property
    def is_retired(self) -> bool:
        """Whether its token gets no new users."""
        return self.token.is_retired

    @property
    def shown(self) -> LiveLease:
        """As operators see it."""
        holder = self.holder
        return LiveLease(
            template=self.template.name,
            run=holder.run_id,
            call=holder.call_id,
            agent=holder.agent,
            user=holder.user,
            tool=holder.tool,
            since_us=self.since_us,
        )


class Leases:
    """Minted logins by template; an async context manager that ends all of them on exit.

    Failure mode, closed: what cannot be minted, journalled or kept out of outputs is ``Unavailable``. At 1,024 minted
    secrets in use there are no more until one is given back.
    """

    def __init__(self, templates: Mapping[str, Template], parts: LeaseParts) -> None:
        """``templates`` by the name that tools and upstreams use."""
        self._templates = dict(templates)
        self._parts = parts
        self._sources = Sources(parts.vault, parts.persons)
        self._tokens = Tokens(parts.vault, parts.journal, parts.known, parts.clock)
        self._lending = Lending(parts.known)
        self._reconciler = Reconciler(self._sources, parts.journal, self._lending, self._count)
        self._reaper = Reaper(parts.vault, self._tokens, parts.meter, self._count)
        self._sweeper = Sweeper(parts.vault, parts.journal, parts.clock, self._templates, self._reaper)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_use: dict[str, Held] = {}
        self._endings: dict[str, asyncio.Task[bool]] = {}
        self._minting = 0
        self._pool: Pool[Held] = Pool(self._end_later)
        self._cuts = 0
        self._cutting = Cutting(self._sources, self._in_use, self._end_later)

    def __contains__(self, name: object) -> bool:
        return name in self._templates

    async def __aenter__(self) -> Self:
        """Start ending what an earlier process left open; calls do not wait for it, as it cannot be used by anyone."""
        for work in (self._sweeper.run(), self._reaper.run(), self._reconciler.run(), self._tokens.keep()):
            self._start(work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            self._cuts += 1
            for held in self._pool.drain(lambda _: True):
                self._end_later(held)
            self._sweeper.stop()
            self._reaper.stop()
            self._reconciler.stop()
            self._tokens.stop()
            while self._tasks:
                await asyncio.wait(set(self._tasks))
            await self._tokens.close_all()
            # Logins hang off their tokens: what waited to be ended is gone with them.
            await self._reconciler.settle()
            await self._reaper.settle()

    @asynccontextmanager
    async def login(self, name: str, holder: Holder, lasting_s: float, *, reads: bool = False) -> AsyncIterator[Login]:
        """A login of the template ``name``, that lives at least ``lasting_s`` seconds; ended on every exit.

        ``reads``: the call only reads, so that a login of scope ``run`` may be one of an earlier read of the same tool
        for the same persons in the same run, and is kept for the next, where the call went well.

        Raises:
            Unavailable: there is none, and none was used.
        """
        template, cuts = self._templates[name], self._cuts
        key = key_of(template, holder) if reads else None
        minting = self._cutting.minting(holder, self._start(self._found(key, template, holder, lasting_s)))
        try:
            held = await asyncio.shield(minting)
        except asyncio.CancelledError:
            minting.add_done_callback(self._give_up)
            raise
        except Unavailable as error:
            self._parts.meter.lease_fault(Step.MINT, error.cause_code)
            raise
        is_kept = False
        try:
            yield held.minted.login
            # Whatever was cut meanwhile may have meant this call, whose login was not there yet.
            is_kept = key is not None and cuts == self._cuts and self._pool.put(key, held)
        finally:
            if not is_kept:
                with CancelScope(shield=True):
                    await asyncio.shield(self._end_later(held))

    def injected(self, name: str, login: Login) -> Injection:
        """What the call gets of a login of the template ``name``."""
        return injected(self._templates[name], login)

    def live(self) -> tuple[LiveLease, ...]:
        """Those in use; see ``core.desk.LeaseDesk``."""
        return tuple(held.shown for held in self._in_use.values())

    async def revoke(self, whose: Whose) -> tuple[int, int]:
        """End those that are meant; see ``core.desk.LeaseDesk``."""
        self._cuts += 1
        kept = self._pool.drain(lambda held: whose.covers(held.shown))
        idle = {held.minted.lease_id for held in kept}
        meant = [held for held in self._in_use.values() if whose.covers(held.shown)]
        ended = await asyncio.gather(
            *(self._end_later(held) if held.minted.lease_id in idle else self._start(self._cut(held)) for held in meant)
        )
        return sum(ended), len(ended) - sum(ended)

    def obey(self, stop: Callable[[Holder], None]) -> None:
        """Ask ``stop`` before each minting: it raises for whom nothing may be minted."""
        self._cutting.stop = stop

    async def kill(self, meant: Callable[[Holder], bool], *, whole_runs: bool) -> Cut:
        """End all that is minted, or just being minted, for those who are meant; see ``adapters/killing.py``."""
        self._cuts += 1
        self._pool.drain(lambda held: meant(held.holder))
        # The tokens first, without waiting: a vault that hangs over one keeps no login.
        tokens = self._start(self._tokens.cut(meant)) if whole_runs else None
        cut = await self._cutting.cut(meant)
        if tokens is not None:
            await asyncio.wait({tokens}, timeout=_CUT_AGAIN_S)
        return cut

    def run_ended(self, run_id: str) -> None:
        """Nothing of this run is kept any more; what a call still uses ends with the call."""
        for held in self._pool.close(run_id):
            self._end_later(held)

    def _end_later(self, held: Held) -> "asyncio.Task[bool]":
        # Once: a call that ends and whoever ends it from outside may both ask.
        name = held.minted.lease_id
        found = self._endings.get(name)
        if found is None:
            found = self._endings[name] = self._start(self._given_back(held))
            found.add_done_callback(lambda _: self._endings.pop(name, None))
        return found

    async def _found(self, key: Key | None, template: Template, holder: Holder, lasting_s: float) -> Held:
        until = self._parts.clock.monotonic() + lasting_s + _MARGIN_S
        kept = None if key is None else await self._kept(key, template, until)
        if kept is None:
            return await self._minted(template, holder, lasting_s)
        held = self._in_use[kept.minted.lease_id] = replace(kept, holder=holder)
        try:
            self._parts.journal.reused(holder, template, held.token.token, held.minted)
        except BaseException:
            await self._end_later(held)
            raise
        return held

    async def _kept(self, key: Key, template: Template, until: float) -> Held | None:
        kept = self._pool.take(key, template, until)
        if kept is None:
            return None
        name, may_serve = kept.minted.lease_id, False
        try:
            may_serve = await self._sources.may_serve(template, kept.token.token, kept.minted)
        finally:
            if not may_serve:
                self._end_later(kept)
        # Ended from outside while it was asked after.
        return kept if name in self._in_use and name not in self._endings else None

    async def _cut(self, held: Held) -> bool:
        # The call goes on until its upstream throws it out; when it ends, the login is looked for once more.
        held.token.retire()
        try:
            await end(self._sources, held.minted, wait=True)
        except Unavailable as error:
            _LOG.warning("a credential of %s cannot be revoked yet: %s", held.template.name, error.cause_code)
            self._start(self._keep_cutting(held))
            return False
        # What has no lease cannot be taken back from the call that has it: it has not ended before the call has.
        return held.minted.accessor is None

    async def _keep_cutting(self, held: Held) -> None:
        # Only while its call lasts: from then on it is ended as every login is.
        while held.minted.lease_id in self._in_use:
            await asyncio.sleep(_CUT_AGAIN_S)
            with suppress(Unavailable):
                await end(self._sources, held.minted, wait=True)
                return

    async def ping(self, name: str) -> None:
        """A login of this template could be minted, as far as can be told without minting one.

        Raises:
            VaultFault: it could not.
        """
        await self._parts.vault.ping()
        if self._sweeper.is_waiting:
            raise VaultFault(
                VaultCause.LEFTOVERS,
                f"credentials of an earlier process are not ended yet ({name})",
                fix="they end by themselves after the token period; the vault's log says why it does not end them now",
            )

    async def prove_reaping(self, name: str) -> bool:
        """See ``Reaper.prove``."""
        return await self._reaper.prove(self._templates[name])

    async def _minted(self, template: Template, holder: Holder, lasting_s: float) -> Held:
        try:
            held = await self._mint(template, holder)
        except VaultFault as fault:
            if fault.cause_code != VaultCause.DENIED:
                raise
            # A token that has ended meanwhile (the machine slept) looks like a refusal: once more, with a new one.
            held = await self._mint(template, holder)
        try:
            self._parts.journal.leased(holder, template, held.token.token, held.minted)
            self._check(held, lasting_s)
        except BaseException:
            await self._end_later(held)
            raise
        return held

    async def _mint(self, template: Template, holder: Holder) -> Held:
        self._cutting.stop(holder)
        token, since = await self._tokens.hold(template, holder), self._parts.clock.monotonic()
        self._minting += 1
        try:
            if self._parts.known.room < self._minting:
                raise crowded()
            self._cutting.stop(holder)  # whoever was stopped meanwhile gets nothing
            minted = await self._sources.mint_for(holder, template, token.token)
        except BaseException as error:
            # A login may exist whose id nobody knows. It ends with its token, which is used no more.
            certain = error if isinstance(error, VaultFault) and error.undone else None
            token.is_doubtful |= certain is None
            if certain is None or certain.cause_code == VaultCause.DENIED:
                token.retire()
            self._release(token)
            raise
        finally:
            self._minting -= 1
        now_us, ends_at = self._parts.clock.now_us(), since + minted.ttl_s
        held = self._in_use[minted.lease_id] = Held(holder, template, token, minted, now_us, ends_at)
        self._reaper.minted(template.name)
        self._count()
        return held

    def _check(self, held: Held, lasting_s: float) -> None:
        minted, template = held.minted, held.template
        try:
            # Before the value leaves this module, so that whatever shows it is redacted.
            self._lending.lend(minted.login.password, minted.lease_id)
        except TooManySecrets:  # tokens came in between
            raise crowded() from None
        except UnfitSecret as error:
            raise unfit_secret(template, error) from None
        check_life(template, minted, lasting_s)

    async def _given_back(self, held: Held) -> bool:
        # Whether the vault says that it is gone.
        parts, minted = self._parts, held.minted
        if minted.lease_id not in self._in_use:
            return True  # it was ended from outside before its call was over
        try:
            await end(self._sources, minted, wait=True)
            if minted.accessor is None and await exists(self._sources, minted):
                raise VaultFault(VaultCause.FAILED, "the vault still has the lease", fix="see the vault's log")
        # Whatever it is: the call was made, and its answer is not lost over this.
        except Exception as error:  # noqa: BLE001
            cause = error.cause_code if isinstance(error, Unavailable) else "internal"
            parts.journal.pending(held.holder, held.template, minted, cause)
            parts.meter.lease_fault(Step.REVOKE, cause)
            # Ended when its last user is gone, and this login with it, should the vault not hear of it before.
            held.token.retire()
            self._reconciler.take(held.holder, held.template, minted)
            _LOG.warning("a credential of %s could not be ended with its call: %s", held.template.name, cause)
            return False
        else:
            self._lending.retire(minted.login.password, minted.lease_id)
            parts.journal.revoked(held.holder, held.template, minted, "ended")
            return True
        finally:
            del self._in_use[minted.lease_id]
            self._count()
            self._release(held.token)

    def _release(self, token: HeldToken) -> None:
        if token.release(self._parts.clock.monotonic()):
            self._start(self._tokens.close(token, "retired"))

    def _give_up(self, minting: "asyncio.Task[Held]") -> None:
        # The caller left while it was being minted: nobody gets to see it.
        if not minting.cancelled() and minting.exception() is None:
            self._end_later(minting.result())

    def _count(self) -> None:
        self._parts.meter.leases(len(self._in_use), self._reconciler.waiting + self._reaper.waiting)

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
