"""Every implementation of the PolicyEngine port, each serving a bundle that a test gives it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Protocol

import pytest

from deploy.campaigns.policy_diff.oracle import Oracle, Spoken, python
from deploy.servers.opa import opa
from gateway.adapters.opa import Examination, OpaEngine, OpaSettings
from gateway.adapters.rego.bundles.building import bundle_archive
from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle
from gateway.core.decision import Decision, Evaluation, fold
from gateway.core.errors import TooLarge, Unavailable
from gateway.core.policy_input import MAX_BYTES
from gateway.core.ports import PolicyEngine
from gateway.parts.engines import examined
from tests.opa import required
from tests.oracles import NO_ORACLE
from tests.rego_demo import SETTINGS

KINDS = ("embedded", "opa over TCP", "opa over a Unix socket", "oracle")
# Generous, as the machine that runs the tests is busy; where a deadline is the point, the test sets its own.
PATIENT = OpaSettings("", deadline_s=5.0, queue_wait_s=20.0)


class Served(PolicyEngine, Protocol):
    """An engine that says what it serves."""

    @property
    def engine(self) -> str:
        """Engine and version."""

    @property
    def revision(self) -> str:
        """Digest of the bundle in force."""


class OracleEngine:
    """OPA in a child process, as an engine. It has no deadline, so it serves tests only."""

    engine = "opa library"

    def __init__(self, oracle: Oracle, bundle: Bundle) -> None:
        self._oracle = oracle
        self._lock = asyncio.Lock()
        self._is_open = True
        self.revision = bundle.revision
        oracle.load(bundle)

    def close(self) -> None:
        """Answer nothing from now on."""
        self._is_open = False

    async def ping(self) -> None:
        """A probe is answered."""
        await self.evaluate("ping", PROBES[:1])

    def known(self, about: bytes) -> None:
        """Nothing."""

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """What OPA says to each."""
        if not self._is_open:
            raise Unavailable("policy engine is not running", cause_code="policy_unavailable")
        if any(len(document) > MAX_BYTES for document in inputs):
            raise TooLarge("a policy input is too large")
        async with self._lock:
            said = [await asyncio.to_thread(self._ask, document) for document in inputs]
        return Evaluation(
            tuple(one.result for one in said), tuple(one.fault for one in said), self.revision, self.engine
        )

    def _ask(self, document: bytes) -> Spoken:
        try:
            json.loads(document)
        except (ValueError, RecursionError):
            return Spoken(None, "engine.error")
        return self._oracle.ask(document)


@contextmanager
def opa_serving(bundle: Bundle, *, unix: bool = False) -> Iterator[OpaEngine]:
    """A real OPA that serves the bundle, and the engine before it, not entered yet."""
    required()
    with opa({"ostiary": bundle_archive(bundle)}, unix=unix) as server:
        yield engine_at(server.url, bundle)


def engine_at(url: str, bundle: Bundle, settings: OpaSettings = PATIENT) -> OpaEngine:
    """The engine before whatever answers at ``url``."""
    return OpaEngine(bundle, replace(settings, url=url), Examination(passes, PROBES[0]))


async def passes(bundle: Bundle) -> None:
    """The examination the gateway makes."""
    await examined(bundle, SETTINGS)


@asynccontextmanager
async def serving_on(kind: str, bundle: Bundle) -> AsyncIterator[Served]:
    """An engine of that kind, running."""
    if kind == "embedded":
        async with RegoEngine(bundle, SETTINGS) as embedded:
            yield embedded
    elif kind == "oracle":
        if not python().exists():
            pytest.skip(NO_ORACLE)
        with Oracle() as oracle:
            engine = OracleEngine(oracle, bundle)
            yield engine
            engine.close()
    else:
        with opa_serving(bundle, unix=kind.endswith("socket")) as served:
            async with served:
                yield served


async def decide(engine: PolicyEngine, *inputs: bytes) -> list[Decision]:
    """The engine's decisions."""
    return fold("d", inputs, await engine.evaluate("d", inputs))
