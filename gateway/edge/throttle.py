"""The cheap throttle at the edge, before any signature is checked or body read.

A credential that has proven good has a bucket of its own. Everything else (no credential, a bad one, one not seen yet)
draws from the bucket of the client's address, so making up tokens does not make up buckets. Both tables are bounded;
the least recently used entry goes first, and strangers cannot push out the proven.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from gateway.core.errors import Throttled
from gateway.core.ports import Clock

_BURST_S = 2.0  # a bucket holds what flows into it in this time
_ENTRIES = 10_000
STRANGER = "stranger"
_V6_SITE = 64  # one customer has a whole /64, so its addresses share a bucket


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class _Table:
    def __init__(self, per_minute: int) -> None:
        self.rate = per_minute / 60.0
        self.size = max(1.0, self.rate * _BURST_S)
        self.buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def take(self, key: bytes, now: float) -> float:
        """Take one token; returns 0, or the seconds until there is one."""
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.add(key, now)
        else:
            self.buckets.move_to_end(key)
            tokens = bucket.tokens + (now - bucket.at) * self.rate
            bucket.tokens = min(self.size, tokens)
            bucket.at = now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self.rate
        bucket.tokens -= 1.0
        return 0.0

    def add(self, key: bytes, now: float) -> _Bucket:
        if len(self.buckets) >= _ENTRIES:
            self.buckets.popitem(last=False)
        bucket = self.buckets[key] = _Bucket(self.size, now)
        return bucket


class EdgeThrottle:
    """Token buckets by proven credential, or else by client address. Tokens are kept as digests only.

    A request costs one token before anything is known of it; what turns out dearer is charged afterwards.
    """

    def __init__(self, clock: Clock, per_minute: int, strangers_per_minute: int) -> None:
        """``per_minute`` is for each good credential, ``strangers_per_minute`` for each address without one."""
        self._clock = clock
        self._proven = _Table(per_minute)
        self._strangers = _Table(strangers_per_minute)

    def admit(self, key: bytes, client: str | None) -> bool:
        """Count one request of the credential of that digest (empty = it brings none); whether it is a proven one.

        Raises:
            Throttled: too many; with ``retry_after``. Its cause is ``STRANGER`` where the credential is not proven.
        """
        now = self._clock.monotonic()
        proven = key in self._proven.buckets
        wait = self._proven.take(key, now) if proven else self._strangers.take(_site(client), now)
        if wait > 0.0:
            raise Throttled("too many requests", retry_after=wait, cause_code="edge" if proven else STRANGER)
        return proven

    def prove(self, key: bytes) -> None:
        """The credential behind ``key`` is good: from now on it has a bucket of its own."""
        if key not in self._proven.buckets:
            self._proven.add(key, self._clock.monotonic())

    def charge(self, key: bytes, tokens: float) -> None:
        """Take ``tokens`` more from a proven credential, into debt if need be: later requests then wait the longer."""
        bucket = self._proven.buckets.get(key)
        if bucket is not None:
            bucket.tokens -= tokens


def _site(client: str | None) -> bytes:
    try:
        address = ip_address(client or "")
    except ValueError:
        return b""
    packed = address.packed
    return packed[: _V6_SITE // 8] if isinstance(address, IPv6Address) and not address.ipv4_mapped else packed[-4:]
