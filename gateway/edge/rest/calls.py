"""REST for one call: its timeline and why it ended as it did.

Auditors see the records. The agent of the run, and who opened it, see what concerns them; and of a call of a tool they
may not see they learn here what they learnt then: that there is no such tool.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from gateway.core.call import Principal
from gateway.core.custody import Seen, View
from gateway.core.desk import Desk, LogRecord
from gateway.core.errors import NotFound, UnknownTool
from gateway.core.inquiry import Query, Searched
from gateway.core.records import ENDINGS, EventType, Role, identifier
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.audit import RecordShown, shown_record
from gateway.edge.rest.routes import Asked, Operation, shown
from gateway.edge.rest.runs import is_viewer, may_see

_MAX_ID = 64
_MOST = 1000
_COMPLETED = "completed"
_PENDING = "pending"
_ADVISED = "advised"
_ENDINGS = frozenset({*ENDINGS, EventType.REQUEST_REFUSED})
# Of an error the caller gets what they were told; its cause may be an upstream's words.
_OWN_ERROR = ("code", "cause", "detail")
# What policy knew of the person and the run is the auditor's.
_FACTS = "facts"
_ROLES = (Role.REQUEST, Role.REASONS, Role.ERROR, Role.RESULT)


class Event(Model):
    """One step of a call."""

    type: str
    at_us: int


class CallShown(Model):
    """A call as those may see it whom it concerns."""

    call_id: str
    run_id: str | None
    outcome: str = Field(
        description="`completed`, `pending`, `advised` (an agent asked before it acts itself: there was no call), or "
        "the code of the error it ended with."
    )
    events: tuple[Event, ...] = ()
    payloads: dict[str, Any] = Field(default_factory=dict, description="By role; what was sealed, as far as allowed.")
    records: tuple[RecordShown, ...] = Field((), description="The log's records; for auditors only.")


class ReasonShown(Model):
    """Why policy decided as it did."""

    id: str
    package: str | None = None
    msg: str | None = None
    fact: str | None = Field(None, description="The fact that was missing or wrong.")


class CallExplained(Model):
    """Why a call ended as it did."""

    call_id: str
    run_id: str | None
    outcome: str
    message: str
    effect: str | None = None
    reasons: tuple[ReasonShown, ...] = ()


class CallRest:
    """Operations on calls that were made."""

    def __init__(self, desk: Desk) -> None:
        """Read through the desk."""
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/calls/{id}",
                "showCall",
                "A call's timeline and sealed payloads, as far as the caller may see them.",
                self.show,
                CallShown,
                refusals=(NotFound,),
            ),
            Operation(
                "GET",
                "/v1/calls/{id}/explain",
                "explainCall",
                "Why a call ended as it did: rule, message, and which fact was missing.",
                self.explain,
                CallExplained,
                refusals=(NotFound,),
            ),
        )

    async def show(self, asked: Asked) -> Reply:
        """The call's timeline."""
        call_id = asked.path["id"]
        records = await self._records(call_id, asked.visit.principal)
        outcome, run_id = _outcome(records), _run(records)
        auditor = is_auditor(asked.visit.principal)
        if outcome == UnknownTool.code and not auditor:
            return shown(CallShown(call_id=call_id, run_id=run_id, outcome=outcome))
        events = tuple(Event(type=str(record.body["type"]), at_us=record.body["ts"]) for record in records)
        payloads = {role.value: await self._desk.reader.payload(call_id, role) for role in _ROLES}
        if not auditor:
            payloads = {role: _own(role, payload) for role, payload in payloads.items()}
        await self._noted(asked, View.CALL, payloads)
        return shown(
            CallShown(
                call_id=call_id,
                run_id=run_id,
                outcome=outcome,
                events=events,
                payloads={role: value for role, value in payloads.items() if value is not None},
                records=tuple(shown_record(record) for record in records) if auditor else (),
            )
        )

    async def explain(self, asked: Asked) -> Reply:
        """The call's end and its reasons."""
        call_id = asked.path["id"]
        records = await self._records(call_id, asked.visit.principal)
        outcome, run_id = _outcome(records), _run(records)
        if outcome == UnknownTool.code and not is_auditor(asked.visit.principal):
            return shown(CallExplained(call_id=call_id, run_id=run_id, outcome=outcome, message="no such tool"))
        error = await self._desk.reader.payload(call_id, Role.ERROR)
        reasons = await self._desk.reader.payload(call_id, Role.REASONS)
        await self._noted(asked, View.EXPLANATION, {Role.ERROR: error, Role.REASONS: reasons})
        return shown(
            CallExplained(
                call_id=call_id,
                run_id=run_id,
                outcome=outcome,
                message=_message(error, outcome),
                effect=_said(records, "effect"),
                reasons=_reasons(reasons),
            )
        )

    async def _noted(self, asked: Asked, view: View, payloads: Mapping[str, Any]) -> None:
        roles = [role for role, payload in payloads.items() if payload is not None]
        principal = asked.visit.principal
        if roles and is_viewer(principal):
            seen = Seen(view, roles, {"call": identifier(asked.path["id"])})
            await self._desk.views.record(principal, seen)

    async def _records(self, call_id: str, principal: Principal) -> Sequence[LogRecord]:
        found: Sequence[LogRecord] = ()
        if len(call_id) <= _MAX_ID:
            query = Query(call_id=call_id, limit=_MOST)
            found = await self._desk.reader.search(query)
            if is_auditor(principal):  # whom the call concerns reads what is their own
                await self._desk.searches.record(principal, Searched("call", query, None, len(found)))
        if not found or not await self._concerns(found, principal):
            raise NotFound("no such call", cause_code="call")
        return found

    async def _concerns(self, records: Sequence[LogRecord], principal: Principal) -> bool:
        if is_auditor(principal):
            return True
        run_id = _run(records)
        run = None if run_id is None else await self._desk.runs.show(run_id)
        return run is not None and may_see(principal, run)


