"""What is done again and again while the log is open, in a task of its own that nothing ends but its owner."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from gateway.core.errors import GatewayError

_LOG = logging.getLogger("gateway.ledger")


class Rounds:
    """One round after another; that rounds fail is told once until one succeeds, or fails otherwise."""

    def __init__(
        self, once: Callable[[], Awaitable[object]], pause_s: float, trouble: str, *, at_once: bool = False
    ) -> None:
        """The first one comes after a pause, or ``at_once``; ``trouble``: told of one that failed, no full stop."""
        self._once = once
        self._pause_s = pause_s
        self._trouble = trouble
        self._at_once = at_once
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Go on until ``end``."""
        self._task = asyncio.create_task(self._keep_going())

    async def end(self) -> None:
        """Break off what is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _keep_going(self) -> None:
        if not self._at_once:
            await asyncio.sleep(self._pause_s)
        while True:
            try:
                await self._once()
                self._told = ""
            except GatewayError as error:
                if error.detail != self._told:  # several rounds a second, for as long as a database is away
                    _LOG.warning("%s: %s", self._trouble, error.detail)
                self._told = error.detail
            # Whatever it is: who depends on these rounds must not wait for ever because of it.
            except Exception:  # noqa: BLE001
                _LOG.exception("%s", self._trouble)
            await asyncio.sleep(self._pause_s)


class Tended:
    """What has rounds of its own while it is open: an async context manager.

    Whoever is one keeps them in ``_rounds``, and says in ``_begin`` what must be done before it can be used.
    """

    _rounds: Rounds

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rounds.end()

    async def _begin(self) -> None:
        self._rounds.begin()
