"""The signed log as the event loop sees it: callers submit drafts, one thread writes what gathered meanwhile.

Everything that arrives while a transaction is being made durable goes into the next one (group commit). It is made at
the end of a turn, and some turns later where most callers in the house have yet to hand something in: one for sixteen
of them costs little more than one for four. The loop prepares it up to its commit, and the thread makes it durable:
preparing takes the interpreter, which the two would only hand to and fro, and committing does not. Large ones, and
those of a log that must be opened, asked for over the network or waited for first, are the thread's altogether. The
answers come back in one wake-up. A call that is alone in the house is committed by the loop, too, while the disk is
fast: handing over to a thread and back takes longer than the write, and nobody else is kept waiting.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from anyio import CancelScope, to_thread
from msgspec import Struct

from gateway.adapters.ledger.handing import Durable, Group, Handed, Owed, Submitted, settled
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.storage.guarding import GUARD_S
from gateway.adapters.ledger.storage.outcome import Outcome, Prepared
from gateway.adapters.ledger.storage.site import Site
from gateway.adapters.ledger.storage.store import Store
from gateway.core.errors import Unavailable
from gateway.core.ports import Clock
from gateway.core.records import CLOSINGS, Draft

RESERVE_BYTES = 256 * 1024 * 1024
_MAX_WAITING = 4096
_MAX_GROUPS = 512
_MAX_BYTES = 32 * 1024 * 1024
# Writes are fast where the latest took less than this on average, seconds; not before some were seen.
_FAST_S, _UNKNOWN_S, _WEIGHT = 0.0015, 0.1, 0.2
# From here on the loop does not even read of the disk.
_SLOW_S = 0.05
# Payloads up to here are sealed and written in about the time of none.
_SMALL_BYTES = 64 * 1024
# Turns of the loop a transaction waits for more callers at most.
_TURNS = 8
# What others can wait for while the loop prepares it: a few milliseconds at the most.
_LIGHT_GROUPS, _LIGHT_BYTES = 64, 256 * 1024
_LOG = logging.getLogger("gateway.ledger")


class _Job(Struct, frozen=True, eq=False):
    """Groups that are written together.

    Attributes:
        prepared: what the loop has prepared of them; None leaves that to the thread.
        took_s: how long that took.
        rests: whether nobody writes just now.
    """

    groups: list[Group]
    prepared: Prepared | None = None
    took_s: float = 0.0
    rests: bool = False


# Only what nobody waits for.
_NOTHING, _REST = _Job([]), _Job([], rests=True)


class Ledger:
    """The append-only signed log in ``place``, a state folder or another site; an async context manager.

    Failure mode, closed: whatever cannot be made durable raises ``Unavailable``; nothing is ever half written, and
    writing is tried anew with each append and each ping.
    """

    def __init__(self, place: Path | Site, keys: LogKeys, clock: Clock, reserve_bytes: int = RESERVE_BYTES) -> None:
        """``reserve_bytes``: free space below which new calls are refused while what was begun is still recorded."""
        self._store = Store(place, keys, clock, reserve_bytes)
        self._waiting: deque[Group] = deque()
        self._batches: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_open = self._is_due = self._is_writing = False
        self._reminder: asyncio.TimerHandle | None = None
        self._callers = self._turns = self._others = 0
        self._takes_s = _UNKNOWN_S
        # Who waits for a server, or for another process, does not do so on the loop.
        self._is_local = self._store.is_local

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
        if self._reminder is not None:
            self._reminder.cancel()
        while self._waiting:
            self._batches.put(_Job(self._batch()[0]))
        self._batches.put(None)
        with CancelScope(shield=True):
            await to_thread.run_sync(self._thread.join)

    def arrive(self) -> None:
        """A caller came in who will have records to write, and is here until ``leave``."""
        self._callers += 1

    def leave(self) -> None:
        """A caller is through."""
        self._callers -= 1

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Somebody writes to the database on a connection of their own; the loop does not wait for them."""
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    def submit(self, drafts: Sequence[Draft]) -> Durable:
        """Hand drafts to the writer: all of them become records, in order and together, or none does.

        The future raises ``Unavailable`` when they cannot be written and ``NotFound`` when the run has ended.
        """
        durable = Durable(loop=self._loop)
        self._take(Submitted(drafts, durable))
        return durable

    def hand_in(self, drafts: Sequence[Draft]) -> Handed:
        """As ``submit``, for the one task that waits for them."""
        handed = Handed(drafts)
        self._take(handed)
        return handed

    async def append(self, drafts: Sequence[Draft]) -> None:
        """Write drafts durably. Cancellation takes effect only after the outcome is known.

        Raises:
            Unavailable: they cannot be written.
            NotFound: the run has ended.
        """
        await settled(self.submit(drafts))

    def patrol(self) -> None:
        """With the next write, end the calls of processes that are dead."""
        self._store.patrol()

    def owe(self, drafts: Sequence[Draft]) -> None:
        """Endings that could not be written: written as soon as writing works again, if the call is still open then."""
        self._wait(Owed(drafts))

    @property
    def swept(self) -> bool:
        """Whether no copy of a destroyed data key is left in the write-ahead log; each write tries to get there."""
        return self._store.sweeping.swept and self._store.sweeps

    @property
    def replica(self) -> str:
        """Which of the processes that write the log this is; empty where there can be only one."""
        return self._store.replica

    @property
    def sweeps(self) -> bool:
        """Whether that can ever be said of this store."""
        return self._store.sweeps

    async def settle(self) -> None:
        """Return when all that is durable stands in the log's tables, where it is looked for.

        Raises:
            Unavailable: it cannot be put there now.
        """
        if self._store.is_scattered:
            await self.append(())

    async def ping(self) -> None:
        """Return when new calls can be recorded.

        Raises:
            Unavailable: they cannot.
        """
        if self._store.trouble is not None or not self._is_open:
            await self.append(())
        if self._store.trouble is not None:
            raise Unavailable(self._store.trouble, retry_after=1)

    def _take(self, group: Group) -> None:
        if not self._is_open:
            group.settle(Unavailable("the audit log is closed", cause_code="ledger_closed"))
        elif len(self._waiting) >= _MAX_WAITING and not all(draft.type in CLOSINGS for draft in group.drafts):
            group.settle(Unavailable("the audit log is busy", retry_after=1, cause_code="ledger_queue"))
        else:
            self._wait(group)

    def _wait(self, group: Group) -> None:
        self._waiting.append(group)
        if self._is_due or self._is_writing:
            return  # it goes with what is due, or with what comes after what is being written
        if self._callers == 1:
            self._hand_over()  # nobody else is here who could have something for the same transaction
        else:
            self._schedule()

    def _schedule(self) -> None:
        if self._loop is not None and self._waiting and not self._is_due and not self._is_writing:
            self._is_due = True
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        # Of those who are here, some wait for an upstream or a person: they are not waited for long.
        if self._turns < _TURNS and len(self._waiting) * 4 < self._callers * 3 and self._loop is not None:
            self._turns += 1
            self._loop.call_soon(self._gather)
        else:
            self._turns = 0
            self._hand_over()

    def _hand_over(self) -> None:
        self._is_due = False
        if not self._waiting:  # the end of the log took it meanwhile
            return
        self._is_writing = True
        groups, size = self._batch()
        if not self._is_light(len(groups), size):
            self._batches.put(_Job(groups))
            return
        began = time.monotonic()
        job = _Job(groups, self._prepared(groups), time.monotonic() - began)
        if self._is_quick(len(groups), size):
            outcomes = self._written(job)
            is_due = self._store.is_due
            self._settle(groups, outcomes, is_over=not is_due)
            if is_due:
                self._batches.put(_NOTHING)
        else:
            self._batches.put(job)

    def _is_light(self, callers: int, size: int) -> bool:
        # A log in trouble is opened and checked anew by the next write: how long that takes is not known.
        is_ours = self._is_local and self._is_open and not self._others
        is_well = self._store.trouble is None and self._takes_s < _SLOW_S
        is_little = callers <= _LIGHT_GROUPS and size <= _LIGHT_BYTES
        return is_ours and is_well and is_little

    def _is_quick(self, callers: int, size: int) -> bool:
        is_alone = self._callers <= 1 and callers == 1
        return is_alone and self._takes_s < _FAST_S and size <= _SMALL_BYTES

    def _prepared(self, groups: list[Group]) -> Prepared:
        return self._store.prepare([group.drafts for group in groups])

    def _batch(self) -> tuple[list[Group], int]:
        # What is written next, and the bytes of its payloads.
        groups: list[Group] = []
        size = 0
        while self._waiting and len(groups) < _MAX_GROUPS and size < _MAX_BYTES:
            group = self._waiting.popleft()
            groups.append(group)
            size += group.size
        return groups, size

    def _settle(self, groups: list[Group], outcomes: list[Outcome], *, is_over: bool) -> None:
        for group, outcome in zip(groups, outcomes, strict=True):
            group.settle(outcome)
        if is_over:
            self._go_on()

    def _go_on(self) -> None:
        self._is_writing = False
        self._schedule()
        self._remind()

    def _remind(self) -> None:
        # The last write before a long rest is noted in the guard, too, though no other one comes by.
        if self._loop is not None and self._is_open and self._reminder is None and self._store.is_behind:
            self._reminder = self._loop.call_later(GUARD_S, self._tend)

    def _tend(self) -> None:
        self._reminder = None
        is_free = self._is_open and not self._is_writing and not self._is_due  # otherwise a write comes by all the same
        if is_free and self._store.is_due:
            self._is_writing = True
            self._batches.put(_REST)
        elif is_free:
            self._remind()

    # the writer's thread; ``_written`` also the loop's, while the thread has nothing to do

    def _work(self) -> None:
        while (job := self._batches.get()) is not None:
            if job.groups:
                outcomes = self._written(job)
                is_due = self._store.is_due
                self._call(partial(self._settle, job.groups, outcomes, is_over=not is_due))
                if not is_due:
                    continue
            self._store.tend()
            if job.rests:
                self._store.rest()
            self._call(self._go_on)
        self._store.close()

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(what)

    def _written(self, job: _Job) -> list[Outcome]:
        began = time.monotonic()
        groups = job.groups
        outcomes = self._store.finish(job.prepared or self._prepared(groups))
        self._takes_s += _WEIGHT * (job.took_s + time.monotonic() - began - self._takes_s)
        if any(outcomes):
            for group, outcome in zip(groups, outcomes, strict=True):
                if group.is_owed and isinstance(outcome, Unavailable):
                    self._store.owe(group.drafts)
        return outcomes
