"""What callers hand in to the log: their drafts, and how each of them hears what became of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from anyio import CancelScope

from gateway.adapters.ledger.storage.outcome import Outcome
from gateway.core.records import Draft


class Durable(asyncio.Future[None]):
    """Done when the records are on disk, or refused.

    It cannot be cancelled: records that were handed in are written whether or not their caller waits. The cancellation
    of a waiting task is delivered once the outcome is known.
    """

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - the signature is asyncio's
        """Refused, see above."""
        return False


async def settled(durable: Durable) -> None:
    """Return when the records are on disk; raises what ``submit`` says. Cancellation takes effect only then."""
    if durable.done():  # by the loop itself
        durable.result()
        return
    with CancelScope(shield=True):
        await durable


class Group:
    """One caller's drafts, and what became of them.

    Attributes:
        size: bytes of the payloads.
        is_over: whether the outcome is known.
        failure: why they are no records, where that is the outcome.
        bell: done once the outcome is known; None = nobody waits yet.
    """

    __slots__ = ("bell", "drafts", "failure", "is_over", "size")
    # Whether nobody ever waits, and they are written as soon as they can be.
    is_owed = False

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts
        self.size = 0
        for draft in drafts:
            for payload in draft.payloads:
                self.size += len(payload.content)
        self.is_over = False
        self.failure: Outcome = None
        self.bell: asyncio.Future[None] | None = None

    def settle(self, outcome: Outcome) -> None:
        """The writer's answer: None = the records are on disk."""
        self.is_over, self.failure = True, outcome
        if self.bell is not None and not self.bell.done():
            self.bell.set_result(None)


class Owed(Group):
    """Drafts that could not be written before."""

    __slots__ = ()
    is_owed = True


class Submitted(Group):
    """Drafts and the future that says when they are on disk."""

    __slots__ = ("durable",)

    def __init__(self, drafts: Sequence[Draft], durable: Durable) -> None:
        super().__init__(drafts)
        self.durable = durable

    def settle(self, outcome: Outcome) -> None:
        """See ``Group``."""
        if outcome is None:
            self.durable.set_result(None)
        else:
            self.durable.set_exception(outcome)


class Handed(Group):
    """Drafts in the writer's hands, for the one task that waits for them.

    A future is made only where there is something to wait for, and one only: each call waits twice.
    """

    __slots__ = ()

    @property
    def is_durable(self) -> bool:
        """Whether they are known to be on disk."""
        return self.is_over and self.failure is None

    async def recorded(self) -> None:
        """Return when the records are on disk; raises what ``submit`` says.

        A cancellation is raised as soon as the outcome is known, whatever the outcome is.
        """
        if not self.is_over:
            self.bell = asyncio.get_running_loop().create_future()
            try:
                await self.bell
            except asyncio.CancelledError:
                await self._outlasted()
                raise
        if self.failure is not None:
            raise self.failure

    async def _outlasted(self) -> None:
        # They are written all the same. Only here is there a scope: it costs more than all the rest of waiting.
        if not self.is_over:
            self.bell = Durable()
            with CancelScope(shield=True):
                await self.bell
