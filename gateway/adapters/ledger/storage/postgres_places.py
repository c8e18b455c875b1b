"""Budgets counted by several gateway processes, in PostgreSQL: implements ``places.Places``.

A budget is held by an advisory lock of one transaction, from the reading to the place that is taken. What is read is
one statement, so one state: an intent and the place it gave up never both count, and never neither.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import asyncpg
import msgspec
from anyio import CancelScope

from gateway.adapters.ledger.database import DatabaseFault
from gateway.adapters.ledger.reading import Requested
from gateway.adapters.ledger.storage.places import Budget, Standing
from gateway.adapters.ledger.storage.postgres_database import Server, answered, arguments
from gateway.core.errors import Unavailable
from gateway.core.records import EventType

_MOST_CONNECTIONS = 16
_PATIENCE_S, _CLOSE_S = 5.0, 2.0
_STIR_S = 3.0
_OPEN = -1
_INTENT = f"type = '{EventType.TOOL_REQUESTED}'"
_HELD = "select null, null, tool, measures from reservations where scope = $1"
_NEWEST = "select max(idx), null, null, null from records"
_OF_RUN = f"""
select idx, leaf, null, null from records where run_id = $2 and {_INTENT} and idx > $3
union all {_HELD} union all {_NEWEST}
union all select {_OPEN}, null, null, null from open_runs where run_id = $2
"""  # noqa: S608 - literals only
_OF_ACTOR = f"""
select idx, leaf, null, null from records r where {_INTENT} and {{}} and idx > $2 and ts >= $3
  and (convert_from(leaf, 'UTF8')::jsonb #>> '{{{{actor,user}}}}') is not distinct from $4
  and exists (
    select 1 from records s where s.run_id = r.run_id and s.seq_run = 0
      and (convert_from(s.leaf, 'UTF8')::jsonb #>> '{{{{body,kind}}}}') = 'implicit'
  )
union all {_HELD} union all {_NEWEST}
"""  # noqa: S608 - literals only
_TAKE = "insert into reservations values ($1, $2, $3, $4, $5)"
_GIVE_BACK = "delete from reservations where call_id = any($1)"
_REQUESTED = msgspec.json.Decoder(Requested)
_MEASURES = msgspec.json.Decoder(dict[str, int])


class PostgresPlaces:
    """An async context manager; connections are opened as they are needed."""

    def __init__(self, target: Server, replica: str) -> None:
        self._target = target
        self._replica = replica
        self._pool: Any = None
        # Places given back here that may still be held there, with their scopes.
        self._owed: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        # Places need not outlive the database server, so nobody waits for its disk.
        settings = arguments(self._target, {"synchronous_commit": "off"})
        self._pool = asyncpg.create_pool(min_size=0, max_size=_MOST_CONNECTIONS, reset=_as_it_is, **settings)
        await self._pool
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        with suppress(Unavailable):  # the others give it back for a process that is gone
            await self.flush()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def hold(self, budget: Budget) -> AsyncIterator[Standing]:
        """See ``Places``."""
        owed = [call_id for call_id, scope in self._owed.items() if scope == budget.scope]
        is_taken = False
        try:
            async with self._turn(budget.scope) as connection:
                standing = await self._standing(connection, budget, owed)
                yield standing
                if standing.wanted is not None:
                    is_taken = True
                    await self._take(connection, budget, *standing.wanted)
        except BaseException:
            if is_taken:  # or not: whoever fails now owes it
                self._owed[budget.call_id] = budget.scope
            raise
        for call_id in owed:
            self._owed.pop(call_id, None)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """See ``Places``."""
        async with self._turn(f"alone:{name}") as connection, _awake(connection):
            yield

    async def flush(self) -> None:
        """See ``Places``."""
        owed = list(self._owed)
        if not owed:
            return
        async with self._connection() as connection:
            await _said(connection.execute, _GIVE_BACK, owed)
        for call_id in owed:
            self._owed.pop(call_id, None)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[Any]:
        key = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)
        async with self._connection() as connection:
            try:
                await _said(connection.execute, f"begin; select pg_advisory_xact_lock({key})")
                yield connection
                await _said(connection.execute, "commit")
            except BaseException:
                await _rolled_back(connection)
                raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = await _said(self._pool.acquire, timeout=_PATIENCE_S)
        try:
            yield connection
        finally:
            with CancelScope(shield=True), suppress(Unavailable):
                await _said(self._pool.release, connection)

    async def _standing(self, connection: Any, budget: Budget, owed: list[str]) -> Standing:
        if owed:
            await _said(connection.execute, _GIVE_BACK, owed)
        counted, held, is_open = budget.counted, [], budget.run is None
        rows = await _said(connection.fetch, *_question(budget))
        for index, entry, tool, measures in sorted(rows, key=lambda row: -1 if row[0] is None else row[0]):
            if entry is not None:
                said = _REQUESTED.decode(entry)
                counted.recall(index, said.at_us, said.tool, said.measures)
            elif tool is not None:
                held.append((tool, _MEASURES.decode(measures)))
            elif index == _OPEN:
                is_open = True
            else:  # what is behind needs no second look, whosever it is
                counted.seen = max(counted.seen, index or 0)
        standing = counted.standing(lambda: self._give_back(budget))
        standing.is_open = is_open
        for tool, amounts in held:
            standing.add(tool, amounts)
        return standing

    async def _take(self, connection: Any, budget: Budget, tool: str, amounts: Mapping[str, int]) -> None:
        measures = msgspec.json.encode(amounts).decode()
        await _said(connection.execute, _TAKE, budget.call_id, budget.scope, self._replica, tool, measures)

    def _give_back(self, budget: Budget) -> None:
        self._owed[budget.call_id] = budget.scope
        task = asyncio.get_running_loop().create_task(self._try_to_flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_to_flush(self) -> None:
        with suppress(Unavailable):  # still owed: the next round of the patrol tries again
            await self.flush()


def _question(budget: Budget) -> tuple[Any, ...]:
    actor = budget.actor
    if actor is None:
        return (_OF_RUN, budget.scope, budget.run, budget.counted.seen)
    by = (budget.scope, budget.counted.seen, actor.since_us, actor.user)
    if actor.agent is None:
        return (_OF_ACTOR.format("agent is null"), *by)
    return (_OF_ACTOR.format("agent = $5"), *by, actor.agent)


async def _said(ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
    try:
        return await answered(ask, *given, **named)
    except DatabaseFault as error:
        raise Unavailable("the run's ledger cannot be read", retry_after=1, cause_code="ledger_unreadable") from error


@asynccontextmanager
async def _awake(connection: Any) -> AsyncIterator[None]:
    """Keep a transaction that does nothing from being taken for one that is lost; it asks nothing when this ends."""
    over = asyncio.Event()

    async def stir() -> None:
        with suppress(Unavailable):  # the end of the transaction says so, too
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STIR_S):
                        await over.wait()
                if over.is_set():
                    return
                await _said(connection.execute, "select 1")

    task = asyncio.create_task(stir())
    try:
        yield
    finally:
        over.set()
        with CancelScope(shield=True):
            await task


async def _rolled_back(connection: Any) -> None:
    # Where that fails the connection is broken, and with it the transaction is gone.
    with CancelScope(shield=True), suppress(Unavailable):
        await _said(connection.execute, "rollback")


async def _as_it_is(connection: Any) -> None:
    """Nothing of a session is changed here."""
