"""Looks after the other gateway processes that write the same log: who is dead leaves nothing open for long."""

from contextlib import AsyncExitStack
from typing import Protocol

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.sealing import scope_of
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.storage.lives import LIFE
from gateway.adapters.ledger.storage.places import Places
from gateway.adapters.ledger.storage.site import Site
from gateway.core.errors import Unavailable

_ROUND_S = 1.0
_END = "select size, changes from sequencer where id = 1"
_LIFELESS = f"""
select id from replicas r where not exists ({LIFE}) and (
  id = ? or exists (select 1 from intents where replica = r.id)
  or exists (select 1 from reservations where replica = r.id)
)
"""  # noqa: S608 - literals only


class Memory(Protocol):
    """Keeps in memory what is also in the log."""

    def drop(self, runs: frozenset[str]) -> None:
        """Forget all of these runs, which have ended."""


class Patrol(Tended):
    """One round a second; an async context manager."""

    def __init__(self, ledger: Ledger, reader: LogReader, places: Places, replica: str) -> None:
        """``replica``: which of the processes this is."""
        self._ledger = ledger
        self._reader = reader
        self.places = places
        self._replica = replica
        self._memories: tuple[Memory, ...] = ()
        self._erased = -1
        self._end: tuple[int, int] | None = None
        self._rounds = Rounds(self.once, _ROUND_S, "the other gateways could not be looked after")

    def remind(self, *memories: Memory) -> None:
        """Tell these of what other processes erase from now on."""
        self._memories = memories
        self._erased = -1  # what was erased while nobody listened is told now

    async def once(self) -> None:
        """Give back what is owed; end what the dead left open; follow the living; and be alive oneself.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        is_behind = await self._is_anybody_lifeless()
        if is_behind:
            # Who is dead is found out again in the transaction that ends what they left.
            self._ledger.patrol()
        if is_behind or await self._have_others_written():
            # So the guard here holds the database to what another gateway wrote, too: it and the server may be lost
            # together, and a copy that lagged be put in their place. And what another one retired goes from here.
            await self._ledger.append(())
        runs = await self._reader.ask(self._newly_erased)
        for memory in self._memories if runs else ():
            memory.drop(runs)
        await self.places.flush()
        await self._ledger.ping()  # where writing failed, what is owed to the log does not wait for the next call

    async def _is_anybody_lifeless(self) -> bool:
        try:
            return bool(await self._reader.ask(self._lifeless))
        except Unavailable:
            await self._ledger.append(())  # so that it is known before a call finds out
            raise

    async def _have_others_written(self) -> bool:
        known, self._end = self._end, await self._reader.ask(_end)
        return self._end != known

    def _newly_erased(self, db: Database) -> frozenset[str]:
        rows = db.execute("select key, idx from erased where idx > ?", (self._erased,)).fetchall()
        self._erased = max((index for _, index in rows), default=self._erased)
        scopes = [scope_of(key) for key, _ in rows]
        return frozenset(scope.run for scope in scopes if scope.run is not None)

    def _lifeless(self, db: Database) -> list[str]:
        return [name for (name,) in db.execute(_LIFELESS, (self._replica,))]


def _end(db: Database) -> tuple[int, int]:
    size, changes = db.execute(_END).fetchone()
    return size, changes


async def together(stack: AsyncExitStack, site: Site, ledger: Ledger, reader: LogReader) -> Patrol | None:
    """What several processes on one log need besides the log; ``stack`` closes it. None where there is only one."""
    places = site.places()
    if places is None:
        return None
    await stack.enter_async_context(places)
    return await stack.enter_async_context(Patrol(ledger, reader, places, site.replica))