def is_auditor(principal: Principal) -> bool:
    """Whether ``principal`` may read everybody's calls. A run's token never does."""
    return bool(principal.scopes & {"audit", "admin"}) and principal.run is None


def _run(records: Sequence[LogRecord]) -> str | None:
    return next((str(record.body["run_id"]) for record in records if record.body.get("run_id")), None)


def _outcome(records: Sequence[LogRecord]) -> str:
    for record in reversed(records):
        kind = record.body["type"]
        if kind == EventType.TOOL_COMPLETED:
            return _COMPLETED
        code = _body(record).get("code")
        if kind in _ENDINGS or code is not None:  # a decision with a code is the whole record of a call policy refused
            return code if isinstance(code, str) else str(kind)
        if kind == EventType.DECISION_ADVISORY:
            return _ADVISED
    return _PENDING


def _own(role: str, payload: Any) -> Any:
    """What those see of a payload whom the call concerns."""
    if role == Role.ERROR and isinstance(payload, dict):
        return {key: payload.get(key) for key in _OWN_ERROR}
    if role == Role.REASONS and isinstance(payload, dict):
        return {key: value for key, value in payload.items() if key != _FACTS}
    return payload


def _said(records: Sequence[LogRecord], member: str) -> str | None:
    found = (_body(record).get(member) for record in records)
    return next((word for word in found if isinstance(word, str)), None)


def _body(record: LogRecord) -> Mapping[str, Any]:
    body = record.body.get("body")
    return body if isinstance(body, Mapping) else {}


def _message(error: Any, outcome: str) -> str:
    detail = error.get("detail") if isinstance(error, dict) else None
    if isinstance(detail, str):
        return detail
    said = {_COMPLETED: "the call was carried out", _ADVISED: "there was no call: the agent asked before acting itself"}
    return said.get(outcome, f"the call ended as {outcome}")


def _reasons(payload: Any) -> tuple[ReasonShown, ...]:
    found = payload.get("reasons") if isinstance(payload, dict) else None
    return tuple(_reason(reason) for reason in found) if isinstance(found, list) else ()


def _reason(reason: Any) -> ReasonShown:
    members = reason if isinstance(reason, dict) else {}
    texts = {key: members[key] for key in ("package", "msg", "fact") if isinstance(members.get(key), str)}
    return ReasonShown(id=str(members.get("id", "unknown")), **texts)
