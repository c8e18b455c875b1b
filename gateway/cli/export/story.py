"""What the records of an export tell, gathered for a reader: runs, the calls in each, who approved, and totals."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.export.collecting import Row
from gateway.core.errors import Pending

# A page is for reading: what is beyond is in records.jsonl, and the page says so.
MAX_CALLS = 2000
MAX_RUNS = 500
MAX_EVENTS = 1000
_MARK = 8
_ENDINGS = {
    "tool.completed": "completed",
    "tool.failed": "failed",
    "tool.not_sent": "not sent",
    "tool.outcome_unknown": "outcome unknown",
}
# What becomes of a call that waits; by the state that the record leads to.
_LEFT: Mapping[str, Mapping[str | None, str]] = {
    "approval.decided": {"approved": "approved, and made as a call of its own", "rejected": "rejected by people"},
    "approval.expired": {None: "nobody decided in time"},
    "approval.void": {None: "approved in vain: it could not be made any more"},
}


@dataclass(slots=True)
class Told:
    """One call.

    Attributes:
        at_us: of its first record.
        said: (what, text) of what was opened: reasons in sentences, arguments, errors.
        notes: what happened besides, e.g. a credential that was minted.
    """

    at_us: int
    call: str
    agent: str | None = None
    tool: str | None = None
    effect: str | None = None
    rules: list[str] = field(default_factory=list)
    approval: str | None = None
    outcome: str | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RunTold:
    """One run."""

    id: str
    started_us: int | None = None
    goal: str | None = None
    ended: str | None = None
    ended_us: int | None = None
    calls: dict[str, Told] = field(default_factory=dict)


@dataclass(slots=True)
class Word:
    """What a reviewer said of an approval."""

    at_us: int
    verdict: str
    who: str
    key: str


@dataclass(slots=True)
class Story:
    """Takes records in log order; what it keeps of runs, calls and events is bounded, totals are over all of them.

    Attributes:
        left_out: how many of what are not shown: ``runs`` that began, ``calls`` that were decided, ``events``.
        events: (time, type, what) of what happened beside the runs.
    """

    runs: dict[str, RunTold] = field(default_factory=dict)
    words: dict[str, list[Word]] = field(default_factory=dict)
    events: list[tuple[int, str, str]] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)
    first_us: int | None = None
    last_us: int | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    _kept: int = 0
    _people: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take a record."""
        record = row.record
        opened = {one.role: one.content for one in row.payloads}
        self.totals["records"] += 1
        self.first_us = record["ts"] if self.first_us is None else min(self.first_us, record["ts"])
        self.last_us = max(self.last_us or 0, record["ts"])
        if record["type"] == "reviewer.enrolled":
            self._people[record["body"]["key"]] = _person(record["body"], opened)
        if record["type"] == "approval.decided":
            self._decided(record)
        if record["run_id"] is None:
            self._event(record)
        else:
            self._of_run(record, opened)

    def _event(self, record: Mapping[str, Any]) -> None:
        if len(self.events) < MAX_EVENTS:
            self.events.append((record["ts"], record["type"], _what(record)))
        else:
            self.left_out["events"] += 1

    def _of_run(self, record: Mapping[str, Any], opened: Mapping[str, bytes]) -> None:
        take, run = _OF_RUNS.get(record["type"]), self.runs.get(record["run_id"])
        if run is None and len(self.runs) < MAX_RUNS:
            run = self.runs[record["run_id"]] = RunTold(record["run_id"])
        if take is None and record["call_id"] is not None:
            self._call(run, record, opened)
        elif run is None:
            self.left_out["runs"] += record["type"] == "run.started"
        elif take is not None:
            take(run, record, opened)

    def _decided(self, record: Mapping[str, Any]) -> None:
        body = record["body"]
        self.totals[f"verdict {body['verdict']}"] += 1
        who = self._people.get(body["key"]) or f"person {body['person'][:_MARK]}"
        self.words.setdefault(body["approval"], []).append(Word(record["ts"], body["verdict"], who, body["key"]))

    def _call(self, run: RunTold | None, record: Mapping[str, Any], opened: Mapping[str, bytes]) -> None:
        self._count(record)
        call = None if run is None else run.calls.get(record["call_id"])
        if call is None:
            if run is None or self._kept >= MAX_CALLS:
                self.left_out["calls"] += record["type"] in {"decision", "decision.advisory", "request.refused"}
                return
            self._kept += 1
            call = run.calls[record["call_id"]] = Told(record["ts"], record["call_id"])
        _tell(call, record, opened)

    def _count(self, record: Mapping[str, Any]) -> None:
        kind, body = record["type"], record["body"]
        if kind == "decision":
            self.totals[f"effect {body['effect']}"] += 1
            self.revisions[body["revision"]] += 1
        elif kind == "redaction":
            self.totals["redactions"] += sum(body["rules"].values())
        else:
            self.totals[kind] += 1


