"""A circuit breaker as a pure state machine; the time is handed in.

A part that failed several times in a row is left alone for a while, so that callers hear at once what they would have
heard after a timeout. Then one attempt is let through; its end decides.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """When a breaker opens.

    Attributes:
        failures: in a row, until it opens.
        first_pause_s: how long it stays open the first time; doubled each time the next attempt fails, too.
        most_pause_s: longest it stays open.
    """

    failures: int = 3
    first_pause_s: float = 0.5
    most_pause_s: float = 15.0


class Breaker:
    """Closed lets everything through, open nothing, half-open one attempt at a time. For one thread."""

    __slots__ = ("_failures", "_open_until", "_patience", "_pause_s", "_probing")

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._failures = 0
        self._pause_s = 0.0
        self._open_until: float | None = None
        self._probing = False

    def wait(self, now: float) -> float:
        """Seconds until an attempt may be made; 0 = now, and the caller then reports how it ended."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._probing:
            return self._patience.first_pause_s
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """An attempt was answered: closed."""
        self._failures, self._pause_s, self._open_until, self._probing = 0, 0.0, None, False

    def failed(self, now: float) -> None:
        """An attempt was not answered."""
        self._failures += 1
        self._probing = False
        if self._failures < self._patience.failures:
            return
        doubled = min(self._pause_s * 2, self._patience.most_pause_s)
        self._pause_s = doubled or self._patience.first_pause_s
        self._open_until = now + self._pause_s

    def gave_up(self) -> None:
        """An attempt was broken off without an answer either way: the next one may try."""
        self._probing = False
