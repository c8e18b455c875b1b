"""One operation of an OpenAPI document as one entry of a catalogue, or the reasons why it cannot be one.

The agent's arguments are the operation's parameters and the members of its JSON body, side by side; where each is sent
stands in the entry, and what stands nowhere is never sent.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.cli.openapi import naming, schemas
from gateway.cli.openapi.document import At, Document, Refused, escaped
from gateway.cli.openapi.schemas import Unfolding

_JSON: Final = "application/json"
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
# OpenAPI itself says that parameters of these names are ignored.
_IGNORED: Final = frozenset({"accept", "content-type", "authorization"})
_LONGEST_WORDS: Final = 1024
MOST_DEFINITION_BYTES: Final = 128 * 1024
_REFUSED: Final = "some models' makers refuse, and with it each request that offers the tool"
_MODELS_TAKE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOT_CARRIED: Final = ("head", "options", "trace", "query")


@dataclass(frozen=True, slots=True)
class Found:
    """An operation as it stands in the document.

    Attributes:
        at: the operation.
        shared: the path item it belongs to.
        method: lower case.
        path: template, without the server's own path.
        name: the tool's.
    """

    at: At
    shared: At
    method: str
    path: str
    name: str


@dataclass(slots=True)
class Made:
    """What becomes of an operation.

    Attributes:
        entry: members of a catalogue entry, without its server.
        notes: what a person should know.
    """

    entry: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Arguments:
    """What is gathered of an operation's arguments: schemas by name, and where each is sent."""

    properties: dict[str, Any] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    body: list[str] | str = field(default_factory=list)
    whole: Any = None
    notes: list[str] = field(default_factory=list)


def operations(document: Document) -> tuple[list[Found], list[Refused], list[str]]:
    """All operations; those whose name is none; and what is left out by its kind."""
    found, problems, left = list[Found](), list[Refused](), list[str]()
    for path, item in document.top.member("paths").members():
        if not path.startswith("/"):
            continue  # an extension
        try:
            shared = document.followed(item)
        except Refused as error:
            problems.append(error)
            continue
        left += [f"{method.upper()} {path}" for method in _NOT_CARRIED if shared.has(method)]
        for method in naming.METHODS:
            if not shared.has(method):
                continue
            at = shared.member(method)
            try:
                found.append(Found(at, shared, method, path, naming.tool_name(at, method, path)))
            except Refused as error:
                problems.append(error)
    if document.top.has("webhooks"):
        left.append("webhooks")
    return found, problems, left


def clashes(found: list[Found]) -> list[Refused]:
    """A refusal of each operation whose tool would have the name of one before it."""
    first: dict[str, Found] = {}
    problems = []
    for one in found:
        other = first.setdefault(one.name, one)
        if other is not one:
            problems.append(one.at.refused("operation_id", f"{other.at.pointer} becomes {one.name}, too"))
    return problems


def made(document: Document, one: Found, prefix: str, *, outputs: bool) -> Made:
    """The catalogue entry of an operation; ``prefix`` is the path of its server.

    Raises:
        Refused: it cannot be carried; the first reason.
    """
    if one.at.has("servers") or one.shared.has("servers"):
        place = one.at if one.at.has("servers") else one.shared
        raise place.member("servers").refused("servers", "an operation of another server is another upstream's")
    _check_security(document, one)
    arguments = _arguments(document, one)
    effect, doing = naming.effect(one.method, one.path, one.name)
    notes = list(arguments.notes)
    if doing is not None:
        notes.append(f"a GET, and yet taken for destructive: {doing!r} says that it does something")
    entry: dict[str, Any] = {
        "name": one.name,
        "effect": effect.value,
        "description": _words(one),
        "input_schema": _input(arguments),
        "http": _binding(one, arguments, prefix),
    }
    if outputs:
        output = _output(document, one, notes)
        entry |= {} if output is None else {"output_schema": output}
    if len(json.dumps(entry)) > MOST_DEFINITION_BYTES:
        raise one.at.refused("too_large", f"its tool would be over {MOST_DEFINITION_BYTES // 1024} KiB")
    return Made(entry, notes)


