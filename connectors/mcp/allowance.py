"""How much a peer may make us write by itself: so many messages within a minute, for as long as the stream lives.

Not so many in all: a server that looks after its clients pings each of them, for days.
"""

from typing import Final

from msgspec import Struct

_WINDOW_S: Final = 60.0


class Allowance(Struct):
    """One stream's.

    Attributes:
        most: messages within a minute of the first of them.
    """

    most: int
    _since: float | None = None
    _taken: int = 0

    def takes(self, now: float) -> bool:
        """Count one message that came at ``now``, seconds; returns whether it is within the allowance."""
        if self._since is None or now - self._since >= _WINDOW_S:
            self._since, self._taken = now, 0
        self._taken += 1
        return self._taken <= self.most
