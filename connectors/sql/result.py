"""What a statement brings, whichever database it ran on: rows as JSON, or how it failed.

A result is ``{"rows": [{column: value}], "row_count": n}``, for writes with ``changed``, and the same as text. NULL is
null; an integer beyond 2^53 is a string, as clients would round it; floats are floats. Bytes and infinite numbers are
refused. More rows or bytes than allowed is a failure, never a shortened result. A violated constraint is a result the
model can act on (``isError``); everything was rolled back.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from connectors.sql.binding import Mode, Statement
from gateway.core.canonical import MAX_SAFE_INTEGER
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed

_ENCODER = msgspec.json.Encoder()

Rendered = tuple[bytes, dict[str, Any]]


class FaultKind(StrEnum):
    """How a statement can fail. Only ``UNKNOWN`` leaves open whether anything changed; the others changed nothing."""

    UNREACHABLE = "upstream_down"
    LOGIN = "login_refused"
    BUSY = "busy"
    CONSTRAINT = "constraint"
    STOPPED = "timeout"
    OVERSIZE = "output_size"
    FAILED = "sql_error"
    LOST = "connection_lost"
    UNKNOWN = "commit"


class Fault(Exception):
    """A statement failed.

    Attributes:
        kind: how.
        detail: for a constraint, the database's words for it (names of tables and columns); otherwise the error's name.
    """

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Table:
    """What a statement brought.

    Attributes:
        columns: names, in order.
        rows: values as JSON has them; bytes where the database has bytes.
        changed: rows changed; None where the database does not say.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    changed: int | None


@dataclass(slots=True)
class Room:
    """How much more may be taken out of the database, roughly; for one statement."""

    found: Statement
    max_bytes: int
    rows: int = 0
    bytes: int = 0

    def take(self, row: tuple[Any, ...]) -> None:
        """Count a row.

        Raises:
            Fault: it is one too many.
        """
        self.rows += 1
        self.bytes += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row) + 8
        if self.rows > self.found.max_rows or self.bytes > self.max_bytes:
            raise Fault(FaultKind.OVERSIZE, f"more than {self.found.max_rows} rows or {self.max_bytes} bytes")


def rendered(found: Statement, max_bytes: int, table: Table) -> Rendered:
    """The result object and its bytes.

    Raises:
        Fault: the table breaks the contract.
    """
    if len(set(table.columns)) != len(table.columns):
        raise Fault(FaultKind.FAILED, "two columns have the same name")
    if found.columns is not None and table.columns != found.columns:
        raise Fault(FaultKind.FAILED, "the columns are not the declared ones")
    rows = [{name: _value(name, value) for name, value in zip(table.columns, row, strict=True)} for row in table.rows]
    shown: dict[str, Any] = {"rows": rows, "row_count": len(rows)}
    if found.mode is Mode.WRITE:
        shown["changed"] = table.changed
    text = _ENCODER.encode(shown)
    body, value = _result({"content": [_text(text)], "structuredContent": msgspec.Raw(text)})
    if len(body) > max_bytes:
        raise Fault(FaultKind.OVERSIZE, f"more than {max_bytes} bytes")
    return body, value


def answered(fault: Fault) -> Rendered:
    """The result for a violated constraint; every other fault is raised.

    Raises:
        NotSent: the database was not reached.
        ToolFailed: nothing was changed.
        OutcomeUnknown: the commit failed.
    """
    if fault.kind is not FaultKind.CONSTRAINT:
        raise _failure(fault)
    refused = _ENCODER.encode({"error": "constraint", "message": fault.detail})
    return _result({"content": [_text(refused)], "isError": True})


def _value(name: str, value: Any) -> Any:
    if isinstance(value, int):
        return value if abs(value) <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, list):
        return [_value(name, item) for item in value]
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise Fault(FaultKind.FAILED, f"column {name!r} holds bytes or an infinite number")
    return value


def _failure(fault: Fault) -> GatewayError:
    match fault.kind:
        case FaultKind.BUSY | FaultKind.UNREACHABLE:
            return NotSent("the database could not be reached", cause_code=fault.kind)
        case FaultKind.LOGIN:
            return NotSent("the database refuses the login", cause_code=fault.kind)
        case FaultKind.UNKNOWN:
            return OutcomeUnknown("the commit failed", cause_code=fault.kind)
        case FaultKind.OVERSIZE:
            return ToolFailed(f"the result has {fault.detail}; nothing was changed", cause_code=fault.kind)
        case FaultKind.LOST:
            return ToolFailed("the connection was lost before the end; nothing was changed", cause_code=fault.kind)
        case _:
            return ToolFailed("the statement failed; nothing was changed", cause_code=fault.kind)


def _text(text: bytes) -> dict[str, str]:
    return {"type": "text", "text": text.decode()}


def _result(result: dict[str, Any]) -> Rendered:
    body = _ENCODER.encode(result)
    return body, msgspec.json.decode(body)
