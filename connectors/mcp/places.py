"""Places for the processes of one server: so many in all, and of those so many for one user.

A user's agents, and whoever acts for those in their turn, are callers of their own with processes of their own; the
user is what they have in common. Without a share one user could hold every place, and keep everybody else out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from anyio import Semaphore

from gateway.core.call import Lease
from gateway.core.errors import NotSent

_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many processes there may be.

    Attributes:
        most: processes of callers at a time; a call waits for its turn, within its own time.
        each: of those, of one user; never more than ``most``.
        idle_s: an idle one is ended after so many seconds.
    """

    most: int = 8
    each: int = 6
    idle_s: float = 600.0


def user_of(lease: Lease) -> str:
    """Whose share a call's process is of: the user, by who vouches for them."""
    principal = lease.intent.quota.permit.target.caller.principal
    return f"{principal.issuer}|{principal.user}"


class _Line:
    """Places that are handed on in the order in which they were asked for."""

    def __init__(self, most: int) -> None:
        self._places = Semaphore(most, fast_acquire=True)
        self._asking = 0
        self.held = 0
        self.known = 0  # holds a place or waits for one

    @property
    def short(self) -> int:
        """How many more places are waited for than are free; below 0 where some are left."""
        # Who has been given a place waits no more, even where they do not know it yet.
        return self._asking + self._places.statistics().tasks_waiting - self._places.value

    async def join(self, make_room: Callable[[], None]) -> None:
        self._asking += 1
        try:
            make_room()
        finally:
            self._asking -= 1
        await self._places.acquire()

    def leave(self) -> None:
        self._places.release()


class Places:
    """The places at one server."""

    def __init__(self, crowd: Crowd) -> None:
        """All are free."""
        self._most = crowd.most
        self._each = min(crowd.each, crowd.most)
        self._all = _Line(self._most)
        self._shares: dict[str, _Line] = {}
        self._waiting = 0

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits for one."""
        return self._waiting > 0

    @property
    def short(self) -> int:
        """How many more are waited for by users with a share left than are free; below 0 where some are left."""
        return self._all.short

    def short_of(self, user: str) -> int:
        """The same within this user's share."""
        share = self._shares.get(user)
        return -self._each if share is None else share.short

    async def take(self, user: str, make_room: Callable[[], None] = lambda: None) -> None:
        """A place; who waits for one of their share stands in nobody's way.

        Args:
            user: as of ``user_of``.
            make_room: called before each wait, once ``short`` and ``short_of`` know of it.
        """
        share = self._shares.setdefault(user, _Line(self._each))
        share.known += 1
        self._waiting += 1
        try:
            await share.join(make_room)
            try:
                await self._all.join(make_room)
            except BaseException:
                share.leave()
                raise
            share.held += 1
        except BaseException:
            self._let_go(user, share)
            raise
        finally:
            self._waiting -= 1

    def give(self, user: str) -> None:
        """Give a place back."""
        self._all.leave()
        share = self._shares[user]
        share.held -= 1
        share.leave()
        self._let_go(user, share)

    def busy(self, user: str) -> NotSent:
        """How a call ends that has waited in vain."""
        share = self._shares.get(user)
        if share is not None and share.held >= self._each:
            words = f"as many processes of this server as one user may have ({self._each}) are in use for yours"
            return NotSent(f"{words}: wait for a call to end", retry_after=_RETRY_S, cause_code="own_processes_busy")
        words = f"all processes of this server ({self._most}) are in use"
        return NotSent(f"{words}: wait for a call to end", retry_after=_RETRY_S, cause_code="processes_busy")

    def _let_go(self, user: str, share: _Line) -> None:
        share.known -= 1
        if not share.known:
            del self._shares[user]
