"""Secrets that come and go with calls, known in a bounded way and at a bounded cost.

Compiling needles anew for each of many secrets would hold the event loop. So every value is compiled alone when it
comes, and values are gathered into blocks of 8 and of 64 as they grow older: each is compiled three times in its life.
A value that is in use is never forgotten. One that was revoked stays known until ``MAX_LATE`` later ones were revoked:
it opens nothing any more, but a late output that shows it would still look like a leak.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from gateway.core.needles import Needles, TooManySecrets, encodings

MAX_LIVE = 1024
MAX_LATE = 512
_FAN = 8
_LEVELS = 3


class Fleeting:
    """The short-lived values known now. Written from one thread, read from any: ``segments`` is swapped whole."""

    def __init__(self) -> None:
        self._forms: dict[str, frozenset[bytes]] = {}
        self._live: set[str] = set()
        self._late: OrderedDict[str, None] = OrderedDict()
        # Newest values first level; each block is (its values, compiled).
        self._levels: list[deque[Needles]] = [deque() for _ in range(_LEVELS)]
        self.segments: tuple[Needles, ...] = ()

    def __contains__(self, value: str) -> bool:
        return value in self._forms

    @property
    def room(self) -> int:
        """How many more values could be in use."""
        return MAX_LIVE - len(self._live)

    def add(self, value: str) -> None:
        """Know a value that is about to be used.

        Raises:
            UnfitSecret: it cannot be kept out of outputs: it must not be used.
            TooManySecrets: 1024 are in use.
        """
        if value not in self._live and self.room <= 0:
            raise TooManySecrets(f"more than {MAX_LIVE} minted secrets at a time")
        if value in self._forms:
            self._late.pop(value, None)
            self._live.add(value)
            return
        forms = encodings(value)
        self._forms[value] = forms
        self._live.add(value)
        self._levels[0].append(_block((value,), self._forms))
        self._settle()

    def retire(self, value: str) -> None:
        """The value was revoked; it stays known for a while. Unknown ones are ignored."""
        if value not in self._live:
            return
        self._live.remove(value)
        self._late[value] = None
        while len(self._late) > MAX_LATE:
            oldest, _ = self._late.popitem(last=False)
            del self._forms[oldest]

    def _settle(self) -> None:
        for level in range(_LEVELS - 1):
            if len(self._levels[level]) >= _FAN:
                merged = [value for block in self._levels[level] for value in block.values if value in self._forms]
                self._levels[level].clear()
                self._levels[level + 1].append(_block(merged, self._forms))
                if level == _LEVELS - 2:
                    self._compact()
        self.segments = tuple(block for blocks in self._levels for block in blocks)

    def _compact(self) -> None:
        # A block of which little is known any more would be searched for the sake of that little.
        oldest = self._levels[-1]
        for _ in range(len(oldest)):
            block = oldest.popleft()
            known = [value for value in block.values if value in self._forms]
            if len(known) * _FAN > len(block.values):
                oldest.append(block)
            elif known:
                self._levels[-2].append(_block(known, self._forms))


def _block(values: Iterable[str], forms: dict[str, frozenset[bytes]]) -> Needles:
    chosen = frozenset(values)
    return Needles(chosen, _all(forms[value] for value in chosen))


def _all(forms: Iterable[frozenset[bytes]]) -> Iterator[bytes]:
    for some in forms:
        yield from some
