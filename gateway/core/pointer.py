"""JSON pointers (RFC 6901) into parsed JSON."""

from typing import Any


class PointerError(LookupError):
    """The pointer leads nowhere in this document, or is no pointer."""


def resolve(document: Any, pointer: str) -> Any:
    """The value ``pointer`` names in ``document``; the empty pointer names the whole.

    Raises:
        PointerError: malformed pointer, no such member or element.
    """
    if pointer == "":
        return document
    if not pointer.startswith("/"):
        raise PointerError(pointer)
    value = document
    for step in pointer[1:].split("/"):
        value = _step(value, step, pointer)
    return value


def _step(value: Any, step: str, pointer: str) -> Any:
    if isinstance(value, dict):
        key = step.replace("~1", "/").replace("~0", "~")
        if key in value:
            return value[key]
    elif isinstance(value, list) and _is_index(step) and int(step) < len(value):
        return value[int(step)]
    raise PointerError(pointer)


def _is_index(step: str) -> bool:
    # Leading zeros are not allowed, and no list has 10^9 elements.
    return step.isascii() and step.isdecimal() and len(step) < 10 and (step == "0" or step[0] != "0")  # noqa: PLR2004
