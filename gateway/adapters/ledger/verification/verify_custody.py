"""The part of verification that is about erasure: a payload that cannot be read was either erased on record or is lost.

A data key may be missing only where a signed ``erasure`` record names it; none that was named may be there, nothing may
be sealed under it afterwards, and nothing may be erased that was held.
"""

from collections.abc import Container
from dataclasses import dataclass

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.sealing import scope_of
from gateway.adapters.ledger.storage.custody import Action, Cause, Holds
from gateway.adapters.ledger.verification.report import Report
from gateway.core.records import EventType

_FOLLOWED = frozenset({EventType.ERASURE, EventType.LEGAL_HOLD, EventType.RUN_STARTED})


class _Actor(msgspec.Struct, gc=False):
    user: str | None


class _Body(msgspec.Struct, gc=False):
    cause: str | None = None
    keys: list[str] = msgspec.field(default_factory=list)
    action: str | None = None
    target: str | None = None


class _Leaf(msgspec.Struct, gc=False):
    id: str
    run_id: str | None
    actor: _Actor
    body: _Body


_DECODER = msgspec.json.Decoder(_Leaf)


@dataclass(slots=True)
class _Absent:
    """A data key that is not there: the first record that needs it, and how many payloads do."""

    index: int
    record_id: str
    payloads: int = 0


class CustodyTrail:
    """Follows data keys and holds through one pass over a log. ``present`` are the data keys that are there."""

    def __init__(self, report: Report, present: Container[str]) -> None:
        self._report = report
        self._present = present
        self._absent: dict[str, _Absent] = {}
        self._erased: dict[str, int] = {}
        self._holds: dict[str, tuple[int, str]] = {}
        self._users: dict[str, str | None] = {}

    def used(self, key: str, index: int, record_id: str) -> None:
        """A payload of the record at ``index`` is sealed under the data key."""
        if key in self._erased:
            self._report.add(index, record_id, f"it is sealed under the data key {key}, which was destroyed before")
        elif key not in self._present:
            self._absent.setdefault(key, _Absent(index, record_id)).payloads += 1

    def record(self, kind: EventType, index: int, entry: bytes) -> None:
        """Take the record at ``index``; note a finding where it cannot have been written so."""
        if kind not in _FOLLOWED:
            return
        leaf = _DECODER.decode(entry)
        if kind is EventType.RUN_STARTED:
            self._users[str(leaf.run_id)] = leaf.actor.user
        elif kind is EventType.LEGAL_HOLD:
            self._hold(leaf, index)
        else:
            self._erase(leaf, index)

    def finish(self, db: Database) -> None:
        """Tell the erased from the lost, and hold the lists against what the records say."""
        for key, absent in self._absent.items():
            if key in self._erased:
                self._report.erased += absent.payloads
            else:
                problem = f"the data key {key} is missing and no record says it was erased: its payloads are lost"
                self._report.add(absent.index, absent.record_id, problem)
        for key, index in self._erased.items():
            if key in self._present:
                self._report.add(index, None, f"the data key {key}, which this record destroyed, is there again")
        if dict(db.execute("select key, idx from erased")) != self._erased:
            self._report.add(None, None, "the list of destroyed data keys is not what the records say")
        if {row[0]: row[1:] for row in db.execute("select target, idx, id from holds")} != self._holds:
            self._report.add(None, None, "the list of legal holds is not what the records say")

    def _hold(self, leaf: _Leaf, index: int) -> None:
        target, sets = str(leaf.body.target), leaf.body.action == Action.SET
        if (target in self._holds) is sets:
            self._report.add(index, leaf.id, f"a hold of {target} is set twice, or released where there is none")
        if sets:
            self._holds[target] = (index, leaf.id)
        else:
            self._holds.pop(target, None)

    def _erase(self, leaf: _Leaf, index: int) -> None:
        again = leaf.body.cause == Cause.RETURNED
        holds = Holds(set(self._holds), self._users.get)
        for key in leaf.body.keys:
            if (key in self._erased) is not again:
                self._report.add(index, leaf.id, f"the data key {key} is destroyed twice, or anew but not before")
            if not again and holds.cover(key):
                self._report.add(index, leaf.id, f"the data key {key} is destroyed although it is held: {_what(key)}")
            self._erased.setdefault(key, index)


def _what(key: str) -> str:
    run = scope_of(key).run
    return "a day's requests" if run is None else f"run {run}"
