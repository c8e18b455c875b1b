"""The signed log as the event loop sees it: callers submit drafts, one thread writes what gathered meanwhile.

Everything that arrives while a transaction is being made durable goes into the next one (group commit), and the answers
of a transaction come back to the loop in one wake-up.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope, to_thread

from gateway.adapters.ledger.keys import LogKeys
from gateway.adapters.ledger.store import Outcome, Store
from gateway.core.errors import Unavailable
from gateway.core.ports import Clock
from gateway.core.records import CLOSINGS, Draft

RESERVE_BYTES = 256 * 1024 * 1024
_MAX_WAITING = 4096
_MAX_GROUPS = 512
_MAX_BYTES = 32 * 1024 * 1024
_LOG = logging.getLogger("gateway.ledger")


class Durable(asyncio.Future[None]):
    """Done when the records are on disk, or refused.

    It cannot be cancelled: records that were handed in are written whether or not their caller waits. The cancellation
    of a waiting task is delivered once the outcome is known.
    """

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - the signature is asyncio's
        """Refused, see above."""
        return False


class _Group:
    """One caller's drafts and the future it waits for; None where the drafts are owed and nobody waits."""

    __slots__ = ("drafts", "durable", "size")

    def __init__(self, drafts: Sequence[Draft], durable: Durable | None) -> None:
        self.drafts = drafts
        self.durable = durable
        self.size = sum(len(payload.content) for draft in drafts for payload in draft.payloads)


class Ledger:
    """The append-only signed log in ``folder``; an async context manager.

    Failure mode, closed: whatever cannot be made durable raises ``Unavailable``; nothing is ever half written, and
    writing is tried anew with each append and each ping.
    """

    def __init__(self, folder: Path, keys: LogKeys, clock: Clock, reserve_bytes: int = RESERVE_BYTES) -> None:
        """``reserve_bytes``: free space below which new calls are refused while what was begun is still recorded."""
        self._store = Store(folder, keys, clock, reserve_bytes)
        self._waiting: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_open = False

    async def __aenter__(self) -> Self:
        """Open and check the log.

        Raises:
            StateRefused: in use, altered, set back or unreadable.
        """
        await to_thread.run_sync(self._store.open)
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._waiting.put(None)
        with CancelScope(shield=True):
            await to_thread.run_sync(self._thread.join)

    def submit(self, drafts: Sequence[Draft]) -> Durable:
        """Hand drafts to the writer: all of them become records, in order and together, or none does.

        The future raises ``Unavailable`` when they cannot be written and ``NotFound`` when the run has ended.
        """
        durable = Durable(loop=self._loop)
        if not self._is_open:
            durable.set_exception(Unavailable("the audit log is closed", cause_code="ledger_closed"))
        elif self._waiting.qsize() >= _MAX_WAITING and not all(draft.type in CLOSINGS for draft in drafts):
            durable.set_exception(Unavailable("the audit log is busy", retry_after=1, cause_code="ledger_queue"))
        else:
            self._waiting.put(_Group(drafts, durable))
        return durable

    async def append(self, drafts: Sequence[Draft]) -> None:
        """Write drafts durably. Cancellation takes effect only after the outcome is known.

        Raises:
            Unavailable: they cannot be written.
            NotFound: the run has ended.
        """
        with CancelScope(shield=True):
            await self.submit(drafts)

    def owe(self, drafts: Sequence[Draft]) -> None:
        """Endings that could not be written: written as soon as writing works again, if the call is still open then."""
        self._waiting.put(_Group(drafts, None))

    async def ping(self) -> None:
        """Return when new calls can be recorded.

        Raises:
            Unavailable: they cannot.
        """
        if self._store.trouble is not None or not self._is_open:
            await self.append(())
        if self._store.trouble is not None:
            raise Unavailable(self._store.trouble, retry_after=1)

    def _work(self) -> None:
        while groups := self._gather():
            outcomes = self._write([group.drafts for group in groups])
            for group, outcome in zip(groups, outcomes, strict=True):
                if group.durable is None and isinstance(outcome, Unavailable):
                    self._store.owe(group.drafts)
            self._answer(groups, outcomes)
        self._store.close()

    def _gather(self) -> list[_Group]:
        groups: list[_Group] = []
        size = 0
        group = self._waiting.get()
        while group is not None:
            groups.append(group)
            size += group.size
            if len(groups) >= _MAX_GROUPS or size >= _MAX_BYTES:
                return groups
            try:
                group = self._waiting.get_nowait()
            except queue.Empty:
                return groups
        if groups:
            self._waiting.put(None)  # write what came before the end first
        return groups

    def _write(self, drafts: list[Sequence[Draft]]) -> list[Outcome]:
        try:
            return self._store.write(drafts)
        # A writer that dies would leave every caller waiting for ever; whatever this is, nothing was written.
        except Exception:  # noqa: BLE001
            _LOG.exception("the ledger's writer failed")
            self._store.abandon()
            return [Unavailable("the audit log cannot be written", retry_after=1) for _ in drafts]

    def _answer(self, groups: list[_Group], outcomes: list[Outcome]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_settle, groups, outcomes)


def _settle(groups: list[_Group], outcomes: list[Outcome]) -> None:
    for group, outcome in zip(groups, outcomes, strict=True):
        if group.durable is None:
            continue
        if outcome is None:
            group.durable.set_result(None)
        else:
            group.durable.set_exception(outcome)
