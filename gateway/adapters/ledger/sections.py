"""A run's own budget and sums, while one of its calls is being decided."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.core.call import Resolved
from gateway.core.canonical import MAX_SAFE_INTEGER
from gateway.core.errors import BudgetExhausted, InvalidArguments
from gateway.core.pointer import PointerError, resolve
from gateway.core.tool import Measure
from gateway.core.usage import Reservation, Usage

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(slots=True)
class RunSection:
    """Implements ``core.ports.Section``: the usage of one run, changed by one call at a time."""

    usage: Usage
    budget: Mapping[str, int]

    def reserve(self, target: Resolved) -> Reservation:
        """Count the call in; see ``core.ports.Section``."""
        most = self.budget.get("calls")
        if most is not None and self.usage.calls.total() >= most:
            raise BudgetExhausted(f"the run's budget of {most} calls is used up", cause_code="budget_calls")
        amounts = amounts_of(target.tool.measures, target.call.arguments.value)
        return self.usage.reserve(target.tool.fqn, amounts)

    def rebuild(self, requested: Iterable[Mapping[str, Any]]) -> None:
        """Count what the log says was requested (bodies of ``tool.requested``)."""
        for body in requested:
            self.usage.add(body["tool"], body["measures"])


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


def amounts_of(measures: Iterable[Measure], arguments: Mapping[str, Any]) -> dict[str, int]:
    """The declared measures in a call's arguments, by name (with the currency, ``amount.EUR``).

    Raises:
        InvalidArguments: one is missing, no integer, negative, or without a proper currency code.
    """
    amounts: dict[str, int] = {}
    for measure in measures:
        amount = _found(arguments, measure.pointer)
        # A negative amount would make room under a limit that is already used up.
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 <= amount < MAX_SAFE_INTEGER:
            raise InvalidArguments(f"{measure.pointer} must be an integer, 0 or more", cause_code="measure")
        name = measure.name
        if measure.currency_pointer is not None:
            name = f"{name}.{_currency(arguments, measure.currency_pointer)}"
        amounts[name] = amounts.get(name, 0) + amount
    return amounts


def _currency(arguments: Mapping[str, Any], pointer: str) -> str:
    currency = _found(arguments, pointer)
    # The code becomes part of a leaf, so it may not be free text.
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidArguments(f"{pointer} must be a currency code of three capital letters", cause_code="measure")
    return currency


def _found(arguments: Mapping[str, Any], pointer: str) -> Any:
    try:
        return resolve(arguments, pointer)
    except PointerError:
        raise InvalidArguments(f"{pointer} is missing", cause_code="measure") from None
