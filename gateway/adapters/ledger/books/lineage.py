"""What plain clients used lately: one ledger for each principal, whatever session or token a call came by.

A session costs nothing to open and a token can be renewed, so a limit that counted by session would bind nobody. The
runs themselves stay one a session; what policy reads of their past follows (issuer, user, agent) over 24 hours.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.sections import RunSection, Turns
from gateway.adapters.ledger.storage.places import Actor, Budget, Counted, Places
from gateway.core.call import Principal
from gateway.core.ports import Clock
from gateway.core.usage import DAY_US, RecentUsage

_KEPT = 10_000


@dataclass(slots=True, eq=False)
class _Lineage:
    """One principal's recent past.

    Attributes:
        counted: what the log says, where several processes count together.
        section: what a call that is being decided sees of it.
        holders: calls being decided or waiting for it.
        turn: held while a call is being decided.
    """

    counted: Counted
    usage: RecentUsage
    section: RunSection
    holders: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lineages:
    """The ledgers that implicit runs share, by ``Principal.key``; read from the log when they are not in memory."""

    def __init__(self, reader: LogReader, scribe: Scribe, clock: Clock, places: Places | None = None) -> None:
        """``places``: where several processes count together."""
        self._reader = reader
        self._scribe = scribe
        self._clock = clock
        self._places = places
        self._known: OrderedDict[str, _Lineage] = OrderedDict()
        self._turns = Turns()

    def section(self, principal: Principal, call_id: str) -> AbstractAsyncContextManager[RunSection]:
        """Hold the principal's ledger: one call of all its implicit runs at a time.

        Raises:
            Unavailable: the log cannot be read.
        """
        return _Turn(self, principal) if self._places is None else self._counted(self._places, principal, call_id)

    @asynccontextmanager
    async def _counted(self, places: Places, principal: Principal, call_id: str) -> AsyncIterator[RunSection]:
        turn = _Turn(self, principal)
        async with turn, places.hold(self._budget(principal, call_id, turn.lineage)) as standing:
            yield RunSection(standing, {})

    async def of(self, principal: Principal) -> _Lineage:
        """The principal's recent past, used just now.

        Raises:
            Unavailable: the log cannot be read.
        """
        key = principal.key
        lineage = self._known.get(key) or await self._load(principal)
        self._known.move_to_end(key)
        return lineage

    def forget(self) -> None:
        """Drop what no longer counts, and beyond a bound what was used longest ago: it comes back from the log."""
        for key, lineage in list(self._known.items()):
            lineage.usage.expire()
            is_surplus = len(self._known) > _KEPT and not lineage.usage.in_flight
            if not lineage.holders and (lineage.usage.idle or is_surplus):
                del self._known[key]

    def _budget(self, principal: Principal, call_id: str, lineage: _Lineage) -> Budget:
        named = self._scribe.actor(principal)
        actor = Actor(named.agent, named.user, self._clock.now_us() - DAY_US)
        return Budget(f"actor:{self._scribe.keys.mark('actor', principal.key)}", call_id, lineage.counted, actor=actor)

    async def _load(self, principal: Principal) -> _Lineage:
        async with self._turns.hold(principal.key):
            lineage = self._known.get(principal.key)
            if lineage is None:
                usage = RecentUsage(now_us=self._clock.now_us)
                actor = self._scribe.actor(principal)
                since = self._clock.now_us() - DAY_US
                if self._places is None:
                    for request in await self._reader.recent_requests(actor.agent, actor.user, since):
                        usage.recall(request.at_us, request.tool, request.measures)
                lineage = self._known[principal.key] = _Lineage(Counted(usage), usage, RunSection(usage, {}))
            return lineage


class _Turn:
    """A principal's past, held while one call is decided; a bracket, and cheaper than a generator's."""

    __slots__ = ("_lineages", "_principal", "lineage")
    lineage: _Lineage

    def __init__(self, lineages: Lineages, principal: Principal) -> None:
        self._lineages = lineages
        self._principal = principal

    async def __aenter__(self) -> RunSection:
        lineage = self.lineage = await self._lineages.of(self._principal)
        lineage.holders += 1
        try:
            await lineage.turn.acquire()
        except BaseException:
            lineage.holders -= 1
            raise
        lineage.usage.expire()
        return lineage.section

    async def __aexit__(self, *error: object) -> None:
        self.lineage.turn.release()
        self.lineage.holders -= 1
