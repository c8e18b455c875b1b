"""One policy worker, seen from the gateway: questions in flight, their order, and the deadline of the first of them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.adapters.rego.child import Child
from gateway.adapters.rego.frames import Asked, Garbage, Verdict, bundle_frame, load_reply, question_frame, reply
from gateway.adapters.rego.progress import Progress
from gateway.adapters.rego.routing import NOWHERE, Routes
from gateway.core.bundle import Bundle, BundleError

LOAD_DEADLINE_S = 20.0


@dataclass(slots=True, eq=False)
class Question:
    """Inputs that one worker evaluates together.

    Attributes:
        decision_id: what they belong to.
        inputs: the documents, each after its key.
        answer: the verdicts, one for each input.
        asked_at: when it was queued, loop time.
        number: its place in the worker's stream.
        digest: what the reply must echo.
    """

    decision_id: str
    inputs: Sequence[Asked]
    answer: asyncio.Future[list[Verdict]]
    asked_at: float
    number: int = 0
    digest: bytes = b""


@dataclass(slots=True, eq=False)
class Link:
    """A worker that has loaded its bundle.

    Replies come in the order of the questions, some at a time. A question's time runs from when the worker could begin
    with it: its dispatch, the reply to the one before, or when it noted so in the page it shares, if that is later.

    Attributes:
        deadline_s: longest for each input, seconds.
        on_free: called after each reply.
        on_gone: called once with the cause (``timeout`` | ``garbage`` | ``died``), the questions left without reply,
            and the place among them of the one it was at.
        engine: engine and version.
        routes: of the bundle.
    """

    deadline_s: float
    on_free: Callable[[], None]
    on_gone: Callable[[str, list[Question], int], None]
    engine: str = ""
    routes: Routes = NOWHERE
    _child: Child | None = None
    _progress: Progress | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _flying: deque[Question] = field(default_factory=deque)
    _numbers: int = 0
    _since: float = 0.0
    _timer: asyncio.TimerHandle | None = None
    _cause: str = "died"
    _loaded: asyncio.Future[str] | None = None

    @property
    def load(self) -> int:
        """How many questions are in flight."""
        return len(self._flying)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        assert self._child is not None
        return self._child.process.pid

    async def start(self, command: Sequence[str], bundle: Bundle) -> None:
        """Start the process and have it load ``bundle``.

        Raises:
            OSError: the process cannot be started, or ends or hangs while loading.
            BundleError: the engine refuses the bundle.
        """
        self._loaded = self._loop.create_future()
        self._progress = Progress.made()
        try:
            self._child = await Child.spawn(command, self._progress.descriptor, self._frame, self._gone)
        finally:
            self._progress.shared()
        self._child.send(bundle_frame(bundle, self.routes))
        try:
            async with asyncio.timeout(LOAD_DEADLINE_S):
                self.engine = await self._loaded
            # It may have ended since it answered, and nobody would hear of it again.
            if not self._child.is_open:
                raise ConnectionError("the policy worker ended after loading its bundle")
        except BaseException:
            await self.stop()
            raise
        self._loaded = None

    def kill(self) -> None:
        """Kill the process, now."""
        if self._child is not None:
            self._child.kill()

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        self.kill()
        if self._child is not None:
            await self._child.process.wait()

    def ask(self, questions: Sequence[Question]) -> None:
        """Send questions, all in one write."""
        assert self._child is not None
        frames: list[bytes] = []
        for question in questions:
            self._numbers += 1
            question.number = self._numbers
            frame, question.digest = question_frame(question.number, question.decision_id, question.inputs)
            frames.append(frame)
        if not self._flying:
            self._since = self._loop.time()
        self._flying.extend(questions)
        self._child.send(b"".join(frames))
        if self._timer is None:
            self._arm()

    def _frame(self, payload: bytes) -> None:
        try:
            if self._loaded is not None:
                self._load(payload)
            else:
                self._answer(payload)
        except Garbage:
            self._end("garbage")

    def _load(self, payload: bytes) -> None:
        engine, error = load_reply(payload)
        if self._loaded is None or self._loaded.done():
            raise Garbage
        if error or not engine:
            self._loaded.set_exception(BundleError(error or "the engine did not load the bundle"))
        else:
            self._loaded.set_result(engine)

    def _answer(self, payload: bytes) -> None:
        if not self._flying:
            raise Garbage
        question = self._flying[0]
        verdicts = reply(payload, question.number, question.digest, len(question.inputs))
        self._flying.popleft()
        self._since = self._loop.time()
        if not question.answer.done():
            question.answer.set_result(verdicts)
        self.on_free()

    def _arm(self) -> None:
        # One timer, set anew only when it fires: most questions never touch it.
        self._timer = self._loop.call_at(self._due(), self._check)

    def _at(self) -> tuple[int, float]:
        """The place of the question the worker is at, and when it began with it."""
        assert self._progress is not None
        number, began = self._progress.read()
        place = number - self._flying[0].number if self._flying else 0
        if not 0 < place < len(self._flying):
            return 0, self._since
        # No worker is believed more than its questions before this one may have taken.
        latest = self._since + self.deadline_s * sum(len(before.inputs) for before in list(self._flying)[:place])
        return place, min(max(began, self._since), latest)

    def _due(self) -> float:
        place, began = self._at()
        return began + self.deadline_s * len(self._flying[place].inputs)

    def _check(self) -> None:
        self._timer = None
        # The reply may be waiting in the socket while this process was too busy to read it.
        if self._child is not None:
            self._child.receive()
        if not self._flying:
            return
        if self._loop.time() >= self._due():
            self._end("timeout")
        else:
            self._arm()

    def _end(self, cause: str) -> None:
        self._cause = cause
        if self._child is not None:
            self._child.kill()

    def _gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A reply that is not of the form is one to the first.
        place = 0 if self._cause == "garbage" else self._at()[0]
        left = list(self._flying)
        self._flying.clear()
        if self._progress is not None:
            self._progress.close()
        if self._loaded is not None:
            if not self._loaded.done():
                self._loaded.set_exception(ConnectionError("the policy worker ended while loading its bundle"))
            return
        self.on_gone(self._cause, left, place)
