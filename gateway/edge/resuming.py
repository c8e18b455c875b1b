"""Carries out parked calls whose approval was given: they enter by the same door as all others."""

import logging
from types import TracebackType
from typing import Self

from anyio import Semaphore, create_task_group, sleep

from gateway.core import pipeline
from gateway.core.approval import Action
from gateway.core.call import Call, Resumed
from gateway.core.errors import GatewayError
from gateway.core.ports import Ports

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_AT_A_TIME = 16
_LOG = logging.getLogger("ostiary.resuming")


class Resumption:
    """A task for each approved action; an async context manager.

    On exit what has been committed finishes, as a call whose caller has gone does; the rest is taken up by the next
    start.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def __aenter__(self) -> Self:
        self._places = Semaphore(_AT_A_TIME)
        # Not tasks of asyncio's own: their cancellation would break through the shield of a committed effect.
        self._tasks = await create_task_group().__aenter__()
        self._tasks.start_soon(self._watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        # The group is not told of the body's error, which it would wrap in a group of errors.
        await self._tasks.__aexit__(None, None, None)

    async def _watch(self) -> None:
        while True:
            self._tasks.start_soon(self._carry_out, await self._ports.approvals.approved())

    async def _carry_out(self, action: Action) -> None:
        pause = _FIRST_PAUSE_S
        try:
            while True:
                async with self._places:
                    error = await self._attempt(action)
                if not await self._may_be_tried_again(action, error):
                    return
                await sleep(max(pause, (error and error.retry_after) or 0.0))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        # One action must not take the gateway down with it; the next start takes it up again.
        except Exception:  # noqa: BLE001
            _LOG.exception("an approved action could not be carried out")

    async def _attempt(self, action: Action) -> GatewayError | None:
        clock = self._ports.clock
        call = Call(
            id=clock.uuid(),
            at_us=clock.now_us(),
            origin=Resumed(action.id),
            channel=action.channel,
            tool=action.tool,
            arguments=action.arguments,
            run=action.run,
            reported=action.reported,
        )
        try:
            await pipeline.handle(call, self._ports)
        except GatewayError as error:
            return error
        # Nobody is on the line to be told: whatever this is, the log has how the call ended.
        except Exception as error:  # noqa: BLE001
            _LOG.exception("a parked call failed unexpectedly")
            return GatewayError(type(error).__name__, cause_code="internal")
        return None

    async def _may_be_tried_again(self, action: Action, error: GatewayError | None) -> bool:
        while True:
            try:
                return await self._ports.approvals.settle(action.id, error)
            except GatewayError:  # the log cannot be read or written now; nobody is told anything until it can
                await sleep(_FIRST_PAUSE_S)
