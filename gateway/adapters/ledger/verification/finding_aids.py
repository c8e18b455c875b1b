"""The part of verification about what searches go by: the list of reasons, and the times beside the checkpoints.

Were they wrong, a search would leave out records that are there, and nobody would miss them.
"""

from collections.abc import Sequence

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.storage.batch import rare_reasons
from gateway.adapters.ledger.storage.span import LATER_THAN_ANY
from gateway.adapters.ledger.verification.report import Report

_LISTED = "select 1 from reasons where reason = ? and idx = ?"


class FindingAids:
    """Holds them against the records, which pass by in log order."""

    def __init__(self, db: Database, report: Report) -> None:
        self._db = db
        self._report = report
        self._high = 0
        self._low = LATER_THAN_ANY
        self._reasons = 0

    def record(self, index: int, record_id: str, at_us: int, reasons: Sequence[str]) -> None:
        """A record passes; ``reasons`` are those of a decision."""
        self._high = max(self._high, at_us)
        self._low = min(self._low, at_us)
        for reason in rare_reasons(reasons) if reasons else ():
            self._reasons += 1
            if self._db.execute(_LISTED, (reason, index)).fetchone() is None:
                self._report.add(index, record_id, "a reason is missing in the list searches use")

    def checkpoint(self, size: int, high_us: int, low_us: int) -> None:
        """A checkpoint over the records so far passes, with what stands beside it."""
        if (high_us, low_us) != (self._high, self._low):
            self._report.add(
                size - 1, None, f"the times beside the checkpoint over {size} records are not the records'"
            )
        self._low = LATER_THAN_ANY

    def finish(self) -> None:
        """The log ends here."""
        if self._db.execute("select count(*) from reasons").fetchone() != (self._reasons,):
            self._report.add(None, None, "the list of reasons holds some that no record gives")
