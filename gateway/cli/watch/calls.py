"""Calls as the log tells them: records in, rows out. Pure and bounded; unknown record types are passed over."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

_PENDING_CODE = "pending"


class State(StrEnum):
    """Where a call stands."""

    RUNNING = "running"
    PENDING = "pending"
    REFUSED = "refused"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_SENT = "not_sent"
    UNKNOWN = "outcome_unknown"


@dataclass(frozen=True, slots=True)
class CallRow:
    """What is known of one call.

    Attributes:
        call_id: its id.
        index: index of the newest record it was read from.
        run_id: its run.
        at_us: time of its first record, microseconds.
        agent: who called; None for a person.
        tool: ``server.tool``; None where the name is the caller's word only.
        effect_class: what the catalogue says the tool does.
        decision: ``allow`` | ``deny`` | ``needs_approval``; None where policy was not asked.
        enforced: whether the decision binds (not so where a policy only observes).
        state: where it stands.
        code: error code it ended with.
        reason: id of the rule that decided, or of what it failed by.
        redactions: values taken out of the answer.
        took_us: how long it took; while it runs, how long the decision took.
        is_error: the tool itself said that it failed.
    """

    call_id: str
    index: int
    run_id: str | None
    at_us: int
    agent: str | None = None
    tool: str | None = None
    effect_class: str | None = None
    decision: str | None = None
    enforced: bool = True
    state: State = State.RUNNING
    code: str | None = None
    reason: str | None = None
    redactions: int = 0
    took_us: int | None = None
    is_error: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is expected of it, or only after a person's word."""
        return self.state is not State.RUNNING


class Calls:
    """The last ``keep`` calls."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._rows: OrderedDict[str, CallRow] = OrderedDict()

    def take(self, index: int, record: Mapping[str, Any]) -> CallRow | None:
        """Read one record; the row it changed, or None where it says nothing of a call."""
        reader = _READERS.get(str(record.get("type")))
        call_id = _text(record, "call_id")
        if reader is None or call_id is None or (reader in _FOLLOWING and call_id not in self._rows):
            return None
        row = self._rows.get(call_id) or _first(call_id, index, record)
        body = record.get("body")
        row = replace(row, index=index, **reader(body if isinstance(body, Mapping) else {}, row))
        self._rows[call_id] = row
        if len(self._rows) > self._keep:
            self._rows.popitem(last=False)
        return row

    def newest_first(self) -> tuple[CallRow, ...]:
        """All rows."""
        return tuple(reversed(self._rows.values()))

    def forget(self, call_id: str) -> None:
        """Drop a row; a later record of the same call begins another."""
        self._rows.pop(call_id, None)


def _first(call_id: str, index: int, record: Mapping[str, Any]) -> CallRow:
    actor = record.get("actor")
    agent = _text(actor, "agent") if isinstance(actor, Mapping) else None
    return CallRow(call_id, index, _text(record, "run_id"), _number(record, "ts") or 0, agent)


_Body = Mapping[str, Any]
_Changes = dict[str, Any]


def _decided(body: _Body, row: CallRow) -> _Changes:
    reasons = body.get("reasons")
    code = _text(body, "code")
    ended = State.RUNNING if code is None else State.PENDING if code == _PENDING_CODE else State.REFUSED
    return {
        "tool": _text(body, "tool") or row.tool,
        "decision": _text(body, "effect"),
        "enforced": body.get("enforced") is not False,
        "reason": _telling(reasons) if isinstance(reasons, list) and reasons else _text(body, "cause"),
        "code": code,
        "state": ended,
        "took_us": _number(body, "took_us"),
    }


def _telling(reasons: list[Any]) -> str:
    # That nothing allows a call is the consequence; the rule beside it says why.
    return next((str(reason) for reason in reasons if not str(reason).startswith("default.")), str(reasons[0]))


def _requested(body: _Body, row: CallRow) -> _Changes:
    return {"tool": _text(body, "tool") or row.tool, "effect_class": _text(body, "class"), "state": State.RUNNING}


def _redacted(body: _Body, row: CallRow) -> _Changes:
    rules = body.get("rules")
    counts = rules.values() if isinstance(rules, Mapping) else ()
    return {"tool": _text(body, "tool") or row.tool, "redactions": sum(n for n in counts if isinstance(n, int))}


def _completed(body: _Body, row: CallRow) -> _Changes:
    return {
        "tool": _text(body, "tool") or row.tool,
        "state": State.COMPLETED,
        "redactions": _number(body, "redactions") or 0,
        "took_us": _number(body, "total_us"),
        "is_error": body.get("is_error") is True,
    }


def _broken(state: State) -> Callable[[_Body, CallRow], _Changes]:
    def read(body: _Body, row: CallRow) -> _Changes:
        return {
            "tool": _text(body, "tool") or row.tool,
            "state": state,
            "code": _text(body, "code"),
            "reason": _text(body, "cause") or row.reason,
            "took_us": _number(body, "total_us"),
        }

    return read


def _voted(body: _Body, _row: CallRow) -> _Changes:
    said = _text(body, "state")
    if said in {None, _PENDING_CODE}:
        return {}  # more signatures are needed
    # An approved call is carried out as a call of its own.
    return {"state": State.PENDING if said == "approved" else State.REFUSED, "code": said}


def _lapsed(code: str) -> Callable[[_Body, CallRow], _Changes]:
    return lambda _body, _row: {"state": State.REFUSED, "code": code}


_EXPIRED, _VOID = _lapsed("expired"), _lapsed("void")
# What they say matters where the call itself is known; alone they are no call.
_FOLLOWING = (_voted, _EXPIRED, _VOID)
_READERS: dict[str, Callable[[_Body, CallRow], _Changes]] = {
    "decision": _decided,
    "tool.requested": _requested,
    "redaction": _redacted,
    "tool.completed": _completed,
    "tool.failed": _broken(State.FAILED),
    "tool.not_sent": _broken(State.NOT_SENT),
    "tool.outcome_unknown": _broken(State.UNKNOWN),
    "request.refused": _broken(State.REFUSED),
    "approval.decided": _voted,
    "approval.expired": _EXPIRED,
    "approval.void": _VOID,
}


def _text(source: _Body, key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None


def _number(source: _Body, key: str) -> int | None:
    value = source.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
