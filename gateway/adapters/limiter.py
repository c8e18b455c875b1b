"""The ``Limits`` port, in the memory of one process."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType

from msgspec import Struct

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
        self._turnstile = Turnstile()
        # The same caller calls the same tool again and again: what that takes is worked out once.
        self._needs = lru_cache(maxsize=4096)(partial(_needs, overall or OverallLimits(), self._turnstile.place))

    @property
    def held(self) -> int:
        """How many concurrency gauges are in use: 0 when no call is running."""
        return self._turnstile.held

    def spend(self, permit: Permit) -> AbstractAsyncContextManager[Quota]:
        """Take a token of the tool's and the principal's rate and hold a place under every concurrency limit.

        The places are given back on every exit, the tokens are not. A refused call takes nothing.

        Raises:
            Throttled: on entry; ``retry_after`` is when this call would pass if nobody else called, None where it never
                would; ``cause_code`` names the limit.
        """
        target = permit.target
        tool, limits = target.tool, target.tool.limits
        rate, obliged = limits.per_minute, permit.decision.obligations.per_minute
        if obliged is not None and (rate is None or obliged < rate):
            rate = obliged
        asks = _Asks(target.caller.principal.key, tool.server, tool.fqn, rate, limits.concurrency)
        return _Spending(permit, self._turnstile, self._clock, *self._needs(asks))


class _Spending:
    """One call's tokens and places: no generator, since every call passes here."""

    __slots__ = ("_clock", "_permit", "_places", "_rates", "_turnstile")

    def __init__(
        self, permit: Permit, turnstile: Turnstile, clock: Clock, rates: Sequence[Rate], places: Sequence[Place]
    ) -> None:
        self._permit = permit
        self._turnstile = turnstile
        self._clock = clock
        self._rates = rates
        self._places = places

    async def __aenter__(self) -> Quota:
        refusal = self._turnstile.enter(self._rates, self._places, self._clock.monotonic())
        if refusal is not None:
            raise Throttled(
                "too many calls; see retry_after" if refusal.wait_s is not None else "calls are limited to none",
                retry_after=refusal.wait_s,
                cause_code=refusal.cause,
            )
        return Quota(self._permit)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turnstile.leave(self._places)


class _Asks(Struct, frozen=True):
    """What the limits of a call depend on.

    Attributes:
        per_minute: the tool's strictest rate for this caller; None = it has none.
        concurrency: the tool's; None = it has none.
    """

    whose: str
    server: str
    tool: str
    per_minute: int | None
    concurrency: int | None


def _needs(
    overall: OverallLimits, place: Callable[[str, int, str], Place], asks: _Asks
) -> tuple[tuple[Rate, ...], tuple[Place, ...]]:
    whose, most, each = asks.whose, overall.concurrency, overall.concurrency_per_principal
    rates = [Rate(f"principal {whose}", overall.per_minute, "rate_principal")]
    if asks.per_minute is not None:
        rates.append(Rate(f"tool {asks.tool} {whose}", asks.per_minute, "rate_tool"))
    places = [
        place("all", most, "concurrency"),
        place(f"upstream {asks.server}", _share(overall, most), "concurrency_upstream"),
        place(f"principal {whose}", each, "concurrency_principal"),
        place(f"upstream {asks.server} {whose}", _share(overall, each), "concurrency_upstream"),
    ]
    if asks.concurrency is not None:
        places.append(place(f"tool {asks.tool}", asks.concurrency, "concurrency_tool"))
    return tuple(rates), tuple(places)


def _share(overall: OverallLimits, places: int) -> int:
    return places - places * overall.for_others // 100
