"""The workers of one bundle: a bounded queue before them, and a keeper that starts each anew when it ends."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.adapters.rego.frames import Asked
from gateway.adapters.rego.link import Link, Question
from gateway.adapters.rego.routing import NOWHERE, Routes
from gateway.core.bundle import Bundle, BundleError
from gateway.core.errors import Unavailable

# How many questions a worker holds at a time: enough that it never waits for the gateway's loop.
WINDOW = 16
_BACKOFF_S, _BACKOFF_MOST_S = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool runs.

    Attributes:
        command: program and arguments of a worker.
        workers: how many.
        deadline_s: longest an input may take from when its worker can begin with it, seconds.
        queue: most questions that wait for a worker.
        queue_wait_s: longest a question waits for one, seconds.
    """

    command: tuple[str, ...]
    workers: int
    deadline_s: float
    queue: int
    queue_wait_s: float


def unavailable(detail: str) -> Unavailable:
    """The one error callers see: nothing was decided and nothing done."""
    return Unavailable(detail, retry_after=1, cause_code="policy_unavailable")


@dataclass(slots=True, eq=False)
class Pool:
    """Workers that all serve the same bundle.

    Failure mode: a question that hangs or kills its worker, or gets an unusable reply, is ``Unavailable``; evaluation
    has no effect, so those queued behind it are asked again elsewhere.

    Attributes:
        routes: of the bundle.
        event: called with ``timeout`` | ``garbage`` | ``died`` | ``started`` | ``queue_full`` | ``queue_wait``.
    """

    bundle: Bundle
    settings: PoolSettings
    event: Callable[[str], None]
    routes: Routes = NOWHERE
    engine: str = ""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _links: list[Link] = field(default_factory=list)
    _alive: set[Link] = field(default_factory=set)
    _waiting: deque[Question] = field(default_factory=deque)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _flushing: bool = False
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    async def start(self) -> None:
        """Start one worker, and the others beside it.

        Raises:
            BundleError: the engine refuses the bundle.
            OSError: the worker cannot be started.
        """
        link, gone = await self._link()
        self.engine = link.engine
        self._keepers.append(asyncio.create_task(self._keep(link, gone)))
        self._keepers += [asyncio.create_task(self._keep(None, None)) for _ in range(self.settings.workers - 1)]

    async def close(self) -> None:
        """End all workers; what still waits is ``Unavailable``."""
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        # All that must be done is done before the first pause: who is being cancelled does not get beyond it.
        for link in self._alive:
            link.kill()
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            _fail(self._waiting.popleft(), "policy engine is stopping")
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(link.stop() for link in self._alive))

    @property
    def ready(self) -> bool:
        """Whether a worker can take a question now."""
        return bool(self._links)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [link.pid for link in self._alive]

    def ask(self, decision_id: str, inputs: Sequence[Asked]) -> Question:
        """Queue a question for the next free worker.

        Raises:
            Unavailable: the queue is full.
        """
        if self._closed or len(self._waiting) >= self.settings.queue:
            self.event("queue_full")
            raise unavailable("too many policy questions are waiting")
        now = self._loop.time()
        question = Question(decision_id, inputs, self._loop.create_future(), now)
        self._waiting.append(question)
        self._schedule()
        self._time()
        return question

    def _schedule(self) -> None:
        # All questions of one turn of the loop leave together, one write for each worker.
        if not self._flushing and self._waiting:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        batches: list[tuple[Link, list[Question]]] = [(link, []) for link in self._links]
        room = [WINDOW - link.load for link in self._links]
        while self._waiting and (most := max(room, default=0)) > 0:
            question = self._waiting.popleft()
            if not question.answer.done():  # its caller may have gone
                at = room.index(most)
                room[at] -= 1
                batches[at][1].append(question)
        for link, batch in batches:
            if batch:
                link.ask(batch)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting and now >= self._waiting[0].asked_at + self.settings.queue_wait_s:
            self.event("queue_wait")
            _fail(self._waiting.popleft(), "no policy worker was free in time")
        self._time()

    def _time(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_at(self._waiting[0].asked_at + self.settings.queue_wait_s, self._sweep)

    async def _link(self) -> tuple[Link, asyncio.Event]:
        gone = asyncio.Event()

        def ended(cause: str, left: list[Question], place: int) -> None:
            if link in self._links:
                self._links.remove(link)
            self._left(cause, left, place)
            gone.set()

        link = Link(self.settings.deadline_s, self._schedule, ended, routes=self.routes)
        await link.start(self.settings.command, self.bundle)
        self._alive.add(link)
        self.event("started")
        return link, gone

    def _left(self, cause: str, left: list[Question], place: int) -> None:
        if self._closed:
            for question in left:
                _fail(question, "policy engine is stopping")
            return
        self.event(cause)
        if left:
            # The others were not begun with, or their replies were still held back.
            _fail(left.pop(place), "policy could not be evaluated")
            self._waiting.extendleft(reversed(left))
            self._schedule()
            # The timer that was set for them may have run out while they were with the worker.
            self._time()

    async def _keep(self, link: Link | None, gone: asyncio.Event | None) -> None:
        pause = 0.0
        while True:
            if link is None or gone is None:
                await asyncio.sleep(pause)
                try:
                    link, gone = await self._link()
                except (OSError, BundleError):
                    pause = min(_BACKOFF_MOST_S, max(_BACKOFF_S, pause * 2))
                    continue
            started = self._loop.time()
            self._links.append(link)
            self._schedule()
            await gone.wait()
            await link.stop()
            self._alive.discard(link)
            # Ends at once after a worker that served a while; one that keeps ending is started ever more slowly.
            early = self._loop.time() - started < 1.0
            pause = min(_BACKOFF_MOST_S, max(_BACKOFF_S, pause * 2)) if early else 0.0
            link = gone = None


def _fail(question: Question, detail: str) -> None:
    if not question.answer.done():
        question.answer.set_exception(unavailable(detail))
