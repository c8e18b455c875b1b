"""Time, ids and randomness of this machine."""

import os
import threading
import time

_IDS = 512
# The sub-millisecond part of an id as text; to format it takes longer than to look it up.
_PARTS = tuple(f"{part:03x}" for part in range(4096))
# The first byte of an id's random end: two bits of variant, then six random ones.
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))


class SystemClock:
    """The machine's clocks and its cryptographic random source. Safe to share between threads.

    Ids are UUIDv7 (RFC 9562 section 5.7) with 12 bits of sub-millisecond time in ``rand_a`` (section 6.2, method 3).
    They rise strictly within a process, even when the wall clock is set back: the log and the console sort by them.

    A wall clock that is set back is not followed for as long as the process lives: tokens, runs and approvals would
    be good for longer than was said. One that is set forward is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._ahead_ns = time.time_ns() - time.monotonic_ns()
        self._tails: list[str] = []
        self._millisecond, self._head = -1, ""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        # The wall clock is read first: a pause between the two readings must not put this one ahead of it.
        wall_ns, since_ns = time.time_ns(), time.monotonic_ns()
        ahead_ns = self._ahead_ns
        if wall_ns - since_ns > ahead_ns:
            ahead_ns = self._ahead_ns = wall_ns - since_ns
        return (since_ns + ahead_ns) // 1000

    # Seconds that never go back, for intervals. The machine's own function: it is asked many times a call.
    monotonic = staticmethod(time.monotonic)

    def uuid(self) -> str:
        """A new UUIDv7 in its canonical text form."""
        tick = (time.time_ns() << 12) // 1_000_000  # 1/4096 ms
        with self._lock:
            if tick <= self._last:
                tick = self._last + 1
            self._last = tick
            if not self._tails:
                self._tails = _tails(_IDS)
            millisecond = tick >> 12
            if millisecond != self._millisecond:
                self._millisecond = millisecond
                text = f"{millisecond:012x}"
                self._head = f"{text[:8]}-{text[8:]}-7"
            return f"{self._head}{_PARTS[tick & 0xFFF]}-{self._tails.pop()}"

    def random(self, size: int) -> bytes:
        """``size`` bytes from the system's cryptographic source."""
        return os.urandom(size)


def _tails(count: int) -> list[str]:
    """The random ends of ids, 62 bits each, with the variant in front.

    Made for many ids at once: each call of the system's source gives the interpreter lock away.
    """
    bits = bytearray(os.urandom(count * 8))
    bits[::8] = bits[::8].translate(_VARIANT)
    return [f"{text[:4]}-{text[4:]}" for text in bits.hex(" ", 8).split(" ")]
