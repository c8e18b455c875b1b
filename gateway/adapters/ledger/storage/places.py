"""Budgets that several gateway processes count in together: what the log says was used, and places held meanwhile."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.usage import RecentUsage, Reservation, Usage


@dataclass(slots=True)
class Counted:
    """What the log is known to say of one budget: a copy that grows with the log.

    Attributes:
        usage: what intents up to ``seen`` used.
        seen: index of the last record that was looked at.
    """

    usage: Usage
    seen: int = -1

    def recall(self, index: int, at_us: int, tool: str, amounts: Mapping[str, int]) -> None:
        """Count the intent at ``index`` in."""
        self.seen = max(self.seen, index)
        if isinstance(self.usage, RecentUsage):
            self.usage.recall(at_us, tool, amounts)
        else:
            self.usage.add(tool, amounts)

    def standing(self, given_back: Callable[[], None]) -> "Standing":
        """A copy as it is now, to count places in."""
        if isinstance(self.usage, RecentUsage):
            self.usage.expire()
        sums = {tool: Counter(amounts) for tool, amounts in self.usage.sums.items()}
        return Standing(Counter(self.usage.calls), sums, given_back=given_back)


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose implicit runs share a budget, as leaves name them."""

    agent: str | None
    user: str | None
    since_us: int


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget and the call that asks for a place in it.

    Attributes:
        scope: names the budget; one call of it is decided at a time, over all processes.
        run: whose intents count; None for an actor's implicit runs.
        actor: whose implicit runs count; None for a run.
    """

    scope: str
    call_id: str
    counted: Counted
    run: str | None = None
    actor: Actor | None = None


@dataclass(slots=True)
class Standing(Usage):
    """What a budget has used, the places that are held included. A place that is asked for is noted here.

    Attributes:
        is_open: whether the run has not ended.
        given_back: to be told of a place that is given back.
        wanted: the place that was asked for: tool and amounts.
    """

    is_open: bool = True
    given_back: Callable[[], None] = field(kw_only=True)
    wanted: tuple[str, Mapping[str, int]] | None = None

    def reserve(self, tool: str, amounts: Mapping[str, int]) -> Reservation:
        """Ask for the place of one more call of ``tool``; see ``Usage``."""
        self.wanted = (tool, dict(amounts))
        return Usage.reserve(self, tool, amounts)

    def settle(self, tool: str, amounts: Mapping[str, int], *, kept: bool) -> None:  # noqa: ARG002 - the signature is Usage's
        """A place ends. One that is kept was given up for its intent, in the intent's own transaction."""
        if not kept:
            self.given_back()


class Places(AbstractAsyncContextManager["Places"], Protocol):
    """Where places in budgets are held. Closed: what cannot be read or held raises ``Unavailable``."""

    def hold(self, budget: Budget) -> AbstractAsyncContextManager[Standing]:
        """Hold a budget for reading, deciding and taking a place, which is durable on exit.

        Raises:
            Unavailable: it cannot be read, or the place cannot be held.
        """

    def alone(self, name: str) -> AbstractAsyncContextManager[None]:
        """Nobody else, in any process, does what is named meanwhile.

        Raises:
            Unavailable: that cannot be made sure.
        """

    async def flush(self) -> None:
        """Give back what could not be given back before.

        Raises:
            Unavailable: it cannot be done now, either.
        """
