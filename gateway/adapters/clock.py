"""Time, ids and randomness of this machine."""

import os
import threading
import time

_RAND_BITS = 62
_RAND_MASK = (1 << _RAND_BITS) - 1
_VARIANT = 0b10 << _RAND_BITS
_VERSION = 7 << 76
_TAIL = 8
_POOL = 512 * _TAIL


class SystemClock:
    """The machine's clocks and its cryptographic random source. Safe to share between threads.

    Ids are UUIDv7 (RFC 9562 section 5.7) with 12 bits of sub-millisecond time in ``rand_a`` (section 6.2, method 3).
    They rise strictly within a process, even when the wall clock is set back: the log and the console sort by them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._pool = b""
        self._used = 0

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""
        return time.monotonic()

    def uuid(self) -> str:
        """A new UUIDv7 in its canonical text form."""
        tick = (time.time_ns() << 12) // 1_000_000  # 1/4096 ms
        with self._lock:
            self._last = tick = max(tick, self._last + 1)
            if self._used == len(self._pool):
                # Drawn for many ids at once: each call of the system's source gives the interpreter lock away.
                self._pool, self._used = os.urandom(_POOL), 0
            tail = self._pool[self._used : self._used + _TAIL]
            self._used += _TAIL
        head = (tick >> 12) << 80 | _VERSION | (tick & 0xFFF) << 64
        text = f"{head | _VARIANT | int.from_bytes(tail) & _RAND_MASK:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def random(self, size: int) -> bytes:
        """``size`` bytes from the system's cryptographic source."""
        return os.urandom(size)
