"""Random bytes in bulk."""

from gateway.core.ports import Clock

_DRAW = 4096


class Pool:
    """Hands out the clock's random bytes, each once. Belongs to one thread.

    Drawn in bulk because every draw from the system lets go of the interpreter, and getting it back while another
    thread works costs far more than the bytes do.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bytes = b""
        self._at = _DRAW  # as far as they are handed out

    def take(self, size: int) -> bytes:
        """``size`` fresh random bytes, at most 4096."""
        start = self._at
        end = self._at = start + size
        if end > _DRAW:
            self._bytes, start = self._clock.random(_DRAW), 0
            end = self._at = size
        return self._bytes[start:end]
