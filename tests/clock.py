"""A clock that moves only when a test says so."""

import hashlib
from dataclasses import dataclass

_START_US = 1_750_000_000_000_000


@dataclass(slots=True)
class StepClock:
    """The Clock port, stepped by hand; ids and random bytes are the same in every run of a test.

    Attributes:
        us: now, microseconds since the epoch.
        drawn: how many ids and random strings were handed out.
    """

    us: int = _START_US
    drawn: int = 0

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.us += round(seconds * 1_000_000)

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return self.us

    def monotonic(self) -> float:
        """Seconds since the clock's start."""
        return (self.us - _START_US) / 1_000_000

    def uuid(self) -> str:
        """The next UUIDv7: this millisecond and a counter, so ids sort by the order they were drawn in."""
        self.drawn += 1
        text = f"{self.us // 1000:012x}7{self.drawn >> 62 & 0xFFF:03x}{0b10 << 62 | self.drawn & (1 << 62) - 1:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def random(self, size: int) -> bytes:
        """``size`` bytes that no two draws share."""
        self.drawn += 1
        return hashlib.shake_256(self.drawn.to_bytes(8)).digest(size)
