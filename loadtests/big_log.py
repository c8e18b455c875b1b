"""A large log, written by the gateway's own writer: calls in runs, some refused, some failed, with sealed payloads."""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.storage.store import Store
from gateway.core.call import RunKind
from gateway.core.canonical import encode
from gateway.core.records import Actor, Draft, EventType, Payload, Role
from loadtests.processes import BenchmarkError

TOOLS: Final = tuple(f"{server}.{verb}" for server in ("pay", "erp", "crm", "web", "mail", "hr") for verb in (
    "find", "read", "list", "post", "update", "delete",
))  # fmt: skip
AGENTS: Final = tuple(f"agent-{number:02}" for number in range(12))
# Of a thousand decisions, how many are refused for each reason; all others are allowed.
REFUSALS: Final = {"scope.not_granted": 30, "limits.calls_per_run": 8, "payments.office_hours": 2}
START_US: Final = 1_780_000_000_000_000
_APART_US: Final = 2_000_000
_SET_BACK_US: Final = 3_600_000_000
_CALLS_A_RUN: Final = 50
_BATCH: Final = 3000


class PastClock:
    """The machine's clock, but for the time of day, which a log of a month cannot wait for."""

    def __init__(self) -> None:
        """Begins at ``START_US``."""
        self.us = START_US
        self._system = SystemClock()

    def now_us(self) -> int:
        """As last set."""
        return self.us

    def monotonic(self) -> float:
        """The machine's."""
        return self._system.monotonic()

    def uuid(self) -> str:
        """The machine's."""
        return self._system.uuid()

    def random(self, size: int) -> bytes:
        """The machine's."""
        return os.urandom(size)


@dataclass(slots=True)
class BigLog:
    """What is in the log, for asking after it.

    Attributes:
        size: records.
        end_us: the latest time.
        calls: some ids of calls.
        runs: some ids of runs.
    """

    size: int = 0
    end_us: int = START_US
    calls: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def build(folder: Path, keys: LogKeys, records: int, seed: int) -> BigLog:
    """Write a log of at least ``records`` records in ``folder``.

    Raises:
        BenchmarkError: the writer refused a record.
    """
    clock = PastClock()
    made = BigLog(size=1)
    store = Store(folder, keys, clock, 0)
    store.open()
    try:
        batch: list[Sequence[Draft]] = []
        waiting = 0
        for drafts in _runs(Scribe(clock, keys), clock, random.Random(seed), made):
            batch.append(drafts)
            waiting += len(drafts)
            if waiting >= _BATCH or made.size + waiting >= records:
                refused = [outcome for outcome in store.write(batch) if outcome is not None]
                if refused:
                    raise BenchmarkError(f"the writer refused a record: {refused[0]}")
                made.size += waiting
                batch, waiting = [], 0
            if made.size >= records:
                return made
    finally:
        store.close()
    raise BenchmarkError("the log is too short")


def _runs(scribe: Scribe, clock: PastClock, chance: random.Random, made: BigLog) -> Iterator[Sequence[Draft]]:
    while True:
        agent = chance.choice(AGENTS)
        actor = Actor(agent, "local", f"{chance.randrange(200):032x}")
        run = scribe.clock.uuid()
        if chance.random() < 0.002:
            clock.us -= _SET_BACK_US
        body = {"binding": None, "expires_us": clock.us + 3_600_000_000, "kind": RunKind.OPENED}
        drafts = [scribe.draft(EventType.RUN_STARTED, Subject(actor, run), body)]
        for _ in range(_CALLS_A_RUN):
            clock.us += chance.randrange(_APART_US)
            call = scribe.clock.uuid()
            drafts += call_records(scribe, Subject(actor, run, call), chance)
            if chance.random() < 0.01:
                made.calls.append(call)
        drafts.append(scribe.draft(EventType.RUN_ENDED, Subject(actor, run), {"reason": "ended"}))
        if chance.random() < 0.2:
            made.runs.append(run)
        made.end_us = max(made.end_us, clock.us)
        yield drafts


def call_records(scribe: Scribe, subject: Subject, chance: random.Random) -> list[Draft]:
    """The records of one call, its ending last; a few are refused, a few fail."""
    tool, drawn, least = chance.choice(TOOLS), chance.randrange(1000), 0
    for reason, count in REFUSALS.items():
        least += count
        if drawn < least:
            return [
                scribe.draft(EventType.DECISION, subject, _decision(tool, "deny", reason), _sealed(Role.REASONS, 300))
            ]
    decision = _decision(tool, "allow", "scope.granted")
    asked = {"class": "read", "connector": "mcp", "decision_id": subject.call_id, "definition": "0" * 64}
    ending = EventType.TOOL_COMPLETED if drawn < 990 else EventType.TOOL_FAILED
    return [
        scribe.draft(EventType.DECISION, subject, decision, _sealed(Role.REASONS, 300)),
        scribe.draft(
            EventType.TOOL_REQUESTED, subject, asked | {"measures": {}, "tool": tool}, _sealed(Role.REQUEST, 200)
        ),
        scribe.draft(
            ending,
            subject,
            {"is_error": False, "redactions": 0, "tool": tool, "total_us": 2000, "upstream_us": 900},
            _sealed(Role.RESULT, 400),
        ),
    ]


def _decision(tool: str, effect: str, reason: str) -> dict[str, Any]:
    return {
        "decision_id": "0" * 32,
        "effect": effect,
        "enforced": True,
        "engine": "rego",
        "input": "0" * 64,
        "phase": "call",
        "reasons": [reason],
        "requirements": [],
        "revision": "0" * 64,
        "took_us": 400,
        "tool": tool,
    }


def _sealed(role: Role, size: int) -> Payload:
    return Payload(role, encode({"text": "x" * size}))
