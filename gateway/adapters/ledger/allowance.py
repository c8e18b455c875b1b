"""How many bytes of what was refused each caller may leave in the log."""

from collections import OrderedDict

from gateway.core.ports import Clock

BURST_BYTES = 256 * 1024
REFILL_BYTES_S = 16 * 1024
_KNOWN = 4096


class Allowance:
    """A bucket of payload bytes for each caller, of those seen last; a caller not seen lately has a full one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, size: int) -> bool:
        """Take ``size`` bytes from the bucket of the caller ``key``, or nothing where it holds less."""
        now = self._clock.monotonic()
        left, at = self._buckets.pop(key, (float(BURST_BYTES), now))
        left = min(BURST_BYTES, left + (now - at) * REFILL_BYTES_S)
        fits = size <= left
        self._buckets[key] = (left - size if fits else left, now)
        if len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        return fits
