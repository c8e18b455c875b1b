"""The PolicyEngine port on regorus in worker processes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gateway.adapters.rego.frames import CHUNK, Asked, Verdict
from gateway.adapters.rego.link import Question
from gateway.adapters.rego.memory import Key, Memory
from gateway.adapters.rego.pool import Pool, unavailable
from gateway.adapters.rego.preflight import examine, preflight
from gateway.adapters.rego.probe import PROBES
from gateway.adapters.rego.settings import EngineSettings
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Evaluation, Phase
from gateway.core.errors import TooLarge
from gateway.core.policy_input import MAX_BYTES

__all__ = ["EngineSettings", "RegoEngine"]


@dataclass(slots=True, eq=False)
class _Generation:
    """One bundle, the workers that serve it, and what they said before.

    Attributes:
        asking: evaluations under way.
        is_over: another generation is in force; the last evaluation that is under way ends the workers.
    """

    pool: Pool
    memory: Memory
    asking: int = 0
    is_over: bool = False


class RegoEngine:
    """Evaluates ``data.gateway.main.decision`` of one bundle; an async context manager.

    Failure mode, closed: a hanging, dying or babbling worker is killed and started anew, its question is
    ``Unavailable``; so is a question for which the queue has no room. An error of the policy itself is a fault of its
    input and folds to deny. Nothing is ever answered from another revision than the one the evaluation names, and what
    is asked under one bundle is answered under it, though another comes into force meanwhile.
    """

    def __init__(
        self, bundle: Bundle, settings: EngineSettings | None = None, meter: Callable[[str], None] | None = None
    ) -> None:
        """Keep what to serve; ``meter`` is told of worker events: see ``Pool.event``."""
        self._bundle = bundle
        self._settings = settings or EngineSettings()
        self._event = meter or _ignore
        self._now: _Generation | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._log = logging.getLogger(__name__)

    async def __aenter__(self) -> Self:
        """Preflight the bundle and start the workers.

        Raises:
            BundleError: the bundle cannot be served.
        """
        self._now = await self._made(self._bundle)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers."""
        now, self._now = self._now, None
        if now is not None:
            await now.pool.close()
        await asyncio.gather(*self._ending)

    async def serve(self, bundle: Bundle, allow: Callable[[], Awaitable[None]]) -> None:
        """Put another bundle in force, whole, once it was found good and ``allow`` has returned.

        Raises:
            BundleError: it cannot be served; the one before stays in force, also where ``allow`` raises.
        """
        made = await self._made(bundle)
        try:
            await allow()
        except BaseException:
            # By a task of its own: who is being cancelled cannot wait for its workers, and would leave them behind.
            made.is_over = True
            self._end_if_idle(made)
            raise
        before, self._now, self._bundle = self._now, made, bundle
        if before is not None:
            before.is_over = True
            self._end_if_idle(before)

    @property
    def engine(self) -> str:
        """Engine and version."""
        return self._running().pool.engine

    @property
    def revision(self) -> str:
        """Digest of the bundle in force."""
        return self._bundle.revision

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, for whoever measures them."""
        return self._running().pool.pids

    async def ping(self) -> None:
        """Return when a worker evaluates a probe; raise ``Unavailable`` when none does."""
        await self._running().pool.ask("ping", [(b"", PROBES[0])]).answer

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """Evaluate the input documents under one revision; see ``ports.PolicyEngine``."""
        if inputs and len(max(inputs, key=len)) > MAX_BYTES:
            raise TooLarge(f"a policy input is larger than {MAX_BYTES} bytes", cause_code="policy_input")
        now = self._running()
        now.asking += 1
        try:
            verdicts = await self._answered(now, decision_id, inputs)
        finally:
            now.asking -= 1
            self._end_if_idle(now)
        for verdict in verdicts:
            if verdict.fault is not None:
                self._log.warning("policy fault %s at %s", verdict.fault, verdict.place or "-")
        results, faults = [verdict.result for verdict in verdicts], [verdict.fault for verdict in verdicts]
        return Evaluation(tuple(results), tuple(faults), now.pool.bundle.revision, now.pool.engine)

    def known(self, about: bytes) -> Evaluation | None:
        """What was said of such calls before; see ``ports.PolicyEngine``."""
        now = self._now
        return None if now is None or not now.pool.ready else now.memory.known(about)

    def _running(self) -> _Generation:
        if self._now is None:
            raise unavailable("policy engine is not running")
        return self._now

    def _end_if_idle(self, generation: _Generation) -> None:
        if generation.is_over and not generation.asking:
            ending = asyncio.create_task(generation.pool.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _answered(self, now: _Generation, decision_id: str, inputs: Sequence[bytes]) -> list[Verdict]:
        memory, pool = now.memory, now.pool
        keys = [memory.key(document) for document in inputs]
        known = _recalled(now, keys)
        said = [verdict for verdict in known if verdict is not None]
        if len(said) == len(inputs):
            return said
        asked = [number for number, verdict in enumerate(known) if verdict is None]
        documents = [(memory.shared(keys[number]), inputs[number]) for number in asked]
        answers = await self._ask(pool, decision_id, documents)
        for number, verdict in zip(asked, answers, strict=True):
            known[number] = verdict
            memory.keep(keys[number], verdict)
        return [verdict for verdict in known if verdict is not None]

    async def _ask(self, pool: Pool, decision_id: str, inputs: Sequence[Asked]) -> list[Verdict]:
        if 0 < len(inputs) <= CHUNK:
            return await pool.ask(decision_id, inputs).answer
        questions: list[Question] = []
        try:
            questions.extend(pool.ask(decision_id, inputs[at : at + CHUNK]) for at in range(0, len(inputs), CHUNK))
            return [verdict for question in questions for verdict in await question.answer]
        finally:
            for question in questions:
                _forget(question.answer)

    async def _made(self, bundle: Bundle) -> _Generation:
        examined = await examine(bundle.modules, bundle.deny_only)
        if examined.findings:
            raise BundleError(*(str(finding) for finding in examined.findings))
        await preflight(bundle, self._settings.pool())
        pool = Pool(bundle, self._settings.pool(), self._event, examined.routes)
        try:
            await pool.start()
        except OSError as error:
            raise BundleError(f"no policy worker could be started: {error}") from None
        return _Generation(pool, Memory(examined.routes, bundle.revision, pool.engine))


def _recalled(now: _Generation, keys: Sequence[Key | None]) -> list[Verdict | None]:
    known = [now.memory.recall(key) for key in keys]
    # Calls: only while there is somebody to ask, and only together with the word that the tool may be known of, or
    # calls of a hidden tool would be cheaper than those of a name of no tool.
    if now.pool.ready and None not in known:
        return known
    return [None if key is None or key.phase is Phase.CALL else said for key, said in zip(keys, known, strict=True)]


def _ignore(_event: str) -> None:
    """No meter."""


def _forget(answer: asyncio.Future[list[Verdict]]) -> None:
    # A chunk whose answer nobody will read: cancelled, or its error taken note of.
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
