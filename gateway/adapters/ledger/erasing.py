"""Erasure, legal holds and retention: finds the data keys that are meant; the writer destroys them (``custody.py``)."""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from gateway.adapters.ledger.custody import (
    MOST_KEYS,
    Action,
    Cause,
    erasure_body,
    held,
    run_target,
    subject_target,
)
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.files import RARE_TYPE
from gateway.adapters.ledger.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.sealing import keys_of_run, scope_of
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.custody import Erased, Hold, Target
from gateway.core.errors import Conflict, GatewayError, NotFound
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Actor, Draft, EventType, Payload, Role

_LOG = logging.getLogger("gateway.erasing")
_DAY_US = 86_400_000_000
_STEP = 200  # data keys looked at in one question: other readers of the log wait for it
_ROUND_S = 3600.0
_SWEEPS, _SWEEP_S = 10, 0.2
_STARTED = f"""
select run_id from records where {RARE_TYPE} and type = '{EventType.RUN_STARTED}'
  and json_extract(cast(leaf as text), '$.actor.user') = ? order by idx
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
        return next(hold for hold in await self.holds() if hold.target == name)

    async def release(self, by: Principal, target: Target, why: str) -> None:
        """End a hold; see ``core.custody.CustodyDesk``."""
        await self._ledger.append([self._holding(by, self._name(target), Action.RELEASED, why)])

    async def holds(self) -> tuple[Hold, ...]:
        """The holds in force; see ``core.custody.CustodyDesk``."""
        return await self._reader.ask(lambda db: _holds(self._reader, db))

    async def retire(self, older_us: int) -> int:
        """Destroy the data keys of ended runs and days whose last record is older; returns how many were destroyed.

        Step by step, so that calls and questions go on meanwhile; what is held or in use stays for the next time.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        after, count = "", 0
        while True:
            last, due = await self._reader.ask(partial(_due, after=after, older_us=older_us))
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
            if self._ledger.swept:
                return True
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
        return None if target.subject is None else self._keys.mark("user", "|".join(target.subject))

    def _name(self, target: Target) -> str:
        mark = self._mark(target)
        return run_target(str(target.run)) if mark is None else subject_target(mark)


class Retention:
    """Lets go of what is older than ``days``, once an hour; an async context manager."""

    def __init__(self, custodian: Custodian, clock: Clock, days: int) -> None:
        self._custodian = custodian
        self._clock = clock
        self._age_us = days * _DAY_US
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_going())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def once(self) -> int:
        """One round; how many data keys were destroyed."""
        return await self._custodian.retire(self._clock.now_us() - self._age_us)

    async def _keep_going(self) -> None:
        while True:
            try:
                count = await self.once()
                if count:
                    _LOG.info("retention: %d data keys were destroyed", count)
            except GatewayError as error:
                _LOG.warning("retention could not do its round: %s", error.detail)
            await asyncio.sleep(_ROUND_S)


def _words(why: str) -> Payload:
    return Payload(Role.REASONS, encode({"reason": why}))


def _keys_of(db: sqlite3.Connection, run_id: str | None, mark: str | None) -> list[str]:
    if run_id is not None:
        return keys_of_run(db, run_id)
    runs = [run for (run,) in db.execute(_STARTED, (mark,))]
    days = [key for (key,) in db.execute("select id from deks where id >= 'day-' and id < 'day.' order by id")]
    return [key for run in runs for key in keys_of_run(db, run)] + [key for key in days if scope_of(key).user == mark]


def _due(db: sqlite3.Connection, after: str, older_us: int) -> tuple[str | None, list[str]]:
    """The data keys whose time is over, of those behind ``after``; and the last one looked at, None at the end."""
    keys = [key for (key,) in db.execute("select id from deks where id > ? order by id limit ?", (after, _STEP))]
    now = held(db)
    in_force = {record_id for (record_id,) in db.execute("select id from holds")}
    due = [key for key in keys if _is_over(db, key, older_us, in_force) and not now.cover(key)]
    return (keys[-1] if len(keys) == _STEP else None), due


def _is_over(db: sqlite3.Connection, key: str, older_us: int, in_force: set[str]) -> bool:
    scope = scope_of(key)
    if scope.run is None:
        return scope.over_us is not None and scope.over_us <= older_us and scope.hold not in in_force
    if db.execute("select 1 from open_runs where run_id = ?", (scope.run,)).fetchone() is not None:
        return False
    last = db.execute("select ts from records where run_id = ? order by seq_run desc limit 1", (scope.run,)).fetchone()
    return last is not None and last[0] < older_us


def _holds(reader: LogReader, db: sqlite3.Connection) -> tuple[Hold, ...]:
    found = []
    for target, index in db.execute("select target, idx from holds order by idx").fetchall():
        (entry,) = db.execute("select leaf from records where idx = ?", (index,)).fetchone()
        record: dict[str, Any] = msgspec.json.decode(entry)
        said = reader.sealed(db, index, record, Role.REASONS)
        why = None if said is None else str(msgspec.json.decode(said)["reason"])
        found.append(Hold(target, record["ts"], index, why))
    return tuple(found)
