"""The PolicyEngine port on a real OPA server that serves the very bundle the gateway examined."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgspec

from gateway.adapters.opa.answers import Misfit, Said, unavailable
from gateway.adapters.opa.wire import OpaSettings, Wire
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Evaluation
from gateway.core.errors import TooLarge, Unavailable
from gateway.core.policy_input import MAX_BYTES

GRACE_S: Final = 60.0
# Documents of one question that are asked about at a time: a listing of 500 tools leaves room for calls.
_WIDE: Final = 8
_one_value = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class Examination:
    """What a bundle must pass before OPA is trusted with it.

    Attributes:
        passes: returns for a good bundle and raises ``BundleError`` for another.
        probe: an input document that every bundle can answer.
    """

    passes: Callable[[Bundle], Awaitable[None]]
    probe: bytes


class OpaEngine:
    """Asks OPA for ``data.gateway.main.decision``; an async context manager.

    The bundle was examined by the gateway; OPA must serve exactly that one, and every answer must say so: it names one
    bundle, whose revision is the one in force, or the one before during ``GRACE_S`` seconds after a swap.

    Failure mode, closed: another revision, several bundles, no answer in time or one that cannot be read is
    ``Unavailable``, and nothing is asked twice, unless OPA changed its bundle between the documents of one question:
    then that question is asked once more. An error of the policy itself is a fault of its input and folds to deny.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: OpaSettings,
        examination: Examination,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what OPA must serve; ``now`` tells seconds."""
        self._settings = settings
        self._examination = examination
        self._now = now
        self._bundle = bundle
        self._before: tuple[str, float] | None = None
        self._engine = "opa"
        self._wire: Wire | None = None
        self._log = logging.getLogger(__name__)

    async def __aenter__(self) -> Self:
        """Examine the bundle, open the connections and ask OPA what it serves.

        An OPA that is not there yet, or has no bundle yet, may come: the engine starts and is not ready until then. One
        that serves something else is a mistake of the set-up, which is said at once.

        Raises:
            BundleError: the bundle cannot be served; OPA serves another revision, or several bundles; the file of its
                certificate's authority cannot be read.
        """
        await self._examination.passes(self._bundle)
        try:
            self._wire = await Wire(self._settings).__aenter__()
        except OSError as error:
            raise BundleError(f"[policy.opa] ca_certificate: {error.strerror or 'no certificate'}") from None
        try:
            said = await self._wire.ask(self._examination.probe)
            self._check(said)
        except Unavailable as error:
            self._log.warning("policy: %s; nothing is decided until it answers", error.detail)
        except BaseException as error:
            await self._close()
            if isinstance(error, Misfit):
                raise BundleError(f"[policy.opa] {self._settings.url}: {error}") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._close()

    @property
    def revision(self) -> str:
        """Digest of the bundle in force."""
        return self._bundle.revision

    @property
    def engine(self) -> str:
        """Engine and version; the version is known once OPA has answered."""
        return self._engine

    async def serve(self, bundle: Bundle, allow: Callable[[], Awaitable[None]]) -> None:
        """Put another bundle in force once it was found good and ``allow`` has returned.

        Answers from the one before are good for ``GRACE_S`` seconds more. OPA gets the same bundle by its own way:
        where it is earlier, calls are ``Unavailable`` until this is done; where it is later, the one before decides.

        Raises:
            BundleError: it cannot be served; the one before stays in force, also where ``allow`` raises.
        """
        await self._examination.passes(bundle)
        await allow()
        if bundle.revision != self.revision:
            self._before = (self.revision, self._now() + GRACE_S)
            self._bundle = bundle

    async def ping(self) -> None:
        """Return when OPA evaluates a probe under the examined revision; raise ``Unavailable`` when it does not."""
        (said,) = await self._ask([self._examination.probe])
        if said.fault is not None:
            raise unavailable(f"OPA cannot answer a plain question ({said.fault})")

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:  # noqa: ARG002
        """Evaluate the input documents under one revision; see ``ports.PolicyEngine``."""
        if any(len(document) > MAX_BYTES for document in inputs):
            raise TooLarge(f"a policy input is larger than {MAX_BYTES} bytes", cause_code="policy_input")
        said = await self._ask(inputs)
        if len(_revisions(said)) > 1:
            said = await self._ask(inputs)
        revisions = _revisions(said)
        if len(revisions) > 1:
            raise unavailable("OPA changes its bundle while it is asked")
        for answer in said:
            if answer.fault is not None:
                self._log.warning("policy fault %s at %s", answer.fault, answer.place or "-")
        return Evaluation(
            tuple(answer.result for answer in said),
            tuple(answer.fault for answer in said),
            next(iter(revisions), self.revision),
            self._engine,
        )

    async def _ask(self, inputs: Sequence[bytes]) -> list[Said]:
        wire = self._wire
        if wire is None:
            raise unavailable("policy engine is not running")
        wide = asyncio.Semaphore(_WIDE)

        async def one(document: bytes) -> Said:
            if not _is_json(document):
                return Said(None, "engine.error")
            async with wide:
                return await wire.ask(document)

        # All are waited for, so that none is left behind; each has its deadline.
        found = await asyncio.gather(*map(one, inputs), return_exceptions=True)
        return [self._taken(answer) for answer in found]

    def _taken(self, answer: Said | BaseException) -> Said:
        if isinstance(answer, Misfit):
            self._log.error("policy: %s", answer)
            raise unavailable(str(answer))
        if isinstance(answer, BaseException):
            raise answer
        try:
            self._check(answer)
        except Misfit as misfit:
            return self._taken(misfit)
        return answer

    def _check(self, said: Said) -> None:
        if said.version is not None:
            self._engine = f"opa {said.version}"
        if said.revision is None or said.revision == self.revision:
            return
        if self._before is not None and self._now() < self._before[1] and said.revision == self._before[0]:
            return
        raise Misfit(f"OPA serves revision {said.revision[:64] or '(none)'}, the gateway examined {self.revision}")

    async def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.__aexit__(None, None, None)


def _revisions(said: Sequence[Said]) -> set[str]:
    return {answer.revision for answer in said if answer.revision is not None}


def _is_json(document: bytes) -> bool:
    # It becomes part of a larger document, so it must be one value by itself.
    try:
        _one_value.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
