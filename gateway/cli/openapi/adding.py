"""An API added to a gateway: a catalogue file of its own beside the settings, and an upstream at their end."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from connectors import http
from gateway.cli import home
from gateway.cli.client import adopting, appending, changing, recording
from gateway.cli.client.changing import Change, Found
from gateway.cli.client.housing import House
from gateway.cli.openapi.picking import Picked
from gateway.cli.screen import Misconfigured, shown
from gateway.core import schema
from gateway.core.suspicion import Names, rules_of, suspicions
from gateway.settings import GatewaySettings, SettingsError, catalogue
from gateway.settings.catalogue import ToolEntry

_LIST: Final = re.compile(r"(?m)^catalogue[ \t]*=[ \t]*\[")


@dataclass(frozen=True, slots=True)
class Target:
    """Where an API is added.

    Attributes:
        name: of the upstream.
        house: the gateway.
        section: what the settings say of the upstream.
    """

    name: str
    house: House
    section: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The catalogue file; its name is made of the upstream's only."""
        return self.house.config.parent / f"{self.name}.catalogue.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that would be changed.

    Attributes:
        target: where.
        picked: the tools.
        changes: to files; none = all is as it should be.
        odd: rules that words of the document break, by tool; they reach the model.
    """

    target: Target
    picked: Picked
    changes: tuple[Change, ...]
    odd: Mapping[str, tuple[str, ...]]

    @property
    def is_empty(self) -> bool:
        """Whether all is as it should be."""
        return not self.changes

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "upstream": self.target.name,
            "origin": self.target.section["origin"],
            "config": str(self.target.house.config),
            "catalogue": str(self.target.file),
            "tools": [
                {"name": one["name"], "effect": one["effect"], "method": one["http"]["method"]}
                for one in self.picked.entries
            ],
            "notes": self.picked.notes,
            "left": self.picked.left,
            "suspicious": {name: list(rules) for name, rules in self.odd.items()},
            "locked": self.picked.locked,
        }

    def lines(self) -> list[str]:
        """For people."""
        picked, target = self.picked, self.target
        said = [f"{shown(str(target.section['origin']))} -> upstream {target.name}, {len(picked.entries)} tools"]
        for one in picked.entries:
            said.append(f"  {one['effect']:<12} {one['http']['method']:<7} {shown(one['name'])}")
            said += [f"      {shown(note)}" for note in picked.notes.get(one["name"], ())]
            odd = self.odd.get(one["name"], ())
            said += [f"      its words are suspicious ({', '.join(odd)}): read them"] if odd else []
        said += [f"left out: {shown(', '.join(picked.left))}"] if picked.left else []
        if picked.locked and "credential" not in target.section:
            said.append(f"{len(picked.locked)} of them want a credential: [credentials.*], then --credential NAME")
        said += [f"{one.was.path}: {'written' if one.was.content is None else 'changed'}" for one in self.changes]
        return said


def checked(target: Target, entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with an entry as the catalogue, the connector and the schemas' reader would take it."""
    try:
        made = ToolEntry.model_validate({"server": target.name, **entry})
        tool = catalogue.sketch(made)
        schema.compile(tool.definition["inputSchema"])
        schema.compile(tool.definition.get("outputSchema", True))
    except ValidationError as error:
        return [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    except schema.SchemaRefused as error:
        return [f"a schema cannot be used: {error}"]
    return http.check(tool)


def plan(target: Target, picked: Picked, *, replace: bool) -> Plan:
    """What would be changed; nothing is.

    Raises:
        Misconfigured: it cannot be done, and why.
    """
    config, file = changing.look(target.house.config), changing.look(target.file)
    entries = [{"server": target.name, **one} for one in picked.entries]
    written = (json.dumps({"tool": entries}, indent=1) + "\n").encode()
    if file.content is not None and file.content != written and not replace:
        raise Misconfigured(
            f"{target.file} is there, and says something else",
            "--replace writes it anew; a copy of what it says is kept",
        )
    text, settings = _settings(target, config)
    _check_names(target, entries, settings)
    changes = [Change(Found(file.path, file.content, 0o600 if file.content is None else file.mode), written)]
    changes.append(Change(config, text.encode()))
    names = Names.of((target.name, one["name"]) for one in entries)
    found = {one["name"]: rules_of(suspicions(target.name, _words(one), names)) for one in entries}
    odd = {name: tuple(rules) for name, rules in found.items() if rules}
    if odd and settings.governance.suspicious == "hold":
        told = "; ".join(f"{name}: {', '.join(rules)}" for name, rules in odd.items())
        raise Misconfigured(
            f"suspicious words, which your settings leave to people: {shown(told)}", "leave these out by --leave"
        )
    return Plan(target, picked, tuple(one for one in changes if one.content != one.was.content), odd)


def carry_out(made: Plan) -> Path:
    """Do it; the folder with copies of what was there.

    Raises:
        Failed: nothing was changed.
    """
    return recording.carry_out(made.target.house, f"upstream {made.target.name}", made.changes)


def _settings(target: Target, config: Found) -> tuple[str, GatewaySettings]:
    """The settings' new text, and what it says: this upstream and this catalogue file besides, and nothing else."""
    house, document = target.house, appending.document(config)
    upstreams = document.get("upstreams", {})
    there = upstreams.get(target.name) if isinstance(upstreams, dict) else None
    if there is not None and there != target.section:
        raise Misconfigured(
            f"{house.config}: [upstreams.{target.name}] is there, and says something else", "take another name"
        )
    tables = {"upstreams": {} if there else {target.name: dict(target.section)}}
    title = f"An API, by `ostiary upstream add`; its tools are in {target.file.name}."
    made = appending.appended(house, config, title, tables)
    text, listed = made.content.decode(), document.get("catalogue", [])
    merged = adopting.parsed(text)
    if isinstance(listed, list) and target.file.name not in listed:
        text = _listed(text, target.file.name)
        merged = {**merged, "catalogue": [target.file.name, *listed]}
    return text, appending.settled(text, merged, house)


def _listed(text: str, name: str) -> str:
    quoted = json.dumps(name)
    at = _LIST.search(text)
    if at is not None:
        return f"{text[: at.end()]}{quoted}, {text[at.end() :]}"
    return f"catalogue = [{quoted}]\n{text}"  # above all tables, or it would belong to the last one


def _check_names(target: Target, entries: Sequence[Mapping[str, Any]], settings: GatewaySettings) -> None:
    others = [path for path in settings.catalogue if path.resolve() != target.file.resolve()]
    try:
        declared = catalogue.load(others)
    except SettingsError as error:
        raise home.unusable(error) from None
    own = [ToolEntry.model_validate(one) for one in entries]
    taken = {entry.name for entry in declared if entry.server == target.name}
    twice = sorted(entry.name for entry in own if entry.name in taken)
    wires = Counter(catalogue.sketch(entry).wire_name for entry in own)
    twice += sorted(name for name, count in wires.items() if count > 1)
    if twice:
        raise Misconfigured(
            f"these names are taken already: {shown(', '.join(twice))}", "leave them out by --leave, or the others"
        )


def _words(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": entry["name"], "description": entry["description"], "inputSchema": entry["input_schema"]}
