"""Approved tools, as records of the same log: implements ``core.pinning.PinBook``.

The leaf holds digests; the words and the address are sealed beside them, under a key of the server that no retention
ends. What is in memory is the log, folded: a pin replaces what was before it, a quarantine because of other words holds
until the next pin. Every process folds the same records, so all of them come to the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from gateway.adapters.ledger.books.alone import alone
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.adapters.ledger.storage.places import Places
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.errors import Conflict
from gateway.core.pinning import Approval, Basis, Cause, Described, Pin, Quarantine
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Actor, Draft, EventType, Payload, Role

_TURN, _OWED = "pins", "owed"
_STEP = 500
# So many different wordings of a pinned tool are recorded; a tool with a new one at each look must not fill the log.
_MOST_WORDINGS: Final = 8
_SINCE = f"select idx, leaf from records where {RARE_TYPE} and type in (?, ?) and idx > ? order by idx limit {_STEP}"  # noqa: S608 - literals only
_KINDS = (EventType.TOOL_PINNED, EventType.TOOL_QUARANTINED)


@dataclass(slots=True)
class _Held:
    """One pinned tool in memory; ``told`` = the quarantines of this pin that are recorded, or on their way."""

    pin: Pin
    told: set[tuple[str, str | None]] = field(default_factory=set)


class PinRegistry:
    """The pins of one log. ``sync`` it before use."""

    def __init__(
        self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock, places: Places | None = None
    ) -> None:
        """``places``: where several processes do one thing at a time."""
        self.revision = 0
        self._ledger = ledger
        self._reader = reader
        self._scribe = Scribe(clock, keys)
        self._places = places
        self._turns = Turns()
        self._servers: dict[str, dict[str, _Held]] = {}
        self._seen = -1
        self._owed: list[Quarantine] = []

    def of(self, server: str) -> Mapping[str, Pin]:
        """The pins of one server; see ``core.pinning.PinBook``."""
        return {name: held.pin for name, held in self._servers.get(server, {}).items()}

    async def sync(self) -> None:
        """Take in what was recorded; see ``core.pinning.PinBook``."""
        async with self._turns.hold(_TURN):
            await self._read_on()

    async def trust(self, server: str, found: Sequence[Approval]) -> None:
        """Pin on first use; see ``core.pinning.PinBook``."""
        async with alone(_TURN, self._turns, self._places, self._read_on):
            if self._servers.get(server):
                return
            for at in range(0, len(found), _STEP):
                await self._ledger.append([self._pinned(SYSTEM, one) for one in found[at : at + _STEP]])
            await self._read_on()

    async def pin(self, by: Principal, approval: Approval) -> None:
        """Pin on a person's word; see ``core.pinning.PinBook``."""
        server, _, name = approval.tool.partition(".")
        async with alone(_TURN, self._turns, self._places, self._read_on):
            held = self._servers.get(server, {}).get(name)
            if approval.was != (None if held is None else held.pin.approved.digest):
                raise Conflict("somebody pinned this tool meanwhile: look at it again", cause_code="pin_moved")
            await self._ledger.append([self._pinned(self._scribe.actor(by), approval)])
            await self._read_on()

    async def quarantine(self, cases: Sequence[Quarantine]) -> None:
        """Quarantine tools; see ``core.pinning.PinBook``."""
        # In force before it is written: a log that is full must not keep a tool in use.
        for case in cases:
            if self._note(case, None if case.now is None else case.now.digest):
                self._owed.append(case)
        async with self._turns.hold(_OWED):
            while self._owed:
                owed = tuple(self._owed[:_STEP])
                await self._ledger.append([self._quarantined(case) for case in owed])
                del self._owed[: len(owed)]

    async def _read_on(self) -> None:
        while True:
            found = await self._reader.ask(self._since)
            for index, record, content in found:
                self._seen = index
                self._fold(record, content)
            if len(found) < _STEP:
                return

    def _since(self, db: Database) -> list[tuple[int, dict[str, Any], bytes | None]]:
        rows = db.execute(_SINCE, (*_KINDS, self._seen)).fetchall()
        records = [(index, msgspec.json.decode(entry)) for index, entry in rows]
        return [
            (index, record, self._reader.sealed(db, index, record, Role.CHANGE) if _is_pin(record) else None)
            for index, record in records
        ]

    def _fold(self, record: Mapping[str, Any], content: bytes | None) -> None:
        body = record["body"]
        if not _is_pin(record):
            self._note(Quarantine(body["tool"], body["digest"], Cause(body["cause"])), body["now"])
            return
        server, _, name = body["tool"].partition(".")
        self.revision += 1
        if content is None:  # erased: nobody can say any more what was approved
            self._servers.get(server, {}).pop(name, None)
            return
        said = msgspec.json.decode(content)
        approved = Described(said["endpoint"], said["definition"], body["digest"])
        self._servers.setdefault(server, {})[name] = _Held(Pin(approved))

    def _note(self, case: Quarantine, now: str | None) -> bool:
        """Let a quarantine count; whether it is one that is worth a record."""
        server, _, name = case.tool.partition(".")
        held = self._servers.get(server, {}).get(name)
        if held is None or held.pin.approved.digest != case.pinned:
            return False  # of a pin that is no more
        if case.cause is Cause.CHANGED and not held.pin.is_changed:
            held.pin = replace(held.pin, is_changed=True)
            self.revision += 1
        told = (str(case.cause), now)
        if told in held.told or len(held.told) >= _MOST_WORDINGS:
            return False
        held.told.add(told)
        return True

    def _pinned(self, actor: Actor, approval: Approval) -> Draft:
        consent, described = approval.consent, approval.described
        signature = None if consent is None else consent.signature
        body = {
            "basis": Basis.FIRST_USE if consent is None else Basis.PERSON,
            "digest": described.digest,
            "key": None if consent is None else consent.key_id,
            "rules": approval.rules,
            "signature": None if signature is None else signature.hex(),
            "tool": approval.tool,
            "was": approval.was,
        }
        return self._scribe.draft(EventType.TOOL_PINNED, Subject(actor), body, _words(described))

    def _quarantined(self, case: Quarantine) -> Draft:
        now = case.now
        body = {
            "cause": case.cause,
            "digest": case.pinned,
            "now": None if now is None else now.digest,
            "tool": case.tool,
        }
        payloads = () if now is None else (_words(now),)
        return self._scribe.draft(EventType.TOOL_QUARANTINED, Subject(), body, *payloads)


def _is_pin(record: Mapping[str, Any]) -> bool:
    return bool(record["type"] == EventType.TOOL_PINNED)


def _words(described: Described) -> Payload:
    return Payload(Role.CHANGE, encode({"definition": described.definition, "endpoint": described.endpoint}))
