"""The invariant, checked from the log, the upstreams' journals and what callers were told; nothing else is believed.

1. Every request an upstream received has its own earlier durable intent, of a call that was permitted.
2. No intent reached its upstream twice.
3. Every intent has one ending; after a restart none is open.
4. What ended as not sent was not received; what ended as completed was.
5. An answer with a result is the one that is durable as its call's completion.
6. Who was told that nothing was done was told the truth, and a refusal is on record.
7. A limit over a run holds over all its calls, however they met.
8. No caller sees the upstream's credential.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from deploy.campaigns.faults.plan import PAY_LIMIT, Kind, Plan
from gateway.core.records import ENDINGS, EventType

CREDENTIAL: Final = "upstream-key-3f1c77"
# The only errors after which an effect may have happened.
_UNSURE: Final = frozenset({"outcome_unknown", "tool_failed", "tainted"})
# What may be told without a record: the caller is nobody, or the log itself is what failed.
_UNRECORDED: Final = frozenset({"unauthenticated", "unavailable", "outcome_unknown"})
_STATELESS_HEAD: Final = b'{"resultType":"complete",'


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log.

    Attributes:
        leaf: decoded.
        payloads: opened, by role.
    """

    index: int
    leaf: Mapping[str, Any]
    payloads: Mapping[str, bytes]

    @property
    def type(self) -> str:
        """What happened."""
        return str(self.leaf["type"])


@dataclass(frozen=True, slots=True)
class Received:
    """A request an upstream received.

    Attributes:
        tool: the upstream's own name for it.
        log_size: records that were durable at that moment; -1 where only the time is known.
        at_us: when.
    """

    marker: str
    tool: str
    log_size: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller was told.

    Attributes:
        code: ``completed``, or an error's code.
        call_id: the call's id, None where none was given.
        result: bytes of the result, where there is one.
        body: the whole answer.
    """

    marker: str
    code: str
    call_id: str | None
    result: bytes | None
    body: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A call that was about to leave, and how the log says it ended."""

    record: Record
    marker: str
    tool: str
    endings: tuple[Record, ...]

    @property
    def ending(self) -> str:
        """Type of its one ending; empty where that is not so."""
        return self.endings[0].type if len(self.endings) == 1 else ""


@dataclass(slots=True)
class Evidence:
    """All there is to judge a run by.

    Attributes:
        records: the log, in order, after the restart.
        received: the journals of all upstreams.
        told: the callers' answers.
        intents: by marker; made from the records.
    """

    plan: Plan
    records: Sequence[Record]
    received: Sequence[Received]
    told: Sequence[Told]
    intents: dict[str, Intent] = field(init=False)

    def __post_init__(self) -> None:
        """Find the intents."""
        self.intents = {intent.marker: intent for intent in self._found()}

    def _found(self) -> Iterator[Intent]:
        for record in self.records:
            if record.type == EventType.TOOL_REQUESTED:
                call = record.leaf["call_id"]
                request = msgspec.json.decode(record.payloads["request"])
                endings = [other for other in self.records if other.leaf["call_id"] == call and other.type in ENDINGS]
                marker = str(request["arguments"].get("marker"))
                yield Intent(record, marker, str(request["tool"]), tuple(endings))


def violations(evidence: Evidence) -> list[str]:
    """Whatever breaks the invariant, a sentence each."""
    return [
        *_of_intents(evidence),
        *_of_requests(evidence),
        *_of_endings(evidence),
        *_of_limits(evidence),
        *(broken for told in evidence.told for broken in _of_answer(told, evidence)),
    ]


def _of_intents(evidence: Evidence) -> Iterator[str]:
    planned = {call.marker: call for call in evidence.plan.calls}
    requested = [record for record in evidence.records if record.type == EventType.TOOL_REQUESTED]
    if len(requested) != len(evidence.intents):
        yield "two intents carry the same marker"
    for intent in evidence.intents.values():
        call = planned.get(intent.marker)
        if call is None or call.kind is not Kind.PERMITTED or call.tool != intent.tool:
            yield f"{intent.marker}: an intent of {intent.tool} that nobody may have"
        if len(intent.endings) != 1:
            yield f"{intent.marker}: an intent with {len(intent.endings)} endings"
        if not _was_allowed(intent, evidence.records):
            yield f"{intent.marker}: no earlier decision allows the intent"


