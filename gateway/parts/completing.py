"""What completes the arguments of prompts and templates: entries of the catalogue made of theirs, under their pins."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.core import resources, schema
from gateway.core.catalog import Shelf
from gateway.core.tool import Kind
from gateway.parts.shelving import Source

_TEXT: Final = {"type": "string"}


def completions(source: Source, shelves: Iterable[Shelf]) -> list[Shelf]:
    """A shelf for each prompt and template that has something to complete.

    Nothing of it is an upstream's words that anybody is shown, so it needs no pin of its own: it may be used as long as
    what it completes may. Policy decides on it by itself, and the catalogue gives it an effect class of its own.
    """
    made = (_completion(source, shelf) for shelf in shelves)
    return [shelf for shelf in made if shelf is not None]


def name_of(name: str) -> str:
    """The name of what completes ``name`` (both without the server)."""
    return f"{Kind.COMPLETION.prefix}{name}"


def _completion(source: Source, shelf: Shelf) -> Shelf | None:
    named = _arguments(shelf)
    if not named:
        return None
    arguments = _schema(named)
    tool = source.tool({"name": name_of(shelf.tool.name), "inputSchema": arguments})
    return Shelf(tool, schema.compile(arguments).problems, shelf.quarantine)


def _arguments(shelf: Shelf) -> Sequence[str]:
    tool = shelf.tool
    if tool.kind is Kind.PROMPT:
        return tuple(tool.definition["inputSchema"].get("properties", ()))
    return (resources.variables(tool.own_name) or ()) if tool.is_template else ()


def _schema(named: Sequence[str]) -> dict[str, Any]:
    argument = {
        "type": "object",
        "properties": {"name": {"enum": list(named)}, "value": _TEXT},
        "required": ["name", "value"],
        "additionalProperties": False,
    }
    known = {"type": "object", "properties": dict.fromkeys(named, _TEXT), "additionalProperties": False}
    context = {"type": "object", "properties": {"arguments": known}, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"argument": argument, "context": context},
        "required": ["argument"],
        "additionalProperties": False,
    }
