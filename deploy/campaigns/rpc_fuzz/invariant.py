"""No ungoverned call: the log of a gateway held against what its servers received and what its callers were told.

1. Each call that a server received has an intent of its own, with this tool and these arguments, that was durable
   before the server saw the call.
2. Each intent is of the agent whose credential the request brought, follows a decision to allow it, and is of a tool
   that policy lets this agent call.
3. Each intent ends once, and a result was handed out only for a call that is recorded as completed.
4. What had to be refused reached no server.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from deploy.campaigns.rpc_fuzz.answers import Judge
from deploy.campaigns.rpc_fuzz.case import AGENTS, MARKER, MAY_CALL
from deploy.campaigns.rpc_fuzz.upstream import Received
from gateway.core.records import ENDINGS, EventType

_REQUESTS: Final = msgspec.json.Decoder(type=dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log.

    Attributes:
        leaf: decoded.
        request: the whole request, opened, where the record has one.
    """

    index: int
    leaf: Mapping[str, Any]
    request: bytes | None = None


@dataclass(slots=True)
class _Call:
    """What the log says of one call."""

    agent: str | None = None
    allowed: bool = False
    intents: int = 0
    endings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """The log of one gateway, read through once."""

    calls: dict[str, _Call] = field(default_factory=lambda: defaultdict(_Call))
    # Indices of intents that no server has yet been seen to receive, by what they are of.
    unmatched: dict[tuple[str, bytes], list[int]] = field(default_factory=lambda: defaultdict(list))
    owners: dict[int, str | None] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def read(self, record: Record) -> None:
        """Take in the next record."""
        leaf = record.leaf
        call_id = leaf.get("call_id")
        if call_id is None:
            return
        call, body = self.calls[call_id], leaf["body"]
        if leaf["type"] == EventType.DECISION:
            call.allowed = body["effect"] == "allow"
        elif leaf["type"] == EventType.TOOL_REQUESTED:
            self._requested(record, call)
        elif leaf["type"] in ENDINGS:
            call.endings.append(leaf["type"])

    def _requested(self, record: Record, call: _Call) -> None:
        leaf, tool = record.leaf, record.leaf["body"]["tool"]
        call.agent, call.intents = leaf["actor"]["agent"], call.intents + 1
        self.owners[record.index] = call.agent
        if call.intents > 1:
            self.wrong.append(f"call {leaf['call_id']} has two intents")
        if not call.allowed:
            self.wrong.append(f"call {leaf['call_id']} of {tool} has an intent, and no earlier decision allows it")
        if tool not in MAY_CALL.get(call.agent or "", frozenset()):
            self.wrong.append(f"call {leaf['call_id']} has an intent of {tool}, which {call.agent} may not call")
        if record.request is not None:
            self.unmatched[tool, bytes(_REQUESTS.decode(record.request)["arguments"])].append(record.index)


def violations(records: Iterator[Record], journal: Sequence[Received], judge: Judge) -> list[str]:
    """Whatever breaks the invariant, a sentence each."""
    ledger = Ledger()
    for record in records:
        ledger.read(record)
    return [
        *ledger.wrong,
        *_of_journal(ledger, journal),
        *_of_calls(ledger, judge),
        *_of_refusals(journal, judge),
    ]


def _of_journal(ledger: Ledger, journal: Sequence[Received]) -> Iterator[str]:
    for received in journal:
        waiting = ledger.unmatched[received.tool, received.arguments]
        intent = next((index for index in waiting if index < received.log_size), None)
        if intent is None:
            yield f"{received.tool} received {received.arguments[:200]!r} without an earlier durable intent of its own"
            continue
        waiting.remove(intent)
        agent = ledger.owners[intent]
        for found in MARKER.finditer(received.arguments.decode("utf-8", "replace")):
            if found[1].lower() != agent:
                yield f"{received.tool} received {found[0]} under an intent of {agent}"


def _of_calls(ledger: Ledger, judge: Judge) -> Iterator[str]:
    for call_id, call in ledger.calls.items():
        if not call.intents:
            continue
        if len(call.endings) != 1:
            yield f"call {call_id} has {len(call.endings)} endings"
        who = judge.calls.get(call_id)
        if who is not None and (who not in AGENTS or who != call.agent):
            yield f"call {call_id} was sent by {who} and is recorded as one of {call.agent}"
    for call_id in judge.completed:
        if ledger.calls[call_id].endings != [EventType.TOOL_COMPLETED]:
            yield f"call {call_id} was answered, and the log says {ledger.calls[call_id].endings}"


def _of_refusals(journal: Sequence[Received], judge: Judge) -> Iterator[str]:
    for received in journal:
        for found in MARKER.finditer(received.arguments.decode("utf-8", "replace")):
            if found[0] in judge.refused:
                yield f"{received.tool} received what had to be refused:\n    {judge.refused[found[0]]}"
