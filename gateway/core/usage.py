"""The session ledger of one run: how often each tool was called and what the declared measures add up to.

History-aware rules ("at most 3 payments and 5,000.00 a run") read it. A call in flight counts from its reservation on,
so two calls at once cannot both fit under the same limit; whoever ends without a durable intent gives the place back.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


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
        totals = self.sums.setdefault(tool, Counter())
        for name, amount in amounts.items():
            totals[name] += times * amount


@dataclass(slots=True, eq=False)
class Reservation:
    """A place in the ledger held by one call: kept by its durable intent, released by any other end."""

    usage: Usage
    tool: str
    amounts: Mapping[str, int]
    _open: bool = True

    def keep(self) -> None:
        """The intent is durable: the call counts for good."""
        self._open = False

    def release(self) -> None:
        """Give the place back, unless it was kept (or given back before)."""
        if self._open:
            self._open = False
            self.usage.add(self.tool, self.amounts, -1)
