"""The ``Aside`` of the redactor: a few workers, started when they are first needed and ended when they are not."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from anyio import CancelScope, Semaphore, WouldBlock, fail_after

from gateway.adapters.redaction.frames import Done, Garbage
from gateway.adapters.redaction.link import Link
from gateway.core.errors import Tainted
from gateway.core.needles import Needles
from gateway.core.redact import Bounds, Clean


@dataclass(frozen=True, slots=True)
class Options:
    """How much is done at a time.

    Attributes:
        workers: bodies at a time.
        waiting: bodies that may wait for a worker; over it they are withheld at once.
        waiting_s: longest one body may wait for a worker, seconds: its call holds its places and credential meanwhile.
        deadline_s: longest one body may take a worker, seconds.
        idle_s: a worker without work is ended after so many seconds, and forgets what it knew.
        command: the worker's command line, which gets the gateway's process id as its last word; None = ours.
    """

    workers: int = 2
    waiting: int = 64
    waiting_s: float = 60.0
    deadline_s: float = 20.0
    idle_s: float = 60.0
    command: Sequence[str] | None = None


@dataclass(slots=True, eq=False)
class Scrubbers:
    """Works on large bodies in other processes; an async context manager. See ``gateway.core.redact.Aside``.

    Failure mode, closed: a worker that is too slow, dies or talks nonsense is killed, and its body is withheld.
    """

    options: Options = field(default_factory=Options)
    _idle: list[tuple[Link, asyncio.TimerHandle]] = field(default_factory=list)
    _all: set[Link] = field(default_factory=set)
    _ended: list[Link] = field(default_factory=list)
    _places: Semaphore = field(init=False)
    _queued: int = 0

    async def __aenter__(self) -> Self:
        """Nothing is started before it is needed."""
        self._places = Semaphore(self.options.workers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End all workers."""
        for _, timer in self._idle:
            timer.cancel()
        links, self._idle = list(self._all), []
        with CancelScope(shield=True):
            for link in links:
                self._end(link)
            for link in self._ended:  # those that were ended before, too, may not be gone yet
                await link.process.wait()

    async def cleaned(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> Clean:
        """See the Protocol."""
        done = await self._done(body, needles, bounds, asks=False)
        if done.cause is not None:
            raise Tainted(done.detail, cause_code=done.cause)
        return body if done.body is None else done.body, done.counts

    async def holding(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> bool:
        """See the Protocol."""
        try:
            done = await self._done(body, needles, bounds, asks=True)
        except Tainted:
            return True
        return done.holds or done.cause is not None

    async def _done(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds, *, asks: bool) -> Done:
        await self._place()
        try:
            return await self._worked(body, needles, bounds, asks=asks)
        finally:
            self._places.release()

    async def _place(self) -> None:
        try:
            self._places.acquire_nowait()
        except WouldBlock:
            if self._queued >= self.options.waiting:
                raise Tainted("too many large outputs wait to be redacted", cause_code="redaction_busy") from None
            self._queued += 1
            try:
                with fail_after(self.options.waiting_s):
                    await self._places.acquire()
            except TimeoutError:
                raise Tainted("the output waited too long to be redacted", cause_code="redaction_busy") from None
            finally:
                self._queued -= 1

    async def _worked(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds, *, asks: bool) -> Done:
        link: Link | None = None
        try:
            with fail_after(self.options.deadline_s):
                link = await self._link()
                done = await link.ask(body, needles, bounds, asks=asks)
        except TimeoutError:
            raise Tainted("the output could not be redacted in time", cause_code="redaction_bound") from None
        except (Garbage, OSError) as error:
            raise Tainted("the output could not be redacted", cause_code="redaction_failed") from error
        else:
            self._rest(link)
            link = None
            return done
        finally:
            if link is not None:  # in the middle of something, also where the caller has gone
                self._end(link)

    async def _link(self) -> Link:
        while self._idle:
            link, timer = self._idle.pop()
            timer.cancel()
            if link.process.returncode is None:
                return link
            self._end(link)
        with CancelScope(shield=True):  # a start that is given up half-way would leave a process that nobody knows of
            link = await Link.started(self.options.command)
        self._all.add(link)
        return link

    def _rest(self, link: Link) -> None:
        timer = asyncio.get_running_loop().call_later(self.options.idle_s, self._retire, link)
        self._idle.append((link, timer))

    def _retire(self, link: Link) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not link]
        self._end(link)

    def _end(self, link: Link) -> None:
        self._all.discard(link)
        self._ended = [*(other for other in self._ended if other.process.returncode is None), link]
        with suppress(OSError):
            link.kill()