def _words(one: Found) -> str:
    said = [one.at.text("summary").strip(), one.at.text("description").strip()]
    words = "\n\n".join(dict.fromkeys(text for text in said if text)) or f"{one.method.upper()} {one.path}"
    return words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}..."


def _arguments(document: Document, one: Found) -> _Arguments:
    found, unfolding = _Arguments(), Unfolding(document, "readOnly")
    for at in _parameters(document, one):
        _parameter(at, unfolding, found)
    _check_path(one, found)
    if one.at.has("requestBody"):
        _body(document, one, unfolding, found)
    return found


def _parameters(document: Document, one: Found) -> Iterator[At]:
    # An operation's own parameter stands instead of its path's of the same name and place.
    by_place: dict[tuple[str, str], At] = {}
    for holder in (one.shared, one.at):
        for item in holder.member("parameters").items():
            at = document.followed(item)
            place, name = at.text("in"), at.text("name")
            if not place or not name:
                raise at.refused("parameter", "it has no name or no place")
            by_place[place, name] = at
    yield from by_place.values()


def _parameter(at: At, unfolding: Unfolding, found: _Arguments) -> None:
    name, place, required = at.text("name"), at.text("in"), at.member("required").value is True
    if place == "cookie":
        raise at.refused("cookie", f"the cookie {name!r}: no cookie is sent upstream")
    if place == "header":
        if name.lower() in _IGNORED:
            return
        if required:
            raise at.refused("header", f"the header field {name!r} is required; only a credential is sent in one")
        found.notes.append(f"the header field {name!r} is not sent")
        return
    if place not in {"path", "query"}:
        raise at.refused("parameter", f"a parameter in {place[:40]!r} is not understood")
    if not at.has("schema"):
        raise at.refused("parameter", f"{name!r} has no schema of its own: serialised contents are not carried")
    schema = schemas.without_null(_as_object(unfolding.schema(at.member("schema"))))
    _check_style(at, schema)
    if place == "path" and not required:
        raise at.refused("parameter", f"{name!r} is in the path and must be required")
    _put(at, found, name, _told(at, schema))
    getattr(found, place).append(name)
    found.required += [name] if required else []


def _as_object(schema: Any) -> dict[str, Any]:
    return dict(schema) if isinstance(schema, dict) else {}


def _check_style(at: At, schema: dict[str, Any]) -> None:
    usual = "simple" if at.text("in") == "path" else "form"
    if at.has("style") and at.text("style") != usual:
        raise at.member("style").refused("style", f"only {usual} is carried here")
    kinds = schemas.types(schema)
    if at.text("in") == "query" and kinds == {"array"}:
        if at.member("explode").value is False:
            raise at.member("explode").refused("style", "an array is carried as a repeated parameter only")
        items = schemas.without_null(_as_object(schema.get("items")))
        if not schemas.types(items) <= _SCALARS:
            raise at.refused("style", "the items of an array in the query must be of plain types")
        schema["items"] = {"type": sorted(_SCALARS)} | items
    elif not kinds <= _SCALARS or schema.keys() & {"properties", "items"}:
        raise at.refused("style", "a parameter must be a string, number or boolean (in the query, or an array of them)")
    elif not kinds:
        schema["type"] = sorted(_SCALARS)


def _told(at: At, schema: dict[str, Any]) -> dict[str, Any]:
    words = at.text("description").strip()[:_LONGEST_WORDS]
    return {"description": words, **schema} if words else schema


def _put(at: At, found: _Arguments, name: str, schema: Any) -> None:
    if name in found.properties:
        raise at.refused("name_clash", f"two arguments would be called {name!r}")
    if name.casefold() in {other.casefold() for other in found.properties}:
        raise at.refused("name_clash", f"{name!r} differs from another argument in case only, which no call may")
    if not _MODELS_TAKE.fullmatch(name):
        found.notes.append(f"the argument {name!r} has a name that {_REFUSED}")
    found.properties[name] = schema


def _check_path(one: Found, found: _Arguments) -> None:
    holder = one.shared
    named = [part.partition("}")[0] for part in one.path.split("{")[1:]]
    if sorted(named) != sorted(found.path):
        raise holder.refused("path", f"the path names {named}, and its parameters are {found.path}")


