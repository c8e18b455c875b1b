"""Where a long run stands, kept by its agent: so that it can be looked at, and gone on with after a break."""

from dataclasses import dataclass
from typing import Final, Protocol

from gateway.core.call import Principal

MOST_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.

    Attributes:
        id: of its record.
        at_us: when it was taken, microseconds.
        label: the agent's name for the step.
        state: canonical JSON; None where its key was destroyed.
    """

    id: str
    at_us: int
    label: str
    state: bytes | None


class SnapshotDesk(Protocol):
    """Keeps the states of runs in the log. Closed: what is not durable was not kept."""

    async def keep(self, by: Principal, run_id: str, label: str, state: bytes) -> Snapshot:
        """Record ``state.snapshot`` durably in the run.

        Raises:
            NotFound: the run has ended.
            Throttled: this caller has kept too much lately.
            Unavailable: the log cannot be written.
        """

    async def newest(self, run_id: str) -> Snapshot | None:
        """The last one of the run, or None.

        Raises:
            Unavailable: the log cannot be read.
        """
