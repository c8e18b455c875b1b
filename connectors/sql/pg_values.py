"""JSON values as PostgreSQL's types want them, and back."""

import math
import re
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
# What policy read is what is sent: texts that Python or PostgreSQL would read as something else are no values. ASCII
# digits, no signs but minus, no separators, no blanks, no NaN, no infinity, one form of dates and times.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,130})(?:\.[0-9]{1,130})?")
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_OF_DAY = re.compile(_TIME)
_MOMENT = re.compile(_DAY.pattern + "[T ]" + _TIME + r"(?:Z|[+-][0-9]{2}:[0-9]{2})?")
# How the driver shows infinity: it cannot be told from the day itself.
_ENDLESS = frozenset({date.max, date.min, datetime.max, datetime.min})  # noqa: DTZ901 - as the driver gives them
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
        if value in _ENDLESS or (isinstance(value, datetime) and value.replace(tzinfo=None) in _ENDLESS):
            raise Fault(FaultKind.FAILED, f"column {name!r} holds a day without end: cast it to text")
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
    return int(_text(value, _INTEGER))


def _number(value: SqlValue) -> float:
    if isinstance(value, str):
        raise TypeError
    return float(value or 0)


def _decimal(value: SqlValue) -> Decimal:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    return Decimal(_text(value, _DECIMAL) if isinstance(value, str) else str(value))


def _text(value: SqlValue, form: re.Pattern[str]) -> str:
    text = str(value)
    if not form.fullmatch(text):
        raise ValueError
    return text


def _moment(value: SqlValue) -> datetime:
    moment = datetime.fromisoformat(_text(value, _MOMENT))
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _local(value: SqlValue) -> datetime:
    moment = datetime.fromisoformat(_text(value, _MOMENT))
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
    "numeric": _decimal,
    "text": str,
    "varchar": str,
    "bpchar": str,
    "date": lambda value: date.fromisoformat(_text(value, _DAY)),
    "timestamp": _local,
    "timestamptz": _moment,
    "time": lambda value: time.fromisoformat(_text(value, _OF_DAY)),
}
