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
from gateway.core.leasing import LeaseMeter, Step, Template, Vault, VaultCause, VaultFault, name_of

_LOG = logging.getLogger("ostiary.credentials")
_FIRST_PAUSE_S = 0.25
_MOST_PAUSE_S = 15.0
# From then on: each try opens and ends a token, which is two records, and a database may be away for days.
_SHARE = 0.25
_LONGEST_PAUSE_S = 3600.0
# Half of how far back a starting gateway looks.
_AGAIN_S = 12 * 3600.0
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


@dataclass(slots=True)
class _Waiting:
    """A doubt, since when it waits by the loop's clock, whether it was tried, and which causes were journalled when."""

    doubt: Doubt
    since: float
    is_tried: bool = False
    said: dict[str, float] = field(default_factory=dict)
    is_denied: bool = False


@dataclass(slots=True)
class _Rest:
    """A template that is not asked about for now, by the loop's clock.

    Attributes:
        tried: when it failed last.
        pause_s: how long it was to rest from then on.
        until: when it is asked about again.
        is_minting: whether a minting went well since the last doubt came.
        is_back: whether one did since the last try began.
        is_owing: whether what was tried before was passed over for what is new, which failed.
    """

    tried: float
    pause_s: float
    until: float
    is_minting: bool = False
    is_back: bool = False
    is_owing: bool = False

    def again(self, now: float, newest: float) -> None:
        """It failed once more; ``newest``: since when the last one that came waits."""
        # At most a quarter of the time that all have been so already: what is mended is noticed in about that time.
        most = min(max(_MOST_PAUSE_S, (now - newest) * _SHARE), _LONGEST_PAUSE_S)
        self.tried, self.pause_s = now, min(self.pause_s * 2, most)
        self.until = now if self.is_back else now + self.pause_s


@dataclass(slots=True)
class Reaper:
    """Doubts waiting to be settled.

    Attributes:
        changed: called when their number has changed.
    """

    vault: Vault
    tokens: Tokens
    meter: LeaseMeter
    changed: Callable[[], None]
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
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
        if doubt.accessor in self._waiting:
            return
        self._waiting[doubt.accessor] = _Waiting(doubt, asyncio.get_running_loop().time())
        rest = self._rests.get(doubt.template.name)
        if rest is not None:  # what is new waits no longer than at first, whatever of its template is stuck
            rest.until, rest.is_minting = min(rest.until, rest.tried + _MOST_PAUSE_S), False
        self._news.set()
        self.changed()

    def minted(self, template: str) -> None:
        """The database makes users again, so it may drop them, too: ask at once, however long that was in vain."""
        rest = self._rests.get(template)
        if rest is not None and not rest.is_minting:
            rest.until, rest.is_minting, rest.is_back = rest.tried, True, True
            self._news.set()

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
        for one in sorted(self._waiting.values(), key=self._is_later):
            doubt, name = one.doubt, one.doubt.template.name
            if name in stuck:
                continue
            if (rest := self._rests.get(name)) is not None:
                rest.is_back = False
            try:
                reaped = await self._reap(one)
            # Whatever it is: it must be tried again, and must not keep those of other templates waiting.
            except Exception as error:  # noqa: BLE001
                stuck.add(name)
                self._rest(one)
                self._stays(one, str(error.cause_code if isinstance(error, Unavailable) else type(error).__name__))
            else:
                self._rests.pop(name, None)
                del self._waiting[doubt.accessor]
                doubt.done(reaped)
                self.changed()

    def _is_later(self, one: _Waiting) -> bool:
        # What is new comes first, so that it waits for nothing that is stuck; but where that failed, those that failed
        # before have their turn, in which the longest untried is first: who makes new ones come, and fail, keeps none
        # of them waiting for ever.
        rest = self._rests.get(one.doubt.template.name)
        return one.is_tried is not (rest is not None and rest.is_owing)

    def _rest(self, one: _Waiting) -> None:
        # Calls that go on failing bring doubt after doubt: were each a reason to ask, a vault whose database is down
        # would be asked without end.
        name = one.doubt.template.name
        now, rest = asyncio.get_running_loop().time(), self._rests.get(name)
        if rest is None:
            rest = self._rests[name] = _Rest(now, _FIRST_PAUSE_S, now + _FIRST_PAUSE_S)
        else:
            rest.again(now, max(each.since for each in self._waiting.values() if each.doubt.template.name == name))
        others = (each for each in self._waiting.values() if each.doubt.template.name == name and each.is_tried)
        rest.is_owing = not one.is_tried and any(others)

    async def _reap(self, one: _Waiting) -> bool:
        doubt = one.doubt
        # Whatever lives is not reaped: its end comes first, each time.
        await self.vault.revoke_token(doubt.accessor)
        fault = await self._asked(doubt.template, doubt.run_id, doubt.name)
        if fault is None:
            return True
        # Twice: a token that has ended meanwhile (the machine slept) looks like a missing line of its policy.
        if fault.cause_code == VaultCause.DENIED and not one.is_denied:
            one.is_denied = True
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

    def _stays(self, one: _Waiting, cause: str) -> None:
        one.is_tried = True
        self._waiting[one.doubt.accessor] = self._waiting.pop(one.doubt.accessor)
        self.meter.lease_fault(Step.REAP, cause)
        # Each cause once, as one that comes and goes is no news; and what is so for days from time to time, or the next
        # process would not find it.
        now, last = asyncio.get_running_loop().time(), max(one.said.values(), default=0.0)
        if cause not in one.said or now - last >= _AGAIN_S:
            one.said[cause] = now
            one.doubt.doubted(cause)
            name = one.doubt.template.name
            _LOG.warning("a database role of %s may be left, and cannot be dropped yet: %s", name, cause)

    def _take_ended(self, held: HeldToken, cause: str) -> None:
        journal, holder, template, token = self.tokens.journal, held.holder, held.template, held.token
        self.take(
            Doubt(
                template,
                holder.run_id,
                token.accessor,
                token.name,
                lambda reaped: journal.closed(holder, template.name, token.accessor, cause, reaped=reaped),
                lambda why: journal.doubted(holder, template.name, token.accessor, token.name, why),
            )
        )
