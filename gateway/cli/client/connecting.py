"""Connecting a client: planned, shown, asked for, done, and kept for ``undo``."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli import home
from gateway.cli.client import changing, housing, jsonc, planning, receipts, refusals
from gateway.cli.client.adopting import Adopted
from gateway.cli.client.changing import Change, Found
from gateway.cli.client.housing import Bearer, House
from gateway.cli.client.places import CLIENTS, Place, Surroundings, places
from gateway.cli.client.planning import Addition, Picked, Sheet
from gateway.cli.client.receipts import FileKept, Receipt, SectionKept, digest
from gateway.cli.client.variables import Variables
from gateway.cli.screen import Failed, Misconfigured, shown


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        client: one of ``CLIENTS``, or the path of a file.
        around: where somebody stands.
        house: the gateway.
        who: in whose name the client will call.
        leave: servers that may stay as they are.
        bridged: whether the bridge is used also where the client could do without.
        ask: gives the value of an input that only the client knows.
    """

    client: str
    around: Surroundings
    house: House
    who: Bearer
    leave: Sequence[str]
    bridged: bool
    ask: Callable[[str], str] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that would be changed.

    Attributes:
        wish: what was asked for.
        picked: the servers.
        addition: what the settings get.
        rewritten: client's files that change, with their new bytes.
    """

    wish: Wish
    picked: Picked
    addition: Addition
    rewritten: list[tuple[Sheet, bytes]]

    @property
    def is_empty(self) -> bool:
        """Whether all is as it should be."""
        return not self.rewritten and not self.addition.block

    def document(self) -> dict[str, Any]:
        """For machines; it holds no secret."""
        return {
            "client": self.wish.client,
            "config": str(self.wish.house.config),
            "files": [str(sheet.found.path) for sheet, _ in self.rewritten],
            "servers": [
                {"label": one.label, "upstream": one.name, "new": one.is_new, "secrets": _secrets(one)}
                for one in self.addition.adopted
            ],
            "left": self.picked.left,
        }

    def lines(self) -> list[str]:
        """For people; it holds no secret."""
        said = [f"{sheet.found.path}: the gateway instead of its servers" for sheet, _ in self.rewritten]
        said += [line for one in self.addition.adopted for line in _told(one)]
        said += [f"stays as it is, past the gateway: {shown(one)}" for one in self.picked.left]
        if self.addition.block:
            said.append(f"{self.wish.house.config}: these upstreams are appended, pinned as they first show themselves")
        if self.addition.secrets:
            said.append(f"{self.wish.house.state / 'secrets'}: {len(self.addition.secrets)} secret(s), a file each")
        return said


def target_places(client: str, around: Surroundings) -> list[Place]:
    """Where the client's servers are.

    Raises:
        Misconfigured: it is no client that is known, and no file.
    """
    if client in CLIENTS:
        return places(client, around)
    path = Path(os.path.abspath(client))  # noqa: PTH100 - the link itself is shown, its target is changed
    if not path.is_file():
        names = ", ".join(CLIENTS)
        raise Misconfigured(f"{shown(client)} is no file, and no client that is known", f"give one of {names}, or FILE")
    top = _top(path)
    sections = [name for name in ("mcpServers", "servers") if name in top]
    if top and not sections:
        raise Misconfigured(
            f"{path} holds neither mcpServers nor servers, so where its reader looks for them is not known",
            'if it is a file of that form, give it an empty "mcpServers": {}',
        )
    if len(sections) > 1:
        raise Misconfigured(f"{path} holds both mcpServers and servers", "remove one of them")
    return [Place(path, (sections[0] if sections else "mcpServers",), comments=True)]


def plan(wish: Wish) -> Plan:
    """What would be changed; nothing is.

    Raises:
        Misconfigured: it cannot be done, and why.
    """
    sheets = planning.sheets(target_places(wish.client, wish.around))
    known = {str(place.path): _variables(wish, place) for sheet in sheets for place in sheet.places}
    leave = {str(place.path): _left(wish, place) for sheet in sheets for place in sheet.places}
    picked = planning.pick(sheets, known, leave)
    addition = planning.addition(picked, wish.house, wish.client)
    entry = _entry(wish, addition)
    nowhere = not any(planning.has_servers(sheet, picked.moved) for sheet in sheets)
    rewritten = [
        (sheet, planning.rewritten(sheet, picked.moved, entry, is_first=nowhere and number == 0))
        for number, sheet in enumerate(sheets)
    ]
    changed = [
        (sheet, content)
        for sheet, content in rewritten
        if content != (sheet.found.content or b"{}\n") and (nowhere or planning.has_servers(sheet, picked.moved))
    ]
    for sheet, content in changed:
        _require_clean(sheet, content.decode(), addition)
    return Plan(wish, picked, addition, changed)


def carry_out(made: Plan) -> Path:
    """Do it; the folder of the receipt.

    Raises:
        Failed: nothing was changed.
    """
    house, addition = made.wish.house, made.addition
    home.prepare(house.state)
    with receipts.alone(house.state) as folder:
        receipt, backups = _receipt(made)
        own = receipts.keep(folder, receipt, backups)
        (house.state / "secrets").mkdir(mode=0o700, exist_ok=True)
        secrets = [Change(_only_ours(path), value.encode()) for path, value in addition.secrets.items()]
        settings = [Change(addition.found, addition.content)] if addition.block else []
        files = [Change(sheet.found, content) for sheet, content in made.rewritten]
        try:
            # Settings before clients: a client never speaks to a gateway that does not know its servers.
            changing.change([*secrets, *settings, *files])
        except Failed:
            receipts.forget(own)
            raise
        return own


def _require_clean(sheet: Sheet, text: str, addition: Addition) -> None:
    for one in addition.adopted:
        for name, hidden in one.server.hidden:
            # As it is in a comment, and as JSON writes it where it has quotes or letters of its own.
            at = max(text.find(one) for one in (hidden.value, *_in_json(hidden.value)))
            if at >= 0:
                line = text.count("\n", 0, at) + 1
                raise Misconfigured(
                    f"{sheet.found.path}: the secret {shown(name)} of {shown(one.label)} stands there once more, and "
                    f"would stay (line {line} of what would be written); nothing was changed",
                    "take it out, perhaps of a comment or of a server that is switched off, and do this again",
                )


def _in_json(text: str) -> tuple[str, str]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _only_ours(path: Path) -> Found:
    found = changing.look(path)
    return Found(found.path, found.content, 0o600)


def _top(path: Path) -> dict[str, Any]:
    found = changing.look(path)
    try:
        value = jsonc.read((found.content or b"").decode().removeprefix("\ufeff"), comments=True).root.value
    except (UnicodeDecodeError, jsonc.NotJson):
        return {}  # said where the file is read for good
    return value if isinstance(value, dict) else {}


def _variables(wish: Wish, place: Place) -> Variables:
    is_file = wish.client not in CLIENTS
    return Variables(
        plain=is_file or wish.client == "claude-code",
        marked=is_file or wish.client in {"cursor", "vscode"},
        environment=wish.around.environment,
        home=wish.around.home,
        folder=wish.around.project if is_file else place.folder,
        ask=wish.ask if wish.client == "vscode" or is_file else None,
    )


def _left(wish: Wish, place: Place) -> dict[str, str]:
    off = refusals.refused(wish.around, place.path) if wish.client == "claude-code" else ()
    return dict.fromkeys(off, "Claude Code is told not to use it") | dict.fromkeys(wish.leave, "as you say")


def _entry(wish: Wish, addition: Addition) -> dict[str, Any]:
    can_ask = wish.client == "claude-code" and not wish.bridged and addition.settings.listen.port
    if can_ask:
        return housing.address_entry(addition.settings, wish.house, wish.who)
    return housing.bridge_entry(wish.client, wish.house, wish.who)


def _receipt(made: Plan) -> tuple[Receipt, dict[str, bytes]]:
    kept: list[FileKept] = []
    backups: dict[str, bytes] = {}
    for number, (sheet, content) in enumerate(made.rewritten):
        before = sheet.found.content
        name = None if before is None else f"{number}-{sheet.found.path.name}"
        if name is not None and before is not None:
            backups[name] = before
        kept.append(
            FileKept(
                path=str(sheet.found.path),
                backup=name,
                before=digest(before),
                after=str(digest(content)),
                mode=sheet.found.mode,
                sections=_sections(sheet, content),
            )
        )
    addition = made.addition
    receipt = Receipt(
        client=_client(made.wish),
        files=kept,
        settings=str(addition.found.path),
        block=addition.block,
        opening=addition.opening if addition.block else None,
        added=[one.name for one in addition.adopted if one.is_new],
        used=[one.name for one in addition.adopted],
        secrets={str(path): str(digest(value.encode())) for path, value in addition.secrets.items()},
    )
    return receipt, backups


def _client(wish: Wish) -> str:
    return wish.client if wish.client in CLIENTS else str(changing.look(Path(wish.client)).path)


def _sections(sheet: Sheet, content: bytes) -> list[SectionKept]:
    left = jsonc.read(content.decode().removeprefix("\ufeff"), comments=True)
    sections = []
    for place in sheet.places:
        was, now = sheet.document.root.at(place.section), left.root.at(place.section)
        if now is not None and (was is None or was.value != now.value):
            sections.append(
                SectionKept(path=list(place.section), was=None if was is None else was.value, left=now.value)
            )
    return sections


def _secrets(one: Adopted) -> list[str]:
    return [name for name, _ in one.server.hidden]


def _told(one: Adopted) -> list[str]:
    server = one.server
    where = server.url.partition("?")[0] if server.url else f"{server.command[0]} ..."
    said = [f"  {shown(one.label)} -> upstream {one.name}{'' if one.is_new else ' (there already)'}  {shown(where)}"]
    hidden = _secrets(one)
    plain = [name for name, given in server.env.items() if isinstance(given, str)]
    said += [f"      moves into files: {shown(', '.join(hidden))}"] if hidden else []
    said += [f"      stays readable in the settings: {shown(', '.join(plain))}"] if plain else []
    said += [f"      the gateway's environment needs: {shown(', '.join(server.borrowed))}"] if server.borrowed else []
    said += [f"      not carried over: {shown(', '.join(server.dropped))}"] if server.dropped else []
    return said
