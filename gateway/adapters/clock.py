"""Time, ids and randomness of this machine."""

import os
import threading
import time

_IDS = 512
# The variant of ids is two bits, then two random ones: each of these stands for four random digits.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


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

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        # The wall clock is read first: a pause between the two readings must not put this one ahead of it.
        wall_ns, since_ns = time.time_ns(), time.monotonic_ns()
        self._ahead_ns = max(self._ahead_ns, wall_ns - since_ns)
        return (since_ns + self._ahead_ns) // 1000

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""
        return time.monotonic()

    def uuid(self) -> str:
        """A new UUIDv7 in its canonical text form."""
        tick = (time.time_ns() << 12) // 1_000_000  # 1/4096 ms
        with self._lock:
            self._last = tick = max(tick, self._last + 1)
            if not self._tails:
                self._tails = _tails(_IDS)
            tail = self._tails.pop()
        head = f"{tick:015x}"  # 48 bits of milliseconds, then 12 of what is below
        return f"{head[:8]}-{head[8:12]}-7{head[12:]}-{tail}"

    def random(self, size: int) -> bytes:
        """``size`` bytes from the system's cryptographic source."""
        return os.urandom(size)


def _tails(count: int) -> list[str]:
    """The random ends of ids, 62 bits each, with the variant in front.

    Made for many ids at once: each call of the system's source gives the interpreter lock away.
    """
    digits = os.urandom(count * 8).hex()
    texts = (digits[at : at + 16] for at in range(0, len(digits), 16))
    return [f"{_VARIANT[text[0]]}{text[1:4]}-{text[4:]}" for text in texts]
