"""The times of the records up to a checkpoint: where a search by time begins and ends, though clocks are set back."""

from collections.abc import Sequence

from msgspec import Struct

LATER_THAN_ANY = 2**63 - 1


class Span(Struct, frozen=True, gc=False):
    """The times up to a checkpoint.

    Attributes:
        window: the checkpoint's window.
        high_us: the latest time of any record up to it; it never falls.
        low_us: the earliest time of the records since the checkpoint of another window before it.
    """

    window: int = 0
    high_us: int = 0
    low_us: int = LATER_THAN_ANY

    def grown(self, window: int, times: Sequence[int]) -> "Span":
        """The span of the next checkpoint, in ``window``, with records of ``times`` more."""
        low = self.low_us if window == self.window else LATER_THAN_ANY
        return Span(window, max(self.high_us, *times), min(low, *times)) if times else Span(window, self.high_us, low)
