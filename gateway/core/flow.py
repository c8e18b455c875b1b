"""What flows while a call is carried out: what its upstream says to the caller, and that the caller wants no more.

A surface makes the ``Flow`` of a call; a connector tells it what it hears. Nothing reaches the caller but what the
redactor let pass: the flow holds no other way. What cannot be cleaned, does not fit or comes too often is dropped,
since a call does not depend on it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec
from anyio import CancelScope, current_time, fail_after
from msgspec import Struct

from gateway.core.canonical import Arguments
from gateway.core.errors import Reason, Tainted
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import MOST_QUESTIONS, Question
from gateway.core.mcpwire.jsonrpc import Id, encode, encode_notification
from gateway.core.mcpwire.notices import LEVELS, MESSAGE, PROGRESS, LogMessage, Notice, Progress

MOST_NOTICES: Final = 1000
MAX_NOTICE_BYTES: Final = 16 * 1024
ANSWER_S: Final = 120.0
# Why a call ended that its caller took back, or that found no place to wait for its caller's answer.
WITHDRAWN: Final = "withdrawn"
PARKED: Final = "parked"

Clean = Callable[[bytes], tuple[bytes, Mapping[str, int]]]
Deliver = Callable[[bytes], Awaitable[None]]


class Wants(Struct, frozen=True):
    """What a caller wants to hear.

    Attributes:
        token: its own name for the progress of this call; None = it wants none.
        level: the least severe log messages it wants; None = it wants none.
        is_asked: whether it named the level, so that its upstream is to be told.
        capabilities: what it can be asked, as of ``asking.declared``.
    """

    token: Id | None = None
    level: str | None = None
    is_asked: bool = False
    capabilities: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)


class NotAnswered(Exception):
    """What an upstream asked is not answered.

    Attributes:
        cause: why, as a stable name.
        reasons: why, where it is policy's word.
    """

    def __init__(self, cause: str, reasons: tuple[Reason, ...] = ()) -> None:
        """Keep why."""
        super().__init__(cause)
        self.cause = cause
        self.reasons = reasons


class Inquiry(Protocol):
    """Decides on questions of one call, and records them (``core/asking.py``)."""

    async def permit(self, question: Question) -> Question:
        """The question as the client may see it; raises ``NotAnswered`` where it may not be asked."""

    async def accept(self, question: Question, answer: Arguments) -> None:
        """Return when the answer may go to the upstream; raises ``NotAnswered`` where it may not."""


Put = Callable[[Question], Awaitable[Arguments]]


class _Stage(Enum):
    BEFORE = 0
    UNDER_WAY = 1
    OVER = 2


class Flow:
    """The line between one call and its caller.

    Args:
        wants: what the caller wants to hear.
        clean: takes secrets out of a JSON text and counts them, by rule, or raises ``Tainted``.
        deliver: sends the caller one JSON-RPC message; returns when there is room for the next one.
        give_up: breaks the call off that nothing was done for yet.
        put: puts a question to the client while the call waits, or raises ``NotAnswered``; None = it cannot be asked.
    """

    def __init__(
        self, wants: Wants, clean: Clean, deliver: Deliver, give_up: Callable[[], None], put: Put | None = None
    ) -> None:
        self.wants = wants
        self.redacted: Counter[str] | None = None  # most calls hear of nothing
        self.is_withdrawn = False
        self.why = WITHDRAWN
        self._clean = clean
        self._deliver = deliver
        self._stop = give_up
        self._stage = _Stage.BEFORE
        self._put = put
        self._inquiry: Inquiry | None = None
        self._time: CancelScope | None = None
        self._told = self._asked = self._waiting = 0
        self._left_s = 0.0
        self._done: float | None = None

    @property
    def askable(self) -> Mapping[str, Mapping[str, Any]]:
        """What the client can be asked while the call waits."""
        return {} if self._put is None else self.wants.capabilities

    async def tell(self, notice: Notice) -> None:
        """Hand on what the upstream says of this call, where the caller wants it."""
        if self._stage is not _Stage.UNDER_WAY or not self._is_wanted(notice):
            return
        if len(notice.said) > MAX_NOTICE_BYTES or self._told >= MOST_NOTICES:
            return
        self._told += 1
        try:
            said, counts = self._clean(notice.said)
        except Tainted:
            return
        if self.redacted is None:
            self.redacted = Counter()
        self.redacted.update(counts)
        await self._deliver(self._message(notice, said))

    async def ask(self, method: str, text: bytes) -> bytes:
        """What the client answers its upstream: JSON text of a result.

        Args:
            method: MCP method of the question.
            text: JSON text of its ``params``.

        Raises:
            NotAnswered: it may not be asked or answered, or nobody answers.
        """
        question = asking.question(method, text)
        if question is None or self._put is None or self._inquiry is None or self._asked >= MOST_QUESTIONS:
            raise NotAnswered("not_offered")
        self._asked += 1
        fault = asking.fault(question, self.wants.capabilities)
        if fault is not None:
            raise NotAnswered(fault)
        shown = await self._inquiry.permit(question)
        answer = await self._answer(self._put, shown)
        await self._inquiry.accept(question, answer)
        return answer.canonical

    def timed(self, scope: CancelScope) -> None:
        """The connector's time runs in ``scope``; it stands still while a client is asked."""
        self._time = scope

    async def _answer(self, put: Put, question: Question) -> Arguments:
        # However many questions wait at a time, it stands still once.
        if self._time is not None and not self._waiting:
            self._left_s = self._time.deadline - current_time()
        self._waiting += 1
        self._lasts(ANSWER_S)
        try:
            with fail_after(ANSWER_S):
                return await put(question)
        except TimeoutError:
            raise NotAnswered("no_answer") from None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._lasts(0.0)

    def _lasts(self, wait_s: float) -> None:
        """The connector has what it had left, after a wait."""
        if self._time is not None:
            self._time.deadline = current_time() + wait_s + self._left_s

    def withdraw(self, why: str = WITHDRAWN) -> None:
        """The caller wants no answer any more, or can get none (``PARKED``): break the call off, unless it is over."""
        if self._stage is not _Stage.OVER and not self.is_withdrawn:
            self.is_withdrawn, self.why = True, why
            self._stop()

    def under_way(self, stop: Callable[[], None], inquiry: Inquiry | None = None) -> "_UnderWay":
        """From the durable intent to the durable completion: ``stop`` breaks the call off, and notices pass."""
        return _UnderWay(self, stop, inquiry)

    def begin(self, stop: Callable[[], None], inquiry: Inquiry | None) -> None:
        """The call is under way."""
        self._stop, self._stage, self._inquiry = stop, _Stage.UNDER_WAY, inquiry
        if self.is_withdrawn:  # as its intent became durable: that it was given up does not reach a shielded call
            stop()

    def end(self) -> None:
        """The call is over."""
        self._stage, self._inquiry = _Stage.OVER, None

    def _is_wanted(self, notice: Notice) -> bool:
        if isinstance(notice, LogMessage):
            level = self.wants.level
            return level is not None and LEVELS.index(notice.level) >= LEVELS.index(level)
        # Progress that does not grow is none, by the specification; clients take it for a fault of the line.
        if self.wants.token is None or (self._done is not None and notice.done <= self._done):
            return False
        self._done = notice.done
        return True

    def _message(self, notice: Notice, said: bytes) -> bytes:
        if isinstance(notice, Progress):
            # The caller's own token is not the upstream's to say: it is put in after everything else.
            return encode_notification(PROGRESS, b'{"progressToken":%b,%b' % (encode(self.wants.token), said[1:]))
        return encode_notification(MESSAGE, said)


class _UnderWay:
    """The bracket of ``Flow.under_way``; each call has one, and a generator's would take several times as long."""

    __slots__ = ("_flow", "_inquiry", "_stop")

    def __init__(self, flow: Flow, stop: Callable[[], None], inquiry: Inquiry | None) -> None:
        self._flow = flow
        self._stop = stop
        self._inquiry = inquiry

    def __enter__(self) -> None:
        self._flow.begin(self._stop, self._inquiry)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.end()
