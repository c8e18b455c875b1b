"""The ``Limits`` port, in the memory of one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.core.call import Permit, Quota
from gateway.core.errors import Throttled
from gateway.core.limits import Place, Rate, Turnstile
from gateway.core.ports import Clock


@dataclass(frozen=True, slots=True)
class OverallLimits:
    """Limits that hold whatever the tool.

    Attributes:
        per_minute: calls a minute and principal, all tools together.
        concurrency: calls at a time, all principals and tools together.
        concurrency_per_principal: calls at a time and principal.
        for_others: of each of these, in per cent: how many one upstream leaves to the others. One that hangs keeps its
            calls for as long as they may take; it would soon have every place, and no other upstream would get one.
    """

    per_minute: int = 6_000
    concurrency: int = 256
    concurrency_per_principal: int = 96
    for_others: int = 33


class MemoryLimits:
    """Places and tokens for permitted calls; the only maker of ``Quota``.

    Failure mode, closed: no room, or no room left in its own bounded table, is ``Throttled``.
    """

    def __init__(self, clock: Clock, overall: OverallLimits | None = None) -> None:
        self._clock = clock
        self._overall = overall or OverallLimits()
        self._turnstile = Turnstile()

    @property
    def held(self) -> int:
        """How many concurrency gauges are in use: 0 when no call is running."""
        return self._turnstile.held

    @asynccontextmanager
    async def spend(self, permit: Permit) -> AsyncIterator[Quota]:
        """Take a token of the tool's and the principal's rate and hold a place under every concurrency limit.

        The places are given back on every exit, the tokens are not. A refused call takes nothing.

        Raises:
            Throttled: ``retry_after`` is when this call would pass if nobody else called, None where it never would;
                ``cause_code`` names the limit.
        """
        places = self._places(permit)
        refusal = self._turnstile.enter(self._rates(permit), places, self._clock.monotonic())
        if refusal is not None:
            raise Throttled(
                "too many calls; see retry_after" if refusal.wait_s is not None else "calls are limited to none",
                retry_after=refusal.wait_s,
                cause_code=refusal.cause,
            )
        try:
            yield Quota(permit)
        finally:
            self._turnstile.leave(places)

    def _rates(self, permit: Permit) -> list[Rate]:
        whose, tool = permit.target.caller.principal.key, permit.target.tool
        asked = (tool.limits.per_minute, permit.decision.obligations.per_minute)
        stated = [limit for limit in asked if limit is not None]
        rates = [Rate(f"principal {whose}", self._overall.per_minute, "rate_principal")]
        if stated:
            rates.append(Rate(f"tool {tool.fqn} {whose}", min(stated), "rate_tool"))
        return rates

    def _places(self, permit: Permit) -> list[Place]:
        whose, tool = permit.target.caller.principal.key, permit.target.tool
        most, each = self._overall.concurrency, self._overall.concurrency_per_principal
        places = [
            Place("all", most, "concurrency"),
            Place(f"upstream {tool.server}", self._share(most), "concurrency_upstream"),
            Place(f"principal {whose}", each, "concurrency_principal"),
            Place(f"upstream {tool.server} {whose}", self._share(each), "concurrency_upstream"),
        ]
        if tool.limits.concurrency is not None:
            places.append(Place(f"tool {tool.fqn}", tool.limits.concurrency, "concurrency_tool"))
        return places

    def _share(self, places: int) -> int:
        return places - places * self._overall.for_others // 100
