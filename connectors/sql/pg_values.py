"""JSON values as PostgreSQL's types want them, and back."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID

from connectors.sql.binding import SqlValue
from connectors.sql.result import Fault, FaultKind
from gateway.core.errors import NotSent

_PLAIN = (str, int, float, bytes)  # bool is an int
_AS_TEXT = (UUID, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)


def bound(name: str, value: SqlValue, kind: str) -> Any:
    """The value of the parameter ``name`` as the type ``kind`` of PostgreSQL takes it.

    Raises:
        NotSent: it does not fit (``cause_code`` is ``argument``).
    """
    convert = _BINDERS.get(kind)
    if value is None or convert is None:
        return value
    try:
        return convert(value)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        raise NotSent(f"{name!r} is no value of the type {kind}", cause_code="argument") from None


def shown(name: str, value: Any) -> Any:
    """A value of the column ``name`` as JSON has it; numerics and times are text, bytes stay bytes.

    Raises:
        Fault: its type has no such form; the statement casts it to text.
    """
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, list):
        return [shown(name, item) for item in value]
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise Fault(FaultKind.FAILED, f"column {name!r} has a type without JSON form: cast it to text")


def _flag(value: SqlValue) -> bool:
    if value not in (0, 1):  # JSON's booleans arrive as numbers
        raise ValueError
    return bool(value)


def _integer(value: SqlValue) -> int:
    if isinstance(value, float):
        raise TypeError
    return int(str(value))


def _number(value: SqlValue) -> float:
    if isinstance(value, str):
        raise TypeError
    return float(value or 0)


def _moment(value: SqlValue) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _local(value: SqlValue) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is not None:
        raise ValueError
    return moment


_BINDERS: Mapping[str, Callable[[SqlValue], Any]] = {
    "bool": _flag,
    "int2": _integer,
    "int4": _integer,
    "int8": _integer,
    "float4": _number,
    "float8": _number,
    "numeric": lambda value: Decimal(str(value)),
    "text": str,
    "varchar": str,
    "bpchar": str,
    "date": lambda value: date.fromisoformat(str(value)),
    "timestamp": _local,
    "timestamptz": _moment,
    "time": lambda value: time.fromisoformat(str(value)),
}
