"""Rotations of keys, in the log: when the last one was, that one gateway does the next, and how it ended."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from anyio import CancelScope

from gateway.adapters.ledger.books.alone import alone
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.adapters.ledger.storage.places import Places
from gateway.core.call import Principal
from gateway.core.errors import GatewayError, NotFound, Unavailable
from gateway.core.records import SYSTEM, Actor, EventType, identifier
from gateway.core.rotation import KeyKind, KeyStanding, Rotatable, RotationMeter

_LOG = logging.getLogger("ostiary.rotation")
_ROUND_S = 60.0
_TURN = "rotation"
_MICRO = 1_000_000
_END_S = 5.0
CUT_OFF = "cut_off"
_SAID = f"select leaf from records where type = ? and {RARE_TYPE} order by idx desc limit 1000"  # noqa: S608 - a literal


@dataclass(frozen=True, slots=True)
class Books:
    """Where rotations are kept.

    Attributes:
        places: where several gateways do one thing at a time; None = there is one.
    """

    ledger: Ledger
    reader: LogReader
    scribe: Scribe
    places: Places | None


@dataclass(frozen=True, slots=True)
class _Past:
    began_us: int
    done: dict[tuple[str, str], int]
    failed: dict[tuple[str, str], tuple[int, str]]


class Rotations(Tended):
    """Implements ``core.rotation.RotationDesk``, and replaces what is due once a minute; an async context manager."""

    def __init__(self, books: Books, meter: RotationMeter, keys: Sequence[Rotatable]) -> None:
        """``keys``: what can be replaced here."""
        self._books = books
        self._clock = books.scribe.clock
        self._meter = meter
        self._keys = tuple(keys)
        self._turns = Turns()
        self._is_settled = False
        self._rounds = Rounds(self.look, _ROUND_S, "the keys could not be looked after", at_once=True)

    async def standings(self) -> tuple[KeyStanding, ...]:
        """How all keys stand; see ``core.rotation.RotationDesk``."""
        past = await self._books.reader.ask(_past)
        return tuple([await self._standing(key, past) for key in self._keys])

    async def rotate(self, by: Principal, kind: KeyKind) -> tuple[KeyStanding, ...]:
        """Replace those of a kind; see ``core.rotation.RotationDesk``."""
        meant = [key for key in self._keys if key.kind == kind]
        if not meant:
            raise NotFound(f"no key of the kind {kind} is replaced by this gateway: see [rotation]", cause_code="kind")
        async with alone(_TURN, self._turns, self._books.places):
            for key in meant:
                await self._replace(key, self._books.scribe.actor(by))
        return tuple(standing for standing in await self.standings() if standing.kind == kind)

    async def look(self) -> None:
        """Replace what is due, and say how old all is.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        if not self._is_settled:
            self._is_settled = True
            await self._settle()
        standings = await self.standings()
        if any(standing.is_due(self._clock.now_us()) for standing in standings):
            async with alone(_TURN, self._turns, self._books.places):
                await self._replace_due()
            standings = await self.standings()
        for standing in standings:
            age_s = (self._clock.now_us() - standing.since_us) / _MICRO
            self._meter.key_age(standing.kind, standing.subject, max(0.0, age_s))

    async def _settle(self) -> None:
        for key in self._keys:
            try:
                async with self._turns.hold(_TURN):
                    await key.settle()
            except GatewayError as error:
                _LOG.warning("what is left of a rotation of the %s stays for now: %s", key.kind, error.detail)

    async def _replace_due(self) -> None:
        # Looked at again: another gateway may have done it while this one waited for its turn.
        past = await self._books.reader.ask(_past)
        for key in self._keys:
            if not (await self._standing(key, past)).is_due(self._clock.now_us()):
                continue
            try:
                await self._replace(key, SYSTEM)
            except GatewayError as error:
                _LOG.warning("the %s %s could not be replaced: %s", key.kind, key.subject, error.detail)

    async def _replace(self, key: Rotatable, actor: Actor) -> None:
        await self._books.ledger.ping()  # what could not be recorded is not begun
        task = asyncio.create_task(key.rotate())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # The gateway is stopping, or whoever asked has gone: how it ended is recorded all the same.
            with CancelScope(shield=True), suppress(Unavailable):
                await _ended(task)
                await self._tell(key, actor, task)
            raise
        await self._tell(key, actor, task)
        error = task.exception()
        if error is not None:
            raise error if isinstance(error, GatewayError) else _broken() from error

    async def _tell(self, key: Rotatable, actor: Actor, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GatewayError):
            # Whatever it is: that it failed must not go unrecorded.
            _LOG.error("the %s %s could not be replaced", key.kind, key.subject, exc_info=error)
        cause = CUT_OFF if task.cancelled() else _cause(error)
        kind = EventType.ROTATION_DONE if cause is None else EventType.ROTATION_FAILED
        await self._record(kind, actor, key, cause)

    async def _record(self, kind: EventType, actor: Actor, key: Rotatable, cause: str | None) -> None:
        body = {"kind": str(key.kind), "subject": identifier(key.subject) if key.subject else None}
        if cause is not None:
            body["cause"] = identifier(cause)
        draft = self._books.scribe.draft(kind, Subject(actor), body)
        try:
            await self._books.ledger.append([draft])
        except Unavailable:
            # It has happened: the record follows as soon as the log can be written.
            self._books.ledger.owe([draft])
            raise

    async def _standing(self, key: Rotatable, past: _Past) -> KeyStanding:
        name = (str(key.kind), identifier(key.subject) if key.subject else "")
        known = await key.since_us()
        since_us = known if known is not None else past.done.get(name, past.began_us)
        failed_us, why = past.failed.get(name, (0, ""))
        failed = why if failed_us > max(since_us, past.done.get(name, 0)) else None
        return KeyStanding(key.kind, key.subject, key.every_h, since_us, failed, failed_us)


async def _ended(task: asyncio.Task[None]) -> None:
    # A key that is nearly there is let come; then it is broken off, and what was in force is so still.
    await asyncio.wait({task}, timeout=_END_S)
    task.cancel()
    await asyncio.wait({task})


def _cause(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return (error.cause_code or error.code) if isinstance(error, GatewayError) else "internal"


def _broken() -> Unavailable:
    return Unavailable("the key could not be replaced", cause_code="internal")


def _past(db: Database) -> _Past:
    first = db.execute("select ts from records where idx = 0").fetchone()
    done: dict[tuple[str, str], int] = {}
    failed: dict[tuple[str, str], tuple[int, str]] = {}
    for (leaf,) in db.execute(_SAID, (EventType.ROTATION_DONE,)).fetchall():
        record = msgspec.json.decode(leaf)
        done.setdefault(_name(record["body"]), record["ts"])
    for (leaf,) in db.execute(_SAID, (EventType.ROTATION_FAILED,)).fetchall():
        record = msgspec.json.decode(leaf)
        failed.setdefault(_name(record["body"]), (record["ts"], record["body"]["cause"]))
    return _Past(0 if first is None else first[0], done, failed)


def _name(body: dict[str, str | None]) -> tuple[str, str]:
    return str(body["kind"]), body["subject"] or ""
