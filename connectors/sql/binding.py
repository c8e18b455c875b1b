"""What a catalogue entry says about one SQL statement, and the parameters it is bound to for one call.

The agent never sends SQL. A statement is declared once and its parameters are bound by name, so no argument can become
code; an argument that is bound nowhere is refused rather than dropped, as policy decided on all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.core.canonical import Arguments
from gateway.core.errors import NotSent
from gateway.core.pointer import PointerError, resolve
from gateway.core.tool import EffectClass, Tool

_MEMBERS = frozenset({"statement", "parameters", "mode", "max_rows", "columns"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_COMMENTS = re.compile(r"\A(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_STARTS = {"read": ("select", "with", "values"), "write": ("insert", "update", "delete", "replace", "with")}
_MAX_INTEGER = 2**63
_DEFAULT_MAX_ROWS = 1_000

SqlValue = str | int | float | None


class Mode(StrEnum):
    """Whether a statement changes anything."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A named parameter of the statement.

    Attributes:
        name: as in ``:name``.
        pointer: JSON pointer of the argument it is bound to.
    """

    name: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One declared statement.

    Attributes:
        text: a single SQL statement.
        parameters: what it is bound to.
        mode: reads run on a read-only connection, writes in a transaction.
        max_rows: most rows of a result; more is a failure, never a shortened result.
        columns: names the result's columns must have, in this order; None = whatever the statement gives.
    """

    text: str
    parameters: tuple[Parameter, ...]
    mode: Mode
    max_rows: int = _DEFAULT_MAX_ROWS
    columns: tuple[str, ...] | None = None


class Statements:
    """The statements of tools, each read once as long as the very same catalogue entry is in force."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Mapping[str, Any], Statement]] = {}

    def of(self, tool: Tool) -> Statement:
        """The tool's statement.

        Raises:
            NotSent: it declares none (``cause_code`` is ``binding``).
        """
        kept = self._kept.get(tool.fqn)
        if kept is None or kept[0] is not tool.binding:
            try:
                kept = self._kept[tool.fqn] = (tool.binding, statement(tool.binding))
            except (LookupError, TypeError, ValueError) as error:
                raise NotSent(f"the tool's binding cannot be used: {error}", cause_code="binding") from None
        return kept[1]


def statement(binding: Mapping[str, Any]) -> Statement:
    """The statement a binding declares.

    Raises:
        ValueError: it declares none; the message says what is wrong.
    """
    unknown = sorted(binding.keys() - _MEMBERS)
    if unknown:
        raise ValueError(f"unknown keys {unknown}")
    text, mode = str(binding.get("statement", "")), Mode(binding.get("mode", Mode.READ))
    if not _COMMENTS.sub("", text, count=1).lower().startswith(_STARTS[mode]):
        raise ValueError(f"a {mode} statement starts with one of {', '.join(_STARTS[mode])}")
    columns = binding.get("columns")
    found = Statement(
        text=text,
        parameters=tuple(_parameter(item) for item in binding.get("parameters") or ()),
        mode=mode,
        max_rows=int(binding.get("max_rows", _DEFAULT_MAX_ROWS)),
        columns=None if columns is None else tuple(str(name) for name in columns),
    )
    if len({parameter.name for parameter in found.parameters}) != len(found.parameters):
        raise ValueError("a parameter is named twice")
    if found.max_rows < 1:
        raise ValueError("max_rows must be at least 1")
    return found


def first_word(text: str) -> str:
    """The word a statement begins with, in small letters, comments left out."""
    found = _WORD.match(_COMMENTS.sub("", text, count=1))
    return found.group().lower() if found else ""


def problems(tool: Tool, found: Statement) -> list[str]:
    """What is wrong with a statement, held against its tool's schema and effect class; empty = nothing."""
    schema = tool.definition.get("inputSchema", {})
    declared, bound = set(schema.get("properties", {})), {_member(p.pointer) for p in found.parameters}
    wrong = [f"binds {name!r}, which the schema does not declare" for name in sorted(bound - declared)]
    wrong += [f"{name!r} is declared and bound nowhere" for name in sorted(declared - bound)]
    if schema.get("additionalProperties") is not False:
        wrong.append("the schema must say additionalProperties: false, as nothing else is bound")
    if (tool.effect is EffectClass.READ) != (found.mode is Mode.READ):
        wrong.append(f"a tool of effect class {tool.effect} cannot have a statement of mode {found.mode}")
    return wrong


def values(found: Statement, arguments: Arguments) -> dict[str, SqlValue]:
    """The value of each parameter; a missing argument is NULL.

    Raises:
        NotSent: the arguments do not fit (``cause_code`` is ``argument``); the schema should have said so.
    """
    unbound = arguments.value.keys() - {_member(parameter.pointer) for parameter in found.parameters}
    if unbound:
        raise NotSent("an argument is bound nowhere", cause_code="argument")
    return {parameter.name: _value(parameter, arguments.value) for parameter in found.parameters}


def _value(parameter: Parameter, arguments: dict[str, Any]) -> SqlValue:
    try:
        value = resolve(arguments, parameter.pointer)
    except PointerError:
        return None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise NotSent(f"{parameter.name!r} does not fit into 64 bits", cause_code="argument")
    if value is None or isinstance(value, str | int | float):
        return value
    raise NotSent(f"{parameter.name!r} must be a string, number, boolean or null", cause_code="argument")


def _parameter(item: Any) -> Parameter:
    name = item if isinstance(item, str) else item["name"]
    pointer = f"/{name}" if isinstance(item, str) else item.get("pointer", f"/{name}")
    if not _NAME.fullmatch(name) or not str(pointer).startswith("/"):
        raise ValueError("a parameter is a name, or {name, pointer}")
    return Parameter(name, str(pointer))


def _member(pointer: str) -> str:
    return pointer.split("/")[1].replace("~1", "/").replace("~0", "~")
