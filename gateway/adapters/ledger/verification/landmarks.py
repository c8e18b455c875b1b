"""Checkpoints kept outside the database: what the log must extend, or it was cut short, set back or written anew."""

from dataclasses import dataclass

from gateway.adapters.ledger.verification.report import Report
from gateway.core.tlog import Checkpoint, Frontier


@dataclass(frozen=True, slots=True)
class Landmark:
    """A checkpoint from elsewhere.

    Attributes:
        source: where it was kept, for people.
    """

    source: str
    checkpoint: Checkpoint


class Landmarks:
    """Holds a log that is being read against the landmarks, each when the log is as long as it."""

    def __init__(self, landmarks: list[Landmark], report: Report) -> None:
        self._ahead = sorted(landmarks, key=lambda landmark: landmark.checkpoint.size, reverse=True)
        self._report = report

    def pass_by(self, frontier: Frontier) -> None:
        """Compare where the tree so far is as long as a landmark; to be called from the empty tree on."""
        while self._ahead and self._ahead[-1].checkpoint.size <= frontier.size:
            landmark = self._ahead.pop()
            if landmark.checkpoint.size != frontier.size or landmark.checkpoint.root != frontier.root():
                self._say(landmark, "and these are other ones: another history was put in place")

    def finish(self) -> None:
        """The log ends here."""
        for landmark in self._ahead:
            self._say(landmark, f"and only {self._report.size} are here: cut short or set back")

    def _say(self, landmark: Landmark, problem: str) -> None:
        size = landmark.checkpoint.size
        self._report.add(None, None, f"{size} records were signed by {landmark.source} {problem}")
