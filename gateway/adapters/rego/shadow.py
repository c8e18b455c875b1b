"""A candidate in the shadow of the policy in force: asked the same questions, off the path of every call.

The answer to a call is that of the policy in force, untouched. A share of the questions is laid into a bounded queue,
with the answer, for one task to put to the candidate; where they differ is counted and logged. Whatever the candidate
does (it cannot be loaded, hangs, dies, answers nonsense) is counted and seen nowhere else.
"""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

import msgspec

from gateway.core.bundle import BundleError
from gateway.core.decision import Decision, Evaluation, Phase, fold
from gateway.core.ports import PolicyEngine
from gateway.core.replaying import Shift, Word, of_call, shift, word

_LOG = logging.getLogger("ostiary.policy.shadow")
# What waits in the queue holds arguments; both bounds keep it small.
_MOST_WAITING = 256
_MOST_BYTES = 8 * 1024 * 1024
_MOST_LOGGED = 1000
_ANSWER_S = 5.0
_SHARES = 10_000


class Result(StrEnum):
    """What came of one document: how the candidate's word differs, or why there is none."""

    AGREE = "agree"
    NEWLY_ALLOWED = "newly_allowed"
    NEWLY_DENIED = "newly_denied"
    CHANGED = "changed"
    FAULT = "fault"
    DROPPED = "dropped"


_RESULTS = {
    Shift.FAULT: Result.FAULT,
    Shift.NEWLY_ALLOWED: Result.NEWLY_ALLOWED,
    Shift.NEWLY_DENIED: Result.NEWLY_DENIED,
    Shift.CHANGED: Result.CHANGED,
    Shift.REASONS: Result.AGREE,
    Shift.SAME: Result.AGREE,
}


@dataclass(frozen=True, slots=True)
class ShadowMeter:
    """Who is told.

    Attributes:
        compared: of each document of a sampled question, what came of it.
        watching: whether the candidate is there to be asked.
    """

    compared: Callable[[str], None]
    watching: Callable[[bool], None]


class _Tool(msgspec.Struct, frozen=True):
    fqn: str
    digest: str = ""


class _Facts(msgspec.Struct, frozen=True):
    phase: Phase
    tool: _Tool


_facts = msgspec.json.Decoder(_Facts)


@dataclass(frozen=True, slots=True)
class _Sample:
    inputs: tuple[bytes, ...]
    evaluation: Evaluation
    size: int


@dataclass(slots=True)
class _Waiting:
    """Samples that wait, bounded by number and by bytes."""

    samples: "asyncio.Queue[_Sample]" = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING))
    size: int = 0

    def offer(self, sample: _Sample) -> bool:
        if self.samples.full() or self.size + sample.size > _MOST_BYTES:
            return False
        self.size += sample.size
        self.samples.put_nowait(sample)
        return True

    async def next(self) -> _Sample:
        sample = await self.samples.get()
        self.size -= sample.size
        return sample


class Shadow:
    """The ``PolicyEngine`` port over the engine in force; an async context manager.

    Failure mode: that of the engine in force. A candidate that cannot be started is logged and watched no more.
    """

    def __init__(
        self,
        active: PolicyEngine,
        candidate: Callable[[], AbstractAsyncContextManager[PolicyEngine]],
        share: float,
        meter: ShadowMeter,
    ) -> None:
        """``candidate`` makes the other engine, ``share`` is 0..1 of the questions.

        ``candidate`` is called and entered by the task that asks it, so that a start that hangs holds nobody up.
        """
        self._active = active
        self._candidate = candidate
        self._below = round(share * _SHARES)
        self._meter = meter
        self._waiting = _Waiting()
        self._watching = False
        self._logged: set[tuple[str, str, str]] = set()
        self._revision = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin; the candidate is started meanwhile."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the candidate."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def ping(self) -> None:
        """As the engine in force does."""
        await self._active.ping()

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """What the engine in force says; see ``ports.PolicyEngine``."""
        evaluation = await self._active.evaluate(decision_id, inputs)
        # Chosen by the id, whose end is chance; so that what is sampled cannot be chosen by who calls.
        if zlib.crc32(decision_id.encode()) % _SHARES < self._below:
            self._offer(inputs, evaluation)
        return evaluation

    def known(self, about: bytes) -> Evaluation | None:  # noqa: ARG002
        """Nothing: the candidate is to hear of every question that is sampled."""
        return None

    def _offer(self, inputs: Sequence[bytes], evaluation: Evaluation) -> None:
        sample = _Sample(tuple(inputs), evaluation, sum(map(len, inputs)))
        if not (self._watching and self._waiting.offer(sample)):
            for _ in inputs:
                self._meter.compared(Result.DROPPED)

    async def _watch(self) -> None:
        try:
            async with self._candidate() as engine:
                self._stand(watching=True)
                while True:
                    await self._compare(engine, await self._waiting.next())
        except BundleError as error:
            for problem in error.problems:
                _LOG.error("the policy in the shadow cannot be served: %s", problem)
        # The outermost boundary of the shadow: whatever goes wrong in it, calls go on.
        except Exception:  # noqa: BLE001 - see above; it is logged whole
            _LOG.exception("the policy in the shadow failed and is watched no more")
        finally:
            self._stand(watching=False)

    def _stand(self, *, watching: bool) -> None:
        self._watching = watching
        self._meter.watching(watching)

    async def _compare(self, engine: PolicyEngine, sample: _Sample) -> None:
        # A document that was asked twice (of a call whose arguments have a fault) counts once. One about a name of no
        # tool does not count: it is denied whatever policy says, and callers could fill the log with such names.
        facts = {document: _facts.decode(document) for document in sample.inputs}
        places = {document: at for at, document in enumerate(sample.inputs) if facts[document].tool.digest}
        if not places:
            return
        before = fold("", sample.inputs, sample.evaluation)
        answer = await _answered(engine, sample.inputs)
        after = fold("", sample.inputs, answer)
        if answer.revision not in {"", self._revision}:
            # Another candidate: how it differs is logged from the beginning.
            self._revision = answer.revision
            self._logged.clear()
        for document, at in places.items():
            self._note(facts[document], before[at], after[at])

    def _note(self, facts: _Facts, old: Decision, new: Decision) -> None:
        was, now = _word(facts, old), _word(facts, new)
        result = _RESULTS[shift(was, now)]
        self._meter.compared(result)
        key = (facts.tool.fqn, str(was.seen), str(now.seen))
        if result is Result.AGREE or key in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add(key)
        # Ids only: neither arguments nor sentences, which may hold them.
        words = {"tool": key[0], "before": key[1], "after": key[2], "reasons": now.ids, "was": was.ids}
        _LOG.warning("the policy in the shadow differs: %s %s", result, msgspec.json.encode(words).decode())


def _word(facts: _Facts, decision: Decision) -> Word:
    return word(decision, None) if facts.phase is Phase.LIST else of_call(decision)


async def _answered(engine: PolicyEngine, inputs: Sequence[bytes]) -> Evaluation:
    answer: Awaitable[Evaluation] = engine.evaluate("shadow", inputs)
    try:
        return await asyncio.wait_for(answer, _ANSWER_S)
    # Anything at all: an engine that breaks its contract is a fault of the candidate, and of nobody else.
    except Exception:  # noqa: BLE001 - see above
        count = len(inputs)
        return Evaluation((None,) * count, ("engine.unavailable",) * count, "", "")
