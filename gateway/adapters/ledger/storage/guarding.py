"""The rollback guard as a log is written: the last checkpoint, noted outside the database at most once a second."""

from pathlib import Path

from gateway.adapters.ledger.storage import files
from gateway.core.ports import Clock

GUARD_S = 1.0
UNGUARDED = "the rollback guard cannot be written"


class Guard:
    """The guard of one open log.

    Attributes:
        trouble: why it cannot be written, or None.
        has_begun: whether the log was found good and started; who was refused must not vouch for what it was refused
            for.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.trouble: str | None = None
        self.has_begun = False
        self._folder = folder
        self._clock = clock
        self._noted = ""
        self._at = 0.0

    def note(self, checkpoint: str) -> None:
        """Note a checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        files.write_guard(self._folder, checkpoint)
        self._noted, self._at, self.trouble = checkpoint, self._clock.monotonic(), None

    def begin(self, checkpoint: str) -> None:
        """Note the checkpoint of a log that has started.

        Raises:
            OSError: it cannot be written.
        """
        self.note(checkpoint)
        self.has_begun = True

    def is_behind(self, checkpoint: str) -> bool:
        """Whether the checkpoint is still to be noted."""
        return self.has_begun and checkpoint != self._noted

    @property
    def is_due(self) -> bool:
        """Whether it is time to note the newest checkpoint again."""
        return self.has_begun and self._clock.monotonic() - self._at >= GUARD_S

    def tend(self, checkpoint: str) -> None:
        """Note the checkpoint; where that cannot be done, ``trouble`` says so until it can."""
        if not self.has_begun:
            return
        try:
            self.note(checkpoint)
        except OSError:
            self.trouble = UNGUARDED
