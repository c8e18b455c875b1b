"""Erasure, legal holds and retention: finds the data keys that are meant; the writer destroys them (``custody.py``)."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import msgspec

from gateway.adapters.ledger.books import ageing
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.sealing import LIVE, keys_of_run, scope_of
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.storage.custody import (
    MOST_KEYS,
    Action,
    Cause,
    erasure_body,
    run_target,
    subject_target,
)
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.custody import Erased, Hold, Named, Target
from gateway.core.errors import Conflict, NotFound
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Actor, Draft, EventType, Payload, Role

_SWEEPS, _SWEEP_S = 10, 0.2
_STARTED = f"""
select run_id from records where {RARE_TYPE} and type = '{EventType.RUN_STARTED}'
  and {{}} = ? order by idx
"""  # noqa: S608 - literals only


class Memory(Protocol):
    """Keeps in memory what is also in the log."""

    def drop(self, runs: frozenset[str]) -> None:
        """Forget all of these runs, which have ended."""


@dataclass(frozen=True, slots=True)
class _Order:
    """An erasure that is wanted: who wants it, what for, and the data keys it is about."""

    by: Actor
    cause: Cause
    subject: str | None
    why: str | None
    keys: Sequence[str]


class Custodian:
    """Implements ``core.custody.CustodyDesk`` on the log. ``memories`` are told of what is erased."""

    def __init__(
        self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock, memories: Sequence[Memory] = ()
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._keys = keys
        self._clock = clock
        self._scribe = Scribe(clock, keys)
        self._memories = memories

    async def erase(self, by: Principal, target: Target, why: str) -> Erased:
        """Destroy the data keys of a run or user; see ``core.custody.CustodyDesk``."""
        mark = self._mark(target)
        cause = Cause.RUN if mark is None else Cause.SUBJECT
        found = await self._reader.ask(lambda db: _keys_of(db, target.run, mark))
        if not found:
            raise NotFound("nothing to erase: no such run or user, or it was erased before", cause_code="erasure")
        return await self._destroy(_Order(self._scribe.actor(by), cause, mark, why, found))

    async def hold(self, by: Principal, target: Target, why: str) -> Hold:
        """Keep a run or user from being erased; see ``core.custody.CustodyDesk``."""
        if target.run is not None and await self._reader.run(target.run) is None:
            raise NotFound("no such run", cause_code="run")
        name = self._name(target)
        await self._ledger.append([self._holding(by, name, Action.SET, why)])
        mark = self._mark(target)
        covered = await self._reader.ask(lambda db: _keys_of(db, target.run, mark))
        hold = next(hold for hold in await self.holds() if hold.target == name)
        return replace(hold, keys=len(covered))

    async def release(self, by: Principal, target: Target, why: str) -> None:
        """End a hold; see ``core.custody.CustodyDesk``."""
        await self._ledger.append([self._holding(by, self._name(target), Action.RELEASED, why)])

    async def holds(self) -> tuple[Hold, ...]:
        """The holds in force; see ``core.custody.CustodyDesk``."""
        return await self._reader.ask(lambda db: _holds(self._reader, db))

    def pseudonym(self, named: Named) -> str:
        """See ``core.custody.CustodyDesk``."""
        if named.subject is None:
            return self._keys.mark("person", str(named.person))
        return self._keys.mark("user", "|".join(named.subject))

    async def retire(self, older_us: int) -> int:
        """Destroy the data keys of ended runs and days whose last record is older; returns how many were destroyed.

        Step by step, so that calls and questions go on meanwhile; what is held or in use stays for the next time.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        now_us = self._clock.now_us()
        horizon = await self._reader.ask(partial(ageing.horizon, older_us=older_us, now_us=now_us))
        after, count = "", 0
        while True:
            last, due = await self._reader.ask(partial(ageing.due, after=after, horizon=horizon))
            if due:
                with suppress(Conflict):  # held or used again since: the next round asks anew
                    count += (await self._destroy(_Order(SYSTEM, Cause.RETENTION, None, None, due))).keys
            if last is None:
                return count
            after = last

    async def _destroy(self, order: _Order) -> Erased:
        keys = order.keys
        parts = [keys[at : at + MOST_KEYS] for at in range(0, len(keys), MOST_KEYS)]
        await self._ledger.append([self._erasure(order, part) for part in parts])
        runs = frozenset(scope.run for scope in map(scope_of, keys) if scope.run is not None)
        for memory in self._memories:
            memory.drop(runs)
        return Erased(len(runs), len(keys), await self._swept())

    async def _swept(self) -> bool:
        for _ in range(_SWEEPS):
            if self._ledger.swept or not self._ledger.sweeps:
                break
            await asyncio.sleep(_SWEEP_S)
            await self._ledger.append(())
        return self._ledger.swept

    def _erasure(self, order: _Order, keys: Sequence[str]) -> Draft:
        payloads = () if order.why is None else (_words(order.why),)
        body = erasure_body(order.cause, keys, order.subject)
        return self._scribe.draft(EventType.ERASURE, Subject(order.by), body, *payloads)

    def _holding(self, by: Principal, target: str, action: Action, why: str) -> Draft:
        body = {"action": action, "target": target}
        return self._scribe.draft(EventType.LEGAL_HOLD, Subject(self._scribe.actor(by)), body, _words(why))

    def _mark(self, target: Target) -> str | None:
        return None if target.subject is None else self.pseudonym(Named(target.subject))

    def _name(self, target: Target) -> str:
        mark = self._mark(target)
        return run_target(str(target.run)) if mark is None else subject_target(mark)


def _words(why: str) -> Payload:
    return Payload(Role.REASONS, encode({"reason": why}))


def _keys_of(db: Database, run_id: str | None, mark: str | None) -> list[str]:
    if run_id is not None:
        return keys_of_run(db, run_id)
    runs = [run for (run,) in db.execute(_STARTED.format(db.dialect.text("actor.user")), (mark,))]
    days = [key for (key,) in db.execute(f"{LIVE} and id >= 'day-' and id < 'day.' order by id")]
    return [key for run in runs for key in keys_of_run(db, run)] + [key for key in days if scope_of(key).user == mark]


def _holds(reader: LogReader, db: Database) -> tuple[Hold, ...]:
    found = []
    for target, index in db.execute("select target, idx from holds order by idx").fetchall():
        (entry,) = db.execute("select leaf from records where idx = ?", (index,)).fetchone()
        record: dict[str, Any] = msgspec.json.decode(entry)
        said = reader.sealed(db, index, record, Role.REASONS)
        why = None if said is None else str(msgspec.json.decode(said)["reason"])
        found.append(Hold(target, record["ts"], index, why))
    return tuple(found)