def _was_allowed(intent: Intent, records: Sequence[Record]) -> bool:
    mine = [r for r in records[: intent.record.index] if r.leaf["call_id"] == intent.record.leaf["call_id"]]
    return [r.leaf["body"]["effect"] for r in mine if r.type == EventType.DECISION] == ["allow"]


def _of_requests(evidence: Evidence) -> Iterator[str]:
    for marker, times in Counter(request.marker for request in evidence.received).items():
        if times > 1:
            yield f"{marker}: reached the upstream {times} times"
    for request in evidence.received:
        intent = evidence.intents.get(request.marker)
        if intent is None:
            yield f"{request.marker}: reached {request.tool} without an intent"
        elif intent.tool.partition(".")[2] != request.tool:
            yield f"{request.marker}: reached {request.tool}, its intent is of {intent.tool}"
        elif not _is_earlier(intent, request):
            yield f"{request.marker}: reached {request.tool} before its intent was durable"


def _is_earlier(intent: Intent, request: Received) -> bool:
    if request.log_size >= 0:
        return intent.record.index < request.log_size
    return bool(intent.record.leaf["ts"] <= request.at_us)


def _of_endings(evidence: Evidence) -> Iterator[str]:
    reached = {request.marker for request in evidence.received}
    for intent in evidence.intents.values():
        if intent.ending == EventType.TOOL_NOT_SENT and intent.marker in reached:
            yield f"{intent.marker}: recorded as not sent, and the upstream received it"
        noted = intent.tool != "books.find"  # a database keeps no journal of what was read
        if intent.ending == EventType.TOOL_COMPLETED and noted and intent.marker not in reached:
            yield f"{intent.marker}: recorded as completed, and the upstream never received it"
        # A statement that fails is rolled back.
        failed = intent.ending == EventType.TOOL_FAILED and intent.tool.startswith("books.")
        if failed and intent.marker in reached:
            yield f"{intent.marker}: recorded as failed, and the database has its row"


def _of_limits(evidence: Evidence) -> Iterator[str]:
    spent: Counter[tuple[str, str]] = Counter()
    for intent in evidence.intents.values():
        spent[str(intent.record.leaf["run_id"]), intent.tool] += intent.record.leaf["body"]["measures"].get(
            "amount.EUR", 0
        )
    for (run, tool), amount in spent.items():
        if amount > PAY_LIMIT:
            yield f"run {run} spent {amount} by {tool}, over its limit of {PAY_LIMIT}"


def _of_answer(told: Told, evidence: Evidence) -> Iterator[str]:
    if CREDENTIAL in told.body:
        yield f"{told.marker}: the answer shows the upstream's credential"
    if told.code == "completed":
        yield from _of_result(told, evidence.intents.get(told.marker))
    elif told.code == "internal":
        yield f"{told.marker}: the gateway failed unexpectedly: {told.body[:200]}"
    elif told.code not in _UNSURE:
        if any(request.marker == told.marker for request in evidence.received):
            yield f"{told.marker}: told {told.code}, and the upstream received it"
        if told.code == "not_sent" and _ending(told, evidence) != EventType.TOOL_NOT_SENT:
            yield f"{told.marker}: told not_sent, which the log does not say"
    if told.code not in _UNRECORDED and not any(r.leaf["call_id"] == told.call_id for r in evidence.records):
        yield f"{told.marker}: told {told.code}, and the log knows nothing of the call"


def _ending(told: Told, evidence: Evidence) -> str:
    intent = evidence.intents.get(told.marker)
    return "" if intent is None else intent.ending


def _of_result(told: Told, intent: Intent | None) -> Iterator[str]:
    if intent is None or intent.ending != EventType.TOOL_COMPLETED:
        yield f"{told.marker}: an answer was given, and its completion is not durable"
        return
    kept = intent.endings[0].payloads["result"]
    # The stateless era adds one member to a result that lacks it.
    same = {hashlib.sha256(form).digest() for form in (kept, _STATELESS_HEAD + kept[1:])}
    if told.result is None or hashlib.sha256(told.result).digest() not in same:
        yield f"{told.marker}: the answer is not the result that was recorded"
    if told.call_id != intent.record.leaf["call_id"]:
        yield f"{told.marker}: the answer names another call"
