"""A run's own budget and sums, while one of its calls is being decided."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from msgspec import Struct

from gateway.core.call import Resolved
from gateway.core.errors import BudgetExhausted
from gateway.core.usage import Reservation, Usage


class RunSection(Struct, eq=False):
    """Implements ``core.ports.Section``: the usage of one run, changed by one call at a time."""

    usage: Usage
    budget: Mapping[str, int]

    def reserve(self, target: Resolved) -> Reservation:
        """Count the call in; see ``core.ports.Section``."""
        most = self.budget.get("calls")
        if most is not None and self.usage.calls.total() >= most:
            raise BudgetExhausted(f"the run's budget of {most} calls is used up", cause_code="budget_calls")
        return self.usage.reserve(target.tool.fqn, target.amounts)


class Turns:
    """A lock for each name that is in use."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn of ``name``."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)
