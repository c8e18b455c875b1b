"""Tells those who listen that something has happened. What it is they look up themselves: nothing is carried or kept.

Listening costs one entry in a set, so thousands may listen for hours to what seldom happens.
"""

from collections.abc import Callable


class Bell:
    """Calls everybody who listens; none of them may raise."""

    __slots__ = ("_ears",)

    def __init__(self) -> None:
        """Nobody listens."""
        self._ears: set[Callable[[], None]] | None = None  # most bells are never listened to

    def ring(self) -> None:
        """Call all who listen now."""
        for wake in tuple(self._ears or ()):
            wake()

    def hear(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever it rings; more than once is once."""
        if self._ears is None:
            self._ears = set()
        self._ears.add(wake)

    def forget(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` no more."""
        if self._ears is not None:
            self._ears.discard(wake)
