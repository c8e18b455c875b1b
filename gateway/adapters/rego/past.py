"""A bundle that was in force, evaluated once more: as it was, whatever today's lint says of it, and from no memory.

For replays only. The policy of the past was examined when it came into force; were it held to rules that came later, a
new version of the gateway could not look back. What it does to its worker is bounded as ever.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.adapters.rego.frames import Verdict
from gateway.adapters.rego.link import Question
from gateway.adapters.rego.pool import Pool
from gateway.adapters.rego.settings import EngineSettings
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Evaluation
from gateway.core.errors import Unavailable


@dataclass(frozen=True, slots=True)
class PastEngine:
    """Evaluates each document by itself, so that one that kills the worker takes no other along."""

    _pool: Pool

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """The word of the policy on each document; where one hangs or kills the worker, that is a fault of this one."""
        questions = [self._pool.ask(decision_id, [(b"", document)]) for document in inputs]
        said = [await _answer(question) for question in questions]
        results, faults = tuple(one.result for one in said), tuple(one.fault for one in said)
        return Evaluation(results, faults, self._pool.bundle.revision, self._pool.engine)


async def _answer(question: Question) -> Verdict:
    try:
        (verdict,) = await question.answer
    except Unavailable:
        return Verdict(None, "engine.unavailable")
    return verdict


@asynccontextmanager
async def served(bundle: Bundle, settings: EngineSettings) -> AsyncIterator[PastEngine]:
    """``bundle``, on a worker of its own.

    Raises:
        BundleError: the engine cannot load it.
    """
    pool = Pool(bundle, settings.pool(), lambda _event: None)
    try:
        await pool.start()
    except OSError as error:
        raise BundleError(f"no policy worker could be started: {error}") from None
    try:
        yield PastEngine(pool)
    finally:
        await pool.close()
