"""The part of verification that is about the kill switch: no kill was lifted by fewer persons than were needed.

A voice is the keyed hash of whoever asked, so a stranger can count different ones and cannot tell who they are. How
many are needed is what the gateway was configured with at the time: where it asked for fewer than it had before, that
is no finding, and it is told.
"""

from dataclasses import dataclass, field

import msgspec

from gateway.adapters.ledger.verification.report import Report
from gateway.core.records import EventType

_FOLLOWED = frozenset({EventType.KILL_ENGAGED, EventType.KILL_LIFT_ASKED, EventType.KILL_LIFTED})


class _Body(msgspec.Struct, gc=False):
    kill: str = ""
    needed: int = 0
    voter: str = ""
    votes: int = 0


class _Leaf(msgspec.Struct, gc=False):
    id: str
    body: _Body


_DECODER = msgspec.json.Decoder(_Leaf)


@dataclass(slots=True)
class _Stand:
    """A kill in force: who has asked to lift it, and the most voices that were ever needed for it."""

    voters: set[str] = field(default_factory=set)
    needed: int = 0


class KillTrail:
    """Follows kills through one pass over a log."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._stands: dict[str, _Stand] = {}

    def record(self, kind: EventType, index: int, entry: bytes) -> None:
        """Take the record at ``index``; note a finding where it cannot have been written so."""
        if kind not in _FOLLOWED:
            return
        leaf = _DECODER.decode(entry)
        if kind is EventType.KILL_ENGAGED:
            self._stands[leaf.id] = _Stand()
            return
        stand = self._stands.get(leaf.body.kill)
        if stand is None:
            self._report.add(index, leaf.id, f"{kind} of a kill that is not in force")
        elif kind is EventType.KILL_LIFT_ASKED:
            self._asked(leaf, index, stand)
        else:
            self._lifted(leaf, index, stand)

    def _asked(self, leaf: _Leaf, index: int, stand: _Stand) -> None:
        if leaf.body.voter in stand.voters:
            self._report.add(index, leaf.id, "the same person asks twice for a kill to be lifted")
        stand.voters.add(leaf.body.voter)
        self._counted(leaf, index, stand)
        stand.needed = max(stand.needed, leaf.body.needed)

    def _lifted(self, leaf: _Leaf, index: int, stand: _Stand) -> None:
        self._counted(leaf, index, stand)
        if len(stand.voters) < max(1, leaf.body.needed):
            problem = f"a kill is lifted by {len(stand.voters)} persons where {max(1, leaf.body.needed)} are needed"
            self._report.add(index, leaf.id, problem)
        if leaf.body.needed < stand.needed:
            self._report.notices.append(
                f"record {index}: a kill was lifted with {leaf.body.needed} needed, where {stand.needed} were before"
            )
        del self._stands[leaf.body.kill]

    def _counted(self, leaf: _Leaf, index: int, stand: _Stand) -> None:
        if leaf.body.votes != len(stand.voters):
            problem = (
                f"{leaf.body.votes} persons are said to have asked for a kill to be lifted, {len(stand.voters)} did"
            )
            self._report.add(index, leaf.id, problem)
