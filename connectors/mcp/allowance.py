"""How much a peer may make us do by itself: so many messages within a minute, for as long as the stream lives.

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

    def takes(self, now: float, weight: int = 1) -> bool:
        """Count a message that came at ``now``, seconds, as so many; returns whether it is within the allowance."""
        if self._since is None or now - self._since >= _WINDOW_S:
            self._since, self._taken = now, 0
        self._taken += weight
        return self._taken <= self.most
