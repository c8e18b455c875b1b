"""Drops the database roles that cut-off mintings left: made by the database, with no lease of them in the vault.

Only the database's own user at the vault can do that, so the vault is asked, with a new token that has the name of the
old one: each role's name begins with the name of the token that asked for it. See ``docs/adr/0042-reaping.md``.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.adapters.credentials.tokens import HeldToken, Tokens
from gateway.core.errors import Unavailable
from gateway.core.leasing import Template, Vault, VaultCause, VaultFault, name_of

_LOG = logging.getLogger("ostiary.credentials")
_FIRST_PAUSE_S = 0.25
_MOST_PAUSE_S = 15.0
_UNABLE = frozenset({VaultCause.DENIED, VaultCause.NO_ROLE})


@dataclass(frozen=True, slots=True)
class Doubt:
    """A minting token by which a role may have been made that the vault does not know.

    Attributes:
        name: what the token was called.
        done: journals the token's end; with whether the database was looked through.
        doubted: journals that something may be left for now, with the cause.
    """

    template: Template
    run_id: str | None
    accessor: str
    name: str
    done: Callable[[bool], None]
    doubted: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long a template is not asked about, by the loop's clock, after so long a pause."""

    until: float
    pause_s: float


@dataclass(slots=True)
class Reaper:
    """Doubts waiting to be settled."""

    vault: Vault
    tokens: Tokens
    changed: Callable[[], None]
    _waiting: dict[str, Doubt] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _denied: set[str] = field(default_factory=set)
    _rests: dict[str, _Rest] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped: bool = False

    def __post_init__(self) -> None:
        """From now on, tokens that end with a minting of theirs in doubt come here."""
        self.tokens.doubt = self._take_ended

    @property
    def waiting(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def take(self, doubt: Doubt) -> None:
        """Settle this one as soon as the vault and the database let us; one that waits already is not taken twice."""
        self._waiting.setdefault(doubt.accessor, doubt)
        self._news.set()
        self.changed()

    async def run(self) -> None:
        """Work until ``stop``."""
        loop = asyncio.get_running_loop()
        while not self._stopped:
            self._news.clear()
            now = loop.time()
            await self.settle(frozenset(name for name, rest in self._rests.items() if rest.until > now))
            left = min((rest.until for rest in self._rests.values()), default=None)
            try:
                await asyncio.wait_for(self._news.wait(), None if left is None else max(0.0, left - loop.time()))
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End ``run`` after its present round."""
        self._stopped = True
        self._news.set()

    async def settle(self, resting: frozenset[str] = frozenset()) -> None:
        """Try each once, but no more of a template once one failed: its database is down, and asking costs tokens.

        ``resting``: templates that are not asked about this time, whatever else has come.
        """
        stuck = set(resting)
        for doubt in list(self._waiting.values()):
            name = doubt.template.name
            if name in stuck:
                continue
            try:
                reaped = await self._reap(doubt)
            # Whatever it is: it must be tried again, and must not keep those of other templates waiting.
            except Exception as error:  # noqa: BLE001
                stuck.add(name)
                self._rest(name)
                self._stays(doubt, str(error.cause_code if isinstance(error, Unavailable) else type(error).__name__))
            else:
                self._rests.pop(name, None)
                self._forget(doubt)
                doubt.done(reaped)
                self.changed()

    def _rest(self, template: str) -> None:
        # Calls that go on failing bring doubt after doubt: were each a reason to ask, a vault whose database is down
        # would be asked without end.
        before = self._rests.get(template)
        pause = _FIRST_PAUSE_S if before is None else min(before.pause_s * 2, _MOST_PAUSE_S)
        self._rests[template] = _Rest(asyncio.get_running_loop().time() + pause, pause)

    async def _reap(self, doubt: Doubt) -> bool:
        # Whatever lives is not reaped: its end comes first, each time.
        await self.vault.revoke_token(doubt.accessor)
        fault = await self._asked(doubt.template, doubt.run_id, doubt.name)
        if fault is None:
            return True
        # Twice: a token that has ended meanwhile (the machine slept) looks like a missing line of its policy.
        if fault.cause_code == VaultCause.DENIED and doubt.accessor not in self._denied:
            self._denied.add(doubt.accessor)
            raise fault
        _LOG.warning("a database role of %s may be left until it has ended: %s", doubt.template.name, fault.fix)
        return False

    async def prove(self, template: Template) -> bool:
        """Reap what nobody left, with a token of a new name; False = nothing of this template can be lost.

        Raises:
            Unavailable: what cut-off mintings leave cannot be dropped.
        """
        if template.reaper is None:
            return False
        fault = await self._asked(template, None, name_of(self.tokens.clock.random(10)))
        if fault is not None:
            raise fault
        return True

    async def _asked(self, template: Template, run_id: str | None, name: str) -> VaultFault | None:
        # Why the vault is not able to, whenever it is asked; what may pass is raised.
        held = await self.tokens.named(template, run_id, name)
        try:
            await self.vault.reap(template, held.token)
        except VaultFault as fault:
            if fault.cause_code not in _UNABLE:
                raise
            return fault
        finally:
            await self.tokens.give_back(held)
        return None

    def _stays(self, doubt: Doubt, cause: str) -> None:
        # Behind the others, so that one that never succeeds keeps none of them waiting for ever.
        self._waiting[doubt.accessor] = self._waiting.pop(doubt.accessor)
        if doubt.accessor not in self._said:
            self._said.add(doubt.accessor)
            doubt.doubted(cause)
            _LOG.warning("a database role of %s may be left, and cannot be dropped yet: %s", doubt.template.name, cause)

    def _forget(self, doubt: Doubt) -> None:
        del self._waiting[doubt.accessor]
        self._said.discard(doubt.accessor)
        self._denied.discard(doubt.accessor)

    def _take_ended(self, held: HeldToken, cause: str) -> None:
        journal, holder, template, token = self.tokens.journal, held.holder, held.template, held.token
        self.take(
            Doubt(
                template,
                holder.run_id,
                token.accessor,
                token.name,
                lambda reaped: journal.closed(holder, template.name, token.accessor, cause, reaped=reaped),
                lambda why: journal.doubted(holder, template.name, token.accessor, why),
            )
        )
