"""The PolicyEngine port on a real OPA server that serves the very bundle the gateway examined."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgspec

from gateway.adapters.opa.answers import Misfit, Said, stranger, unavailable
from gateway.adapters.opa.sockets import exposed
from gateway.adapters.opa.wire import OpaSettings, Wire
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Evaluation, fold
from gateway.core.errors import TooLarge, Unavailable
from gateway.core.policy_input import MAX_BYTES

GRACE_S: Final = 60.0
# Longest OPA may take to say what it holds, with all syntax trees; asked once a connection, not for each question.
HELD_S: Final = 5.0
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
    bundle, whose revision is the one in force, or the one before during ``GRACE_S`` seconds after a swap. A file that
    OPA was started with beside the bundle would speak under its revision, too: so OPA is asked for all it holds, once
    for each revision and whenever a connection was made, as it may have been started anew.

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
        self._before: tuple[Bundle, float] | None = None
        self._engine = "opa"
        self._compared: set[tuple[str, int]] = set()
        self._comparing = asyncio.Lock()
        self._wire: Wire | None = None
        self._log = logging.getLogger(__name__)

    async def __aenter__(self) -> Self:
        """Examine the bundle, open the connections and ask OPA what it serves.

        An OPA that is not there yet, or has no bundle yet, may come: the engine starts and is not ready until then. One
        that serves something else is a mistake of the set-up, which is said at once.

        Raises:
            BundleError: the bundle cannot be served; OPA serves another revision, several bundles, or more than the
                bundle; the file of its certificate's authority cannot be read.
        """
        await self._examination.passes(self._bundle)
        if why := exposed(self._settings.url):
            self._log.warning("policy: others may answer in OPA's place, as %s", why)
        try:
            self._wire = await Wire(self._settings).__aenter__()
        except OSError as error:
            raise BundleError(f"[policy.opa] ca_certificate: {error.strerror or 'no certificate'}") from None
        try:
            said = await self._wire.ask(self._examination.probe)
            self._check(said)
            await self._compare(self._wire, said.revision or "")
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
            self._before = (self._bundle, self._now() + GRACE_S)
            self._bundle = bundle

    async def ping(self) -> None:
        """Return when OPA evaluates a probe under the examined revision; raise ``Unavailable`` when it does not."""
        probe = self._examination.probe
        try:
            evaluation = await self._evaluated([probe])
            await self._held_to(evaluation.revision, again=True)
        except Misfit as misfit:
            raise unavailable(str(misfit)) from None
        (said,) = fold("ping", [probe], evaluation)
        if said.faulty:
            raise unavailable(f"OPA cannot answer a plain question ({said.reasons[0].id})")

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:  # noqa: ARG002
        """Evaluate the input documents under one revision; see ``ports.PolicyEngine``."""
        if any(len(document) > MAX_BYTES for document in inputs):
            raise TooLarge(f"a policy input is larger than {MAX_BYTES} bytes", cause_code="policy_input")
        try:
            return await self._evaluated(inputs)
        except Misfit as misfit:
            # Its words are for the operator: they hold names and paths of OPA's.
            self._log.error("policy: %s", misfit)
            raise unavailable("OPA serves another policy than the gateway examined") from None

    def known(self, about: bytes) -> Evaluation | None:  # noqa: ARG002
        """Nothing: OPA is asked each time."""
        return None

    async def _evaluated(self, inputs: Sequence[bytes]) -> Evaluation:
        said = await self._ask(inputs)
        if len(_revisions(said)) > 1:
            said = await self._ask(inputs)
        revisions = _revisions(said)
        if len(revisions) > 1:
            raise unavailable("OPA changes its bundle while it is asked")
        if revisions:
            await self._held_to(*revisions)
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
        wide, failed = asyncio.Semaphore(_WIDE), asyncio.Event()

        async def one(document: bytes) -> Said:
            if not _is_json(document):
                return Said(None, "engine.error")
            async with wide:
                if failed.is_set():
                    raise unavailable("OPA failed on another document of the question")
                try:
                    return await wire.ask(document)
                except BaseException:
                    failed.set()
                    raise

        # All are waited for, so that none is left behind; each has its deadline, and after one without an answer those
        # that wait are not asked at all: a listing would hold an OPA that hangs for as many deadlines.
        found = await asyncio.gather(*map(one, inputs), return_exceptions=True)
        return [self._taken(answer) for answer in found]

    def _taken(self, answer: Said | BaseException) -> Said:
        if isinstance(answer, BaseException):
            raise answer
        self._check(answer)
        return answer

    def _check(self, said: Said) -> None:
        if said.version is not None:
            self._engine = f"opa/{said.version}"
        if said.revision is None or said.revision == self.revision:
            return
        before = self._previous()
        if before is not None and said.revision == before.revision:
            return
        raise Misfit(f"OPA serves revision {_shown(said.revision)}, the gateway examined {self.revision}")

    def _previous(self) -> Bundle | None:
        return self._before[0] if self._before is not None and self._now() < self._before[1] else None

    async def _held_to(self, revision: str, *, again: bool = False) -> None:
        wire = self._wire
        if wire is None:
            raise unavailable("policy engine is not running")
        if (revision, wire.dialled) in self._compared and not again:
            return
        try:
            async with asyncio.timeout(HELD_S), self._comparing:
                if again or (revision, wire.dialled) not in self._compared:
                    await self._compare(wire, revision)
        except TimeoutError:
            raise unavailable("OPA does not say what policy it holds") from None

    async def _compare(self, wire: Wire, revision: str) -> None:
        # The one before counts as well: OPA may change its bundle right now, to another one that was examined.
        before, dialled = self._previous(), wire.dialled
        examined = [[module.text for module in bundle.modules] for bundle in (self._bundle, before) if bundle]
        try:
            wrong = stranger(await wire.held(HELD_S), *examined)
            if wrong is not None:
                raise Misfit(wrong)
        except BaseException:
            self._compared.clear()
            raise
        self._compared = {one for one in self._compared if one[1] == dialled} | {(revision, dialled)}

    async def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.__aexit__(None, None, None)


def _revisions(said: Sequence[Said]) -> set[str]:
    return {answer.revision for answer in said if answer.revision is not None}


def _shown(revision: str) -> str:
    # It may be anything, and goes to terminals.
    return revision if re.fullmatch("[0-9a-f]{1,64}", revision) else repr(revision[:64]) if revision else "(none)"


def _is_json(document: bytes) -> bool:
    # It becomes part of a larger document, so it must be one value by itself.
    try:
        _one_value.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
