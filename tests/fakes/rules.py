"""Fake policy engine, limits and meter."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.core.call import Permit, Quota
from gateway.core.decision import Evaluation
from gateway.core.errors import Throttled, Unavailable
from tests.fakes.journal import Journal

ALLOW: dict[str, Any] = {
    "allow": {"test": [{"id": "test.allow", "msg": "the test allows it"}]},
    "deny": {},
    "hint": {},
    "require": {},
    "oblige": {},
}
DENY: dict[str, Any] = ALLOW | {"deny": {"test": [{"id": "test.deny", "msg": "the test denies it"}]}}
SILENT: dict[str, Any] = ALLOW | {"allow": {}}
APPROVAL: dict[str, Any] = ALLOW | {"require": {"test": [{"id": "test.approval", "msg": "a person must agree"}]}}


@dataclass(slots=True)
class FakePolicy:
    """Answers each question by its phase and tool, ``words``, and otherwise allows it.

    Attributes:
        words: exported sets by (phase, ``server.tool``).
        faults: engine faults by (phase, ``server.tool``).
        deadly: documents, by (phase, ``server.tool``), that take the engine down with their whole question.
        asked: the input documents, decoded, in the order they came.
        questions: how many times the engine was asked.
        remembers: whether it knows without being asked what it says of calls of tools that may be known of.
    """

    journal: Journal
    words: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    deadly: set[tuple[str, str]] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)
    questions: int = 0
    remembers: bool = False

    def known(self, about: bytes) -> Evaluation | None:
        """The scripted words on a call, where it remembers them."""
        tool = str(msgspec.json.decode(about)["tool"]["fqn"])
        keys = (("list", tool), ("call", tool))
        if not self.remembers or self.faults.keys() & keys or self.words.get(keys[0], ALLOW) is not ALLOW:
            return None
        said = msgspec.json.encode(self.words.get(keys[1], ALLOW))
        return Evaluation((said,), (None,), revision="0" * 64, engine="fake")

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """The scripted words on each input."""
        await self.journal.reach("policy.evaluate")
        self.questions += 1
        documents = [msgspec.json.decode(document) for document in inputs]
        self.asked += documents
        keys = [(str(document["phase"]), str(document["tool"]["fqn"])) for document in documents]
        if self.deadly.intersection(keys):
            raise Unavailable("policy could not be evaluated", retry_after=1, cause_code="policy_unavailable")
        faults = tuple(self.faults.get(key) for key in keys)
        results = tuple(
            msgspec.json.encode(self.words.get(key, ALLOW)) if fault is None else None
            for key, fault in zip(keys, faults, strict=True)
        )
        return Evaluation(results, faults, revision="0" * 64, engine="fake")

    async def ping(self) -> None:
        """Reach the step ``policy.ping``."""
        await self.journal.reach("policy.ping")


@dataclass(slots=True)
class FakeLimits:
    """Room for ``room`` calls at a time; ``held`` counts those inside."""

    journal: Journal
    room: int = 1000
    held: int = 0

    @asynccontextmanager
    async def spend(self, permit: Permit) -> AsyncIterator[Quota]:
        """A place, given back on exit."""
        await self.journal.reach("limits.spend")
        if self.held >= self.room:
            raise Throttled("too many calls", retry_after=1)
        self.held += 1
        try:
            yield Quota(permit)
        finally:
            self.held -= 1
            self.journal.note("limits.returned")


@dataclass(slots=True)
class FakeMeter:
    """Counts by name."""

    counts: Counter[str] = field(default_factory=Counter)

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """Count ``called:tool:outcome``."""
        self.counts[f"called:{tool}:{outcome}"] += 1

    def decided(self, effect: str, reason: str, seconds: float) -> None:
        """Count ``decided:effect:reason``."""
        self.counts[f"decided:{effect}:{reason}"] += 1

    def unauthenticated(self, code: str) -> None:
        """Count ``unauthenticated:code``."""
        self.counts[f"unauthenticated:{code}"] += 1


@dataclass(slots=True)
class FakePace:
    """Holds nobody; notes whom it would have held."""

    journal: Journal
    held: int = 0

    def begin(self) -> float:
        """No moment in particular."""
        return 0.0

    async def beat(self, began: float) -> None:
        """Count whoever is to wait."""
        self.held += 1
        await self.journal.reach("pace.beat")
