"""How much may wait for people: an inbox nobody can read helps nobody."""

from collections import Counter

from gateway.core.approval import Action
from gateway.core.call import Principal
from gateway.core.errors import Throttled

# Of what one user's agents have waiting, and of all.
_MOST_EACH, _MOST = 100, 10_000
_MOST_BYTES_EACH = 4 * 1024 * 1024


class Inbox:
    """Counts what waits, by user."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def check(self, principal: Principal, size: int) -> None:
        """Return where there is room for one more action with ``size`` bytes of arguments.

        Raises:
            Throttled: there is not.
        """
        who = _user(principal)
        is_full = self._waiting[who] >= _MOST_EACH or self._waiting.total() >= _MOST
        if is_full or self._bytes[who] + size > _MOST_BYTES_EACH:
            raise Throttled("too many calls wait for approval", retry_after=60, cause_code="approvals_waiting")

    def count(self, action: Action, times: int) -> None:
        """Count an action in, or out with -1."""
        who = _user(action.principal)
        self._waiting[who] += times
        self._bytes[who] += times * len(action.arguments.canonical)
        if not self._waiting[who]:
            del self._waiting[who], self._bytes[who]


def _user(principal: Principal) -> str:
    # Not by agent: how many agents a person has is up to that person.
    return f"{principal.issuer}|{principal.user}"
