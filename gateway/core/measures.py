"""What the measures a tool declares find in the arguments of one call."""

from collections.abc import Mapping
from typing import Any

from gateway.core.canonical import MAX_SAFE_INTEGER
from gateway.core.errors import InvalidArguments
from gateway.core.pointer import PointerError, resolve
from gateway.core.tool import Measure, Tool


def amounts(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, int]:
    """What the declared measures find in the arguments, by measure (``amount.EUR``), in the measure's own unit.

    Raises:
        InvalidArguments: a declared measure or its currency is missing, or is no non-negative integer.
    """
    found: dict[str, int] = {}
    for measure in tool.measures:
        value = _at(arguments, measure.pointer)
        # A negative amount would give back room that other calls have used.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_SAFE_INTEGER:
            raise InvalidArguments(f"{measure.pointer} must be a non-negative integer", cause_code="measure")
        name = _name(measure, arguments)
        found[name] = found.get(name, 0) + value
        if found[name] > MAX_SAFE_INTEGER:
            raise InvalidArguments(f"{measure.name} adds up beyond 2^53", cause_code="measure")
    return found


def _name(measure: Measure, arguments: Mapping[str, Any]) -> str:
    if measure.currency_pointer is None:
        return measure.name
    currency = _at(arguments, measure.currency_pointer)
    # Exactly three capitals: "eur" or "EUR " must not open a second account beside "EUR".
    if not (isinstance(currency, str) and len(currency) == 3 and currency.isascii() and currency.isalpha()):  # noqa: PLR2004
        raise InvalidArguments(f"{measure.currency_pointer} must be an ISO 4217 code", cause_code="measure")
    if not currency.isupper():
        raise InvalidArguments(f"{measure.currency_pointer} must be in capitals", cause_code="measure")
    return f"{measure.name}.{currency}"


def _at(arguments: Mapping[str, Any], pointer: str) -> Any:
    try:
        return resolve(arguments, pointer)
    except PointerError:
        return None