def _body(document: Document, one: Found, unfolding: Unfolding, found: _Arguments) -> None:
    at = document.followed(one.at.member("requestBody"))
    if one.method == "get":
        raise at.refused("body", "a GET has no body")
    content = at.member("content")
    media = next((name for name, _ in content.members() if name.partition(";")[0].strip().lower() == _JSON), None)
    if media is None:
        offered = ", ".join(sorted(name[:60] for name, _ in content.members())) or "nothing"
        raise content.refused("media_type", f"only {_JSON} is sent; offered: {offered}")
    place = content.member(media).member("schema")
    if place.value is None:
        raise place.refused("body", "the body has no schema, so what may be sent is not known")
    schema = unfolding.schema(place)
    members = schemas.flat(schema, lambda name: place.refused("name_clash", f"two parts describe {name!r} differently"))
    if isinstance(schema, dict) and members is not None and members["properties"]:
        for name, one_of_them in members["properties"].items():
            _put(place, found, name, one_of_them)
        found.required += [name for name in members["required"] if name in found.properties]
        found.body = list(members["properties"])
        unchecked = sorted(schema.keys() & {"minProperties", "maxProperties"})
        found.notes += [f"{', '.join(unchecked)} of the body is left to the API"] if unchecked else []
    elif isinstance(schema, dict) and not found.properties and schemas.types(schema) <= {"object"}:
        found.body, found.whole = "rest", {"type": "object"} | schema
        told = sorted(schema.keys() & {"allOf", "anyOf", "oneOf"})
        found.notes += [f"{told[0]} at its top is a form that {_REFUSED}"] if told else []
    else:
        raise place.refused("body", "beside parameters, and alone, only an object whose members are named is carried")


def _input(found: _Arguments) -> dict[str, Any]:
    if found.whole is not None:
        return dict(found.whole)
    required = list(dict.fromkeys(found.required))
    said: dict[str, Any] = {"type": "object", "properties": found.properties, "additionalProperties": False}
    return said | ({"required": required} if required else {})


def _binding(one: Found, found: _Arguments, prefix: str) -> dict[str, Any]:
    said: dict[str, Any] = {"method": one.method.upper(), "path": f"{prefix}{one.path}"}
    if found.query:
        said["query"] = found.query
    if found.body:
        said["body"] = found.body
    return said


def _output(document: Document, one: Found, notes: list[str]) -> dict[str, Any] | None:
    responses = one.at.member("responses")
    good = [document.followed(at) for status, at in responses.members() if status[:1] == "2"]
    if len(good) != 1:
        if good:
            notes.append("its answer is not checked: there are several good ones")
        return None
    content = good[0].member("content")
    medias = [(name.partition(";")[0].strip().lower(), at) for name, at in content.members()]
    if [name for name, _ in medias] != [_JSON] or medias[0][1].member("schema").value is None:
        return None
    schema = Unfolding(document, "writeOnly").schema(medias[0][1].member("schema"))
    kinds = schemas.types(schema)
    if kinds == {"object"}:
        return dict(schema)
    if not kinds or "object" in kinds:
        # An object is passed on as it is and anything else as a member: which it is, nobody can tell.
        notes.append("its answer is not checked: whether it is an object is not said")
        return None
    return {"type": "object", "properties": {"result": schema}, "required": ["result"]}


def _check_security(document: Document, one: Found) -> None:
    holder = one.at if one.at.has("security") else document.top
    ways = list(holder.member("security").items())
    schemes = document.top.member("components").member("securitySchemes")
    if ways and not any(all(_can_send(document, schemes, name) for name, _ in way.members()) for way in ways):
        raise holder.member("security").refused(
            "security", "it wants a key in the query or a cookie; a credential is sent in a header field"
        )


def _can_send(document: Document, schemes: At, name: str) -> bool:
    if not schemes.has(name):
        raise At(f"#/components/securitySchemes/{escaped(name)}", None).refused("security", "there is no such scheme")
    scheme = document.followed(schemes.member(name))
    return scheme.text("type") != "apiKey" or scheme.text("in") == "header"


def wants_credential(document: Document, one: Found) -> bool:
    """Whether an operation says that it takes no stranger's call."""
    holder = one.at if one.at.has("security") else document.top
    ways = list(holder.member("security").items())
    return bool(ways) and all(way.value for way in ways)
