"""What connecting a client would change: files read, each server understood, new texts made. Nothing is written.

1. read each place where the client keeps servers; 2. understand each server, or say why not; 3. name them as upstreams;
4. make the text that is appended to the settings, and read it back; 5. make each file's new text, and read it back.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.cli.client import adopting, appending, housing, jsonc
from gateway.cli.client.adopting import Adopted, Housed
from gateway.cli.client.changing import Found, look
from gateway.cli.client.housing import House
from gateway.cli.client.places import Place
from gateway.cli.client.servers import Server, understood
from gateway.cli.client.variables import NotCarried, Variables
from gateway.cli.screen import Misconfigured, shown
from gateway.settings import GatewaySettings

_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A client's file.

    Attributes:
        found: as it is on disk.
        document: parsed; of a file that is not there, an empty object.
        mark: its byte order mark, or nothing.
        places: the objects of servers in it.
    """

    found: Found
    document: jsonc.Text
    mark: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A server that leaves a client's file.

    Attributes:
        place: where it stands.
        label: its name there.
        server: what it is.
    """

    place: Place
    label: str
    server: Server


@dataclass(frozen=True, slots=True)
class Picked:
    """What is done with the servers of all places.

    Attributes:
        moved: those that leave.
        left: ``FILE: NAME (why)`` of those that stay.
    """

    moved: list[Moved] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Addition:
    """What is appended to the settings.

    Attributes:
        found: ``gateway.toml`` as it is on disk.
        opening: what a new file begins with; None where there is one.
        block: the appended text, empty where nothing is.
        adopted: all servers with their names.
        secrets: files to write, by path.
        settings: as they will be.
    """

    found: Found
    opening: str | None
    block: str
    adopted: list[Adopted]
    secrets: Mapping[Path, str]
    settings: GatewaySettings

    @property
    def content(self) -> bytes:
        """The file's new bytes."""
        return ((self.found.content or b"").decode() + (self.opening or "") + self.block).encode()


def sheets(places: Sequence[Place]) -> list[Sheet]:
    """The files of ``places``, each once, links followed.

    Raises:
        Misconfigured: one cannot be read, or is malformed.
    """
    by_path: dict[Path, tuple[Found, list[Place]]] = {}
    for place in places:
        found = look(place.path)
        its = by_path.setdefault(found.path, (found, []))[1]
        if place.section not in [one.section for one in its]:  # in one's home, the project's file may be one's own
            its.append(place)
    return [_sheet(found, its) for found, its in by_path.values()]


def pick(sheets: Sequence[Sheet], variables: Mapping[str, Variables], leave: Mapping[str, Mapping[str, str]]) -> Picked:
    """Understand the servers of all sheets; those that ``leave`` names stay, and why. Both are by the file's path.

    Raises:
        Misconfigured: some cannot be carried over and nobody said that they may stay; all of them are named.
    """
    picked, problems = Picked(), list[str]()
    for sheet in sheets:
        for place in sheet.places:
            for label, entry in _entries(sheet, place).items():
                try:
                    _one(place, label, entry, (picked, variables[str(place.path)], leave[str(place.path)]))
                except NotCarried as why:
                    problems.append(f"{place.path}: {shown(label)}: {why}")
    if problems:
        raise Misconfigured(
            "\n  ".join(("these servers cannot be carried over; nothing was changed", *problems)),
            "correct them, or let them stay where they are, past the gateway, by --leave NAME",
            {"error": "servers", "problems": problems},
        )
    return picked


def addition(picked: Picked, house: House, client: str) -> Addition:
    """What the settings get, checked as a whole.

    Raises:
        Misconfigured: the settings cannot be used, now or then.
    """
    found = look(house.config)
    document = appending.document(found)
    housed = Housed(document, house.config.parent, house.state / "secrets")
    adopted = adopting.adopt([(one.label, one.server) for one in picked.moved], housed)
    tables = adopting.tables(adopted, housed)
    name = os.path.basename(client)  # noqa: PTH119 - also of names of clients
    title = f"From {shown(name)}, by `ostiary client connect`; `ostiary client undo` takes it out."
    made = appending.appended(house, found, title, tables)
    return Addition(found, made.opening, made.block, adopted, adopting.files(adopted, housed), made.settings)


def rewritten(sheet: Sheet, moved: Sequence[Moved], entry: dict[str, Any], *, is_first: bool) -> bytes:
    """A sheet's new bytes: servers that leave are gone, and the gateway is there where servers were known.

    ``is_first`` puts it there even where none were.
    """
    document = sheet.document
    for number, place in enumerate(sheet.places):
        gone = [one.label for one in moved if one.place == place]
        if gone or _has_ours(document, place) or (is_first and number == 0):
            text = jsonc.swap(document, place.section, gone, {housing.ENTRY: entry})
            expected = _expected(document.root.value, place.section, gone, entry)
            document = jsonc.read(text, comments=place.comments)
            assert document.root.value == expected
    return (sheet.mark + document.text).encode()


def has_servers(sheet: Sheet, moved: Sequence[Moved]) -> bool:
    """Whether the gateway's entry belongs into this sheet anyway."""
    return any(one.place in sheet.places for one in moved) or any(_has_ours(sheet.document, p) for p in sheet.places)


def _sheet(found: Found, places: Sequence[Place]) -> Sheet:
    try:
        text = "{}\n" if found.content is None else found.content.decode()
        mark = _MARK if text.startswith(_MARK) else ""
        text = text.removeprefix(mark)
        document = jsonc.read(text if text.strip() else "{}", comments=places[0].comments)
        if not isinstance(document.root.value, dict):
            raise jsonc.NotJson("it is no object")
        for place in places:
            section = document.root.at(place.section)
            if section is not None and not isinstance(section.value, dict):
                raise jsonc.NotJson(f"{'.'.join(place.section)} is no object")
    except (UnicodeDecodeError, jsonc.NotJson) as error:
        why = error if isinstance(error, jsonc.NotJson) else "it is not UTF-8"
        raise Misconfigured(f"{found.path}: {why}; nothing was changed", "correct the file") from None
    return Sheet(found, document, mark, tuple(places))


def _entries(sheet: Sheet, place: Place) -> dict[str, Any]:
    node = sheet.document.root.at(place.section)
    return {} if node is None else node.value


def _one(place: Place, label: str, entry: Any, means: tuple[Picked, Variables, Mapping[str, str]]) -> None:
    picked, variables, leave = means
    if label == housing.ENTRY and housing.is_ours(entry):
        return
    stays = label in leave or (isinstance(entry, dict) and entry.get("disabled") is True)
    if stays and label == housing.ENTRY:
        raise NotCarried("it has the name that the gateway gets there; give it another one")
    if label in leave:
        picked.left.append(f"{place.path}: {label} ({leave[label]})")
    elif stays:
        picked.left.append(f"{place.path}: {label} (it is switched off)")
    else:
        picked.moved.append(Moved(place, label, understood(entry, variables, place.folder)))


def _has_ours(document: jsonc.Text, place: Place) -> bool:
    return housing.is_ours(_value_at(document, (*place.section, housing.ENTRY)))


def _value_at(document: jsonc.Text, path: tuple[str, ...]) -> Any:
    node = document.root.at(path)
    return None if node is None else node.value


def _expected(value: dict[str, Any], section: tuple[str, ...], gone: Sequence[str], entry: dict[str, Any]) -> Any:
    if section:
        inner = _expected(value.get(section[0], {}), section[1:], gone, entry)
        return {**value, section[0]: inner}
    return {**{key: one for key, one in value.items() if key not in gone}, housing.ENTRY: entry}