def _tell(call: Told, record: Mapping[str, Any], opened: Mapping[str, bytes]) -> None:
    kind, body = record["type"], record["body"]
    call.agent = record["actor"]["agent"] or call.agent
    call.tool = body.get("tool") or call.tool
    call.approval = body.get("approval") or call.approval
    if kind == "decision.advisory":
        call.effect, call.rules = body["effect"], list(dict.fromkeys([*body["reasons"], *body["requirements"]]))
        call.outcome = f"no call: its agent asked before acting itself, and was told {body['answer']}"
    elif kind == "decision":
        call.effect, call.rules = body["effect"], list(dict.fromkeys([*body["reasons"], *body["requirements"]]))
        call.outcome = _refused(body["code"]) if "code" in body else call.outcome
    elif kind in _ENDINGS:
        fault = ", the tool said it failed" if body.get("is_error") else ""
        call.outcome = _ENDINGS[kind] + (f" ({body['code']})" if "code" in body else fault)
    elif kind == "request.refused":
        call.outcome = _refused(body["code"])
    elif kind in _LEFT:
        call.outcome = _LEFT[kind].get(body.get("state"), call.outcome)
    elif kind not in {"tool.requested", "approval.requested"}:
        call.notes.append(kind)
    call.said += [(what, text) for role, content in opened.items() for what, text in _words(role, content)]


def _refused(code: str) -> str:
    return "waits for people" if code == Pending.code else f"refused ({code})"


def _words(role: str, content: bytes) -> list[tuple[str, str]]:
    try:
        said = json.loads(content)
        read = _READERS.get(role)
        return [] if read is None else read(said)
    except (ValueError, KeyError, TypeError, AttributeError):
        return [(role, "is of another form than this page can show")]


def _request(said: dict[str, Any]) -> list[tuple[str, str]]:
    name = [] if said.get("tool") is None else [("asked for", str(said["tool"]))]
    head = said.get("arguments_head")
    return [*name, ("arguments", head or json.dumps(said.get("arguments"), ensure_ascii=False))]


def _reasons(said: dict[str, Any]) -> list[tuple[str, str]]:
    if "reason" in said:
        return [("reviewer's reason", str(said["reason"]))]
    return [("reason", f"{one['id']}: {one['msg']}") for one in said["reasons"]]


def _error(said: dict[str, Any]) -> list[tuple[str, str]]:
    return [("error", " - ".join(str(said[name]) for name in ("detail", "because") if name in said))]


def _result(said: dict[str, Any]) -> list[tuple[str, str]]:
    texts = [one["text"] for one in said.get("content", ()) if "text" in one]
    return [("answer", " ".join(texts) or json.dumps(said.get("structuredContent", said), ensure_ascii=False))]


_READERS: Mapping[str, Callable[[dict[str, Any]], list[tuple[str, str]]]] = {
    "request": _request,
    "reasons": _reasons,
    "error": _error,
    "result": _result,
}


def _started(run: RunTold, record: Mapping[str, Any], opened: Mapping[str, bytes]) -> None:
    run.started_us = record["ts"]
    try:
        run.goal = json.loads(opened.get("run", b"{}")).get("goal")
    except (ValueError, AttributeError):
        run.goal = None


def _ended(run: RunTold, record: Mapping[str, Any], opened: Mapping[str, bytes]) -> None:  # noqa: ARG001 - as _started
    run.ended, run.ended_us = str(record["body"].get("reason")), record["ts"]


_OF_RUNS: Mapping[str, Callable[[RunTold, Mapping[str, Any], Mapping[str, bytes]], None]] = {
    "run.started": _started,
    "run.ended": _ended,
}


def _person(body: Mapping[str, Any], opened: Mapping[str, bytes]) -> str:
    try:
        return str(json.loads(opened["change"])["person"])
    except (ValueError, KeyError, TypeError):
        return f"person {body['person'][:_MARK]}"


def _what(record: Mapping[str, Any]) -> str:
    told = ("action", "key", "enrolled_by", "roles", "revision", "engine", "code", "cause", "tool")
    body = record["body"]
    return ", ".join(f"{name} {_short(body[name])}" for name in told if body.get(name))


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
