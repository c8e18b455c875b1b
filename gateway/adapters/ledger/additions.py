"""What transactions add to a log's tables: rows, before they stand there."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

# index, id, leaf, hash, ts, type, run, number in the run, call, tool, effect, agent
RecordRow = tuple[
    int, str, bytes, bytes, int, str, str | None, int | None, str | None, str | None, str | None, str | None
]
# window, size, latest and earliest time, note, peaks
CheckpointRow = tuple[int, int, int, int, str, bytes]
# A payload's key is its record's index times this, plus its place in the record: no index needed to find it.
PAYLOAD_SLOTS = 8
CHECKPOINT = "win, size, high_us, low_us, note, peaks"


class Additions(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The rows of one transaction, or of several that follow each other.

    Attributes:
        first: how many records the log has before.
        size: and after.
        nodes: tops of full subtrees: level, place, hash.
        payloads: number, sealed bytes.
        opened: calls whose intent begins and does not end here -> index of the intent, replica.
        closed: calls that end here and began before.
        reasons: rare reasons, each with the record.
        checkpoints: window -> the newest checkpoint in it.
    """

    first: int
    size: int
    nodes: list[tuple[int, int, bytes]]
    records: list[RecordRow]
    payloads: list[tuple[int, bytes]]
    opened: dict[str, tuple[int, str]]
    closed: list[str]
    reasons: list[tuple[str, int]]
    checkpoints: dict[int, CheckpointRow]

    @classmethod
    def none(cls, size: int = 0) -> "Additions":
        """Nothing, to a log of so many records."""
        return cls(size, size, [], [], [], {}, [], [], {})

    def take(self, later: "Additions") -> None:
        """Add what follows."""
        self.size = later.size
        self.nodes += later.nodes
        self.records += later.records
        self.payloads += later.payloads
        self.opened |= later.opened
        # Whoever begins and ends here never stands in the table of those under way.
        self.closed += [call_id for call_id in later.closed if self.opened.pop(call_id, None) is None]
        self.reasons += later.reasons
        self.checkpoints |= later.checkpoints

    def statements(self, put: str) -> Iterator[tuple[str, Sequence[tuple[Any, ...]]]]:
        """What writes them: statements, each with its rows. ``put`` writes a checkpoint."""
        # A statement without rows costs as much as one with a row.
        changes: tuple[tuple[str, Sequence[tuple[Any, ...]]], ...] = (
            ("insert into nodes values (?, ?, ?)", self.nodes),
            ("insert into records values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self.records),
            ("insert into payloads values (?, ?)", self.payloads),
            # Whoever is in both ended and began anew.
            ("delete from intents where call_id = ?", [(call_id,) for call_id in self.closed]),
            ("insert into intents values (?, ?, ?)", [(call_id, *where) for call_id, where in self.opened.items()]),
            ("insert into reasons values (?, ?)", self.reasons),
            (put, list(self.checkpoints.values())),
        )
        return (change for change in changes if change[1])
