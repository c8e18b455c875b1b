"""The values the gateway keeps out of all it says: lasting ones as configured, and minted ones that come and go."""

from collections import Counter
from collections.abc import Iterable

from gateway.core.fleeting import Fleeting
from gateway.core.needles import Needles, UnfitSecret

MAX_VALUES = 512


class KnownValues:
    """The values to be kept out of all outputs and logs; fed by whoever resolves or mints one, before using it.

    Written from the event loop's thread only. Read from any: ``needles`` is an immutable object, swapped whole.

    Attributes:
        segments: all values as of now, minted ones included, in several compiled parts; swapped whole, too.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._held = Counter(values)
        self._needles = Needles(self._held)
        self._fleeting = Fleeting()
        self.segments: tuple[Needles, ...] = (self._needles,)

    @property
    def needles(self) -> Needles:
        """The lasting values, compiled; minted ones are in ``segments`` only."""
        return self._needles

    def add(self, value: str) -> None:
        """Know ``value``; a value added twice must be removed twice.

        Raises:
            UnfitSecret: shorter than 8 or longer than 16,384 bytes, or over 512 values: it must not be used.
        """
        if value not in self._held:
            if len(self._held) >= MAX_VALUES:
                raise UnfitSecret(f"more than {MAX_VALUES} secrets at a time")
            self._needles = Needles((*self._held, value))
            self._swap()
        self._held[value] += 1

    @property
    def room(self) -> int:
        """How many more minted values could be in use."""
        return self._fleeting.room

    def lend(self, value: str) -> None:
        """Know a minted value before it is used.

        Raises:
            UnfitSecret: too short or too long: it must not be used.
            TooManySecrets: ``room`` is 0.
        """
        self._fleeting.add(value)
        self._swap()

    def retire(self, value: str) -> None:
        """A minted value was revoked: it stays known until many later ones were."""
        self._fleeting.retire(value)

    def remove(self, value: str) -> None:
        """Forget ``value``, unless it was added more often than removed; unknown ones are ignored."""
        if self._held[value] > 1:
            self._held[value] -= 1
        elif self._held.pop(value, 0):
            self._needles = Needles(self._held)
            self._swap()

    def _swap(self) -> None:
        self.segments = (self._needles, *self._fleeting.segments)
