"""The session ledger of one run: how often each tool was called and what the declared measures add up to.

History-aware rules ("at most 3 payments and 5,000.00 a run") read it. A call in flight counts from its reservation on,
so two calls at once cannot both fit under the same limit; whoever ends without a durable intent gives the place back.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from msgspec import Struct

DAY_US = 24 * 3600 * 1_000_000
_MINUTE_US = 60 * 1_000_000


@dataclass(slots=True)
class Usage:
    """Counts and sums of one run, reservations included.

    Attributes:
        calls: number of calls by tool (``server.tool``).
        sums: by tool, the totals by measure (``amount.EUR``), in the measure's own integer unit.
    """

    calls: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Counter[str]] = field(default_factory=dict)

    def reserve(self, tool: str, amounts: Mapping[str, int]) -> "Reservation":
        """Count one more call of ``tool`` with ``amounts`` by measure."""
        self.add(tool, amounts)
        return Reservation(self, tool, dict(amounts))

    def add(self, tool: str, amounts: Mapping[str, int], times: int = 1) -> None:
        """Add ``times`` calls (or take them back with -1)."""
        self.calls[tool] += times
        if amounts:
            totals = self.sums.setdefault(tool, Counter())
            for name, amount in amounts.items():
                totals[name] += times * amount

    def settle(self, tool: str, amounts: Mapping[str, int], *, kept: bool) -> None:
        """A reservation ends: the call counts for good, or its place is given back."""
        if not kept:
            self.add(tool, amounts, -1)


@dataclass(slots=True)
class RecentUsage(Usage):
    """Counts and sums of the last 24 hours; what is older falls out, by the minute and never too early.

    Kept by minute, so that it grows with the tools used and not with the calls made.

    Attributes:
        now_us: the clock port's time.
        in_flight: calls reserved, whose intent is not durable yet.
    """

    now_us: Callable[[], int] = field(kw_only=True)
    in_flight: int = 0
    _minutes: deque[tuple[int, Usage]] = field(default_factory=deque)

    def reserve(self, tool: str, amounts: Mapping[str, int]) -> "Reservation":
        """Count one more call of ``tool``; see ``Usage``."""
        self.in_flight += 1
        self.add(tool, amounts)
        return Reservation(self, tool, dict(amounts))

    def settle(self, tool: str, amounts: Mapping[str, int], *, kept: bool) -> None:
        """A reservation ends; a kept call counts for 24 hours from now."""
        self.in_flight -= 1
        if kept:
            self._date(self.now_us(), tool, amounts)
        else:
            self.add(tool, amounts, -1)

    def recall(self, at_us: int, tool: str, amounts: Mapping[str, int]) -> None:
        """Count a call the log says was requested at ``at_us``; to be told in the order of time."""
        self.add(tool, amounts)
        self._date(at_us, tool, amounts)

    def expire(self) -> None:
        """Let what is older than 24 hours fall out."""
        if not self._minutes:
            return
        oldest = self.now_us() - DAY_US
        while self._minutes and self._minutes[0][0] <= oldest:
            _, old = self._minutes.popleft()
            for tool, calls in old.calls.items():
                self.add(tool, {}, -calls)
                if tool in old.sums:
                    self.sums[tool].subtract(old.sums[tool])
                if not self.calls[tool]:
                    del self.calls[tool]
                    self.sums.pop(tool, None)

    @property
    def idle(self) -> bool:
        """Whether nothing counts and nothing is about to."""
        return not self._minutes and not self.in_flight

    def _date(self, at_us: int, tool: str, amounts: Mapping[str, int]) -> None:
        # Under the minute's end, so that no call falls out early; and never under an earlier one than the call before,
        # should the clock go back.
        end = (at_us // _MINUTE_US + 1) * _MINUTE_US
        if not self._minutes or self._minutes[-1][0] < end:
            self._minutes.append((end, Usage()))
        self._minutes[-1][1].add(tool, amounts)


class Reservation(Struct, eq=False):
    """A place in the ledger held by one call: kept by its durable intent, released by any other end of its bracket."""

    usage: Usage
    tool: str
    amounts: Mapping[str, int]
    _open: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def keep(self) -> None:
        """The intent is durable: the call counts for good."""
        if self._open:
            self._open = False
            self.usage.settle(self.tool, self.amounts, kept=True)

    def release(self) -> None:
        """Give the place back, unless it was kept (or given back before)."""
        if self._open:
            self._open = False
            self.usage.settle(self.tool, self.amounts, kept=False)
