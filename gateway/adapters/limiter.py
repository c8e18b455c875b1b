"""The ``Limits`` port, in the memory of one process."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from gateway.core.call import Permit, Quota
from gateway.core.errors import Throttled
from gateway.core.limits import Place, Rate, Turnstile
from gateway.core.ports import Clock

_KNOWN = 4096
# What the limits of a call depend on: whose it is, its server and tool, the strictest rate of the tool for this caller
# and the tool's own concurrency, where it has them; and what that comes to.
_Asks = tuple[str, str, str, int | None, int | None]
_Needs = tuple[tuple[Rate, ...], tuple[Place, ...]]


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
        self._overall = overall or OverallLimits()
        # The same caller calls the same tool again and again: what that takes is worked out once.
        self._needs: dict[_Asks, _Needs] = {}

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
        asks = (target.caller.principal.key, tool.server, tool.fqn, rate, limits.concurrency)
        rates, places = self._needs.get(asks) or self._worked_out(asks)
        return _Spending(permit, self._turnstile, self._clock, rates, places)

    def _worked_out(self, asks: _Asks) -> _Needs:
        if len(self._needs) >= _KNOWN:
            self._needs.clear()
        needs = self._needs[asks] = _needs(self._overall, self._turnstile.place, asks)
        return needs


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


def _needs(overall: OverallLimits, place: Callable[[str, int, str], Place], asks: _Asks) -> _Needs:
    whose, server, tool, per_minute, concurrency = asks
    most, each = overall.concurrency, overall.concurrency_per_principal
    rates = [Rate(f"principal {whose}", overall.per_minute, "rate_principal")]
    if per_minute is not None:
        rates.append(Rate(f"tool {tool} {whose}", per_minute, "rate_tool"))
    places = [
        place("all", most, "concurrency"),
        place(f"upstream {server}", _share(overall, most), "concurrency_upstream"),
        place(f"principal {whose}", each, "concurrency_principal"),
        place(f"upstream {server} {whose}", _share(overall, each), "concurrency_upstream"),
    ]
    if concurrency is not None:
        places.append(place(f"tool {tool}", concurrency, "concurrency_tool"))
    return tuple(rates), tuple(places)


def _share(overall: OverallLimits, places: int) -> int:
    return places - places * overall.for_others // 100
