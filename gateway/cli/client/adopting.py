"""Servers of clients as upstreams in ``gateway.toml``: their names, their secrets' files, the text that is added."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.cli.client.servers import Server
from gateway.cli.client.variables import FromEnvironment, Given, Hidden

_LONGEST: Final = 31
_RESERVED: Final = frozenset({"gateway", "hook"})
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A server that the gateway has, or gets.

    Attributes:
        label: its name at the client.
        server: what it is.
        name: its name here.
        is_new: whether it is added; otherwise the settings have it already.
    """

    label: str
    server: Server
    name: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Housed:
    """What is there already.

    Attributes:
        document: ``gateway.toml``, parsed.
        folder: where it lies.
        secrets: where files of secrets go.
    """

    document: Mapping[str, Any]
    folder: Path
    secrets: Path


def adopt(servers: Iterable[tuple[str, Server]], housed: Housed) -> list[Adopted]:
    """A name for each server: its own where that is free and fits; the same server twice is one upstream."""
    upstreams = _table(housed.document, "upstreams")
    taken = {*upstreams, *_table(housed.document, "credentials"), *_RESERVED}
    found: list[Adopted] = []
    for label, server in servers:
        twin = _twin(server, found) or _there(label, server, housed)
        name = twin or _free(fitting(label), taken)
        taken.add(name)
        found.append(Adopted(label, server, name, twin is None))
    return found


def fitting(label: str) -> str:
    """``label`` as a name of a server: small letters, digits, single ``-`` and ``_``, at most 31."""
    words = re.sub(r"[^a-z0-9_]+", "-", label.lower())
    return re.sub(r"[_-]{2,}", "-", words).strip("_-")[:_LONGEST].strip("_-") or "server"


def secret_file(housed: Housed, name: str, what: str) -> Path:
    """Where the secret ``what`` of the upstream ``name`` lies; no two have one place."""
    plain = re.sub(r"[^A-Za-z0-9_-]", lambda found: f".{ord(found[0]):x}.", what)
    return housed.secrets / f"{name}.{plain}"


def files(adopted: Iterable[Adopted], housed: Housed) -> dict[Path, str]:
    """The secrets of new upstreams, by their files."""
    return {
        secret_file(housed, one.name, what): hidden.value
        for one in adopted
        if one.is_new
        for what, hidden in one.server.hidden
    }


def tables(adopted: Iterable[Adopted], housed: Housed) -> dict[str, dict[str, Any]]:
    """What is added to the settings: ``upstreams`` and ``credentials`` by name."""
    upstreams, credentials = {}, {}
    for one in adopted:
        if not one.is_new:
            continue
        upstreams[one.name] = _upstream(one, housed)
        if one.server.secret is not None:
            server = one.server
            place = _reference(one.name, server.header, server.secret, housed)
            credentials[one.name] = {"header": server.header, "prefix": server.prefix, **place}
    return {"upstreams": upstreams, "credentials": credentials}


def written(added: Mapping[str, Mapping[str, Any]]) -> str:
    """``added`` as TOML tables."""
    lines = []
    for section, entries in added.items():
        for name, entry in entries.items():
            lines += [f"[{section}.{_key(name)}]", *_lines(entry), ""]
    return "\n".join(lines)


def merged(document: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``document`` with ``added``, to compare with what the text says once it is appended."""
    both = dict(document)
    for section, entries in added.items():
        if entries:
            both[section] = {**_table(document, section), **entries}
    return both


def parsed(text: str) -> dict[str, Any]:
    """A settings file's text.

    Raises:
        ValueError: it is no TOML.
    """
    return tomllib.loads(text)


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _upstream(one: Adopted, housed: Housed) -> dict[str, Any]:
    server = one.server
    # Its owner trusted it with more until now: the client ran it unseen.
    upstream: dict[str, Any] = {"kind": "mcp", "trust": "first_use"}
    if server.url is not None:
        upstream["url"] = server.url
        return upstream if server.secret is None else {**upstream, "credential": one.name}
    upstream["command"] = list(server.command)
    if server.cwd is not None:
        upstream["cwd"] = server.cwd
    if server.env:
        upstream["env"] = {
            name: given if isinstance(given, str) else _reference(one.name, name, given, housed)
            for name, given in server.env.items()
        }
    return upstream


def _reference(name: str, what: str, given: Given | None, housed: Housed) -> dict[str, str]:
    if isinstance(given, FromEnvironment):
        return {"env": given.name}
    return {"file": str(secret_file(housed, name, what))}


def _twin(server: Server, found: Iterable[Adopted]) -> str | None:
    return next((one.name for one in found if one.server == server), None)


def _there(label: str, server: Server, housed: Housed) -> str | None:
    """The name under which the settings have this very server already."""
    wished = fitting(label)
    for name in _table(housed.document, "upstreams"):
        if name != wished and not re.fullmatch(re.escape(wished[: _LONGEST - 3]) + r"-?[0-9]{0,2}", name):
            continue
        both = tables([Adopted(label, server, name, is_new=True)], housed)
        same = all(_table(housed.document, part).get(name) == entries.get(name) for part, entries in both.items())
        if same and all(_holds(secret_file(housed, name, what), hidden) for what, hidden in server.hidden):
            return name
    return None


def _holds(path: Path, hidden: Hidden) -> bool:
    try:
        return path.read_text("utf-8") == hidden.value
    except (OSError, UnicodeDecodeError):
        return False


def _free(wished: str, taken: set[str]) -> str:
    if wished not in taken:
        return wished
    number = 2
    while (name := f"{wished[: _LONGEST - 3].rstrip('_-')}-{number}") in taken:
        number += 1
    return name


def _lines(entry: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in entry.items()]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(str(value))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for one control character that JSON lets stand.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
