"""Minted values known to the redactor while somebody uses them.

A password is one call's; a value read from kv is the same in many calls at a time, and the first to end must not make
the redactor forget it under the others.
"""

from dataclasses import dataclass, field

from gateway.core.known import KnownValues


@dataclass(slots=True)
class Lending:
    """Who uses which value."""

    known: KnownValues
    _users: dict[str, set[str]] = field(default_factory=dict, repr=False)

    @property
    def room(self) -> int:
        """How many more values could be in use."""
        return self.known.room

    def lend(self, value: str, user: str) -> None:
        """Know ``value`` until ``user`` and everybody else has given it back.

        Raises:
            UnfitSecret: it must not be used.
            TooManySecrets: ``room`` is 0.
        """
        self.known.lend(value)
        self._users.setdefault(value, set()).add(user)

    def retire(self, value: str, user: str) -> None:
        """``user`` needs it no more, or never got it."""
        users = self._users.get(value, set())
        users.discard(user)
        if not users:
            self._users.pop(value, None)
            self.known.retire(value)
