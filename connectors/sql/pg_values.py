"""JSON values as PostgreSQL's types want them, and back.

What policy read is what is sent: texts that stand for numbers, times and ids have one form each, in ASCII digits
(``-12.50``, ``2026-01-31``, ``2026-01-31T10:00:00Z``, ids in small letters), so no parser, Python's or PostgreSQL's,
reads one as something that policy did not see. NaN and infinite values are never sent. Times go as text both ways: then
those Python has no value for (``infinity``, BC, the year 10000, 24:00) stay what they are.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
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
    except (ValueError, TypeError, OverflowError):
        raise NotSent(f"{name!r} is no value of the type {kind}", cause_code="argument") from None


def shown(name: str, value: Any) -> Any:
    """A value of the column ``name`` as JSON has it; numerics are text, bytes stay bytes.

    Raises:
        Fault: its type has no such form; the statement casts it to text.
    """
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, list):
        return [shown(name, item) for item in value]
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise Fault(FaultKind.FAILED, f"column {name!r} has a type without JSON form: cast it to text")


def _flag(value: SqlValue) -> bool:
    if value not in (0, 1):  # JSON's booleans arrive as numbers
        raise ValueError
    return bool(value)


def _formed(form: re.Pattern[str], value: SqlValue) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError
    return value


def _integer(value: SqlValue) -> int:
    if isinstance(value, float):
        raise TypeError
    return int(_formed(_INTEGER, str(value)))


def _number(value: SqlValue) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or number != value:  # an integer that would be rounded
        raise ValueError
    return number


def _decimal(value: SqlValue) -> Decimal:
    number = Decimal(_formed(_DECIMAL, value) if isinstance(value, str) else str(value))
    if not number.is_finite():
        raise ValueError
    return number


def _day(value: SqlValue) -> str:
    return date.fromisoformat(_formed(_DAY, value)).isoformat()


def _clock(value: SqlValue) -> str:
    return time.fromisoformat(_formed(_CLOCK, value)).isoformat()


def _moment(value: SqlValue) -> str:
    return datetime.fromisoformat(_formed(_MOMENT, value)).isoformat()


def _local(value: SqlValue) -> str:
    return datetime.fromisoformat(_formed(_LOCAL, value)).isoformat()


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,499})(?:\.[0-9]{1,500})?")
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_DAY, _CLOCK, _LOCAL = re.compile(_DATE), re.compile(_TIME), re.compile(f"{_DATE}[T ]{_TIME}")
_MOMENT = re.compile(f"{_DATE}[T ]{_TIME}(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


_BINDERS: Mapping[str, Callable[[SqlValue], Any]] = {
    "bool": _flag,
    "int2": _integer,
    "int4": _integer,
    "int8": _integer,
    "float4": _number,
    "float8": _number,
    "numeric": _decimal,
    "money": lambda value: str(_decimal(value)),
    "text": str,
    "varchar": str,
    "bpchar": str,
    "date": _day,
    "timestamp": _local,
    "timestamptz": _moment,
    "time": _clock,
    "uuid": lambda value: _formed(_UUID, value),
}


def _isoformat(parse: Callable[[str], date | time]) -> Callable[[str], str]:
    def shown_as(text: str) -> str:
        try:
            moment = parse(text)
            if isinstance(moment, datetime) and moment.tzinfo is not None:
                moment = moment.astimezone(UTC)  # the session's zone is the database's business
            return moment.isoformat()
        except (ValueError, OverflowError):
            return text  # no value of Python's: as PostgreSQL says it

    return shown_as


# What PostgreSQL says of each type of time, in DateStyle ISO, as JSON has it.
TIMES: Mapping[str, Callable[[str], str]] = {
    "date": _isoformat(date.fromisoformat),
    "time": _isoformat(time.fromisoformat),
    "timetz": _isoformat(time.fromisoformat),
    "timestamp": _isoformat(datetime.fromisoformat),
    "timestamptz": _isoformat(datetime.fromisoformat),
}
