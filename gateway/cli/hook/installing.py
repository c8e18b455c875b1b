"""Putting a hook in place: the agent's file gets it, the gateway gets an upstream that stands for the agent."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.cli import home
from gateway.cli.client import appending, changing, housing, jsonc, planning, receipts, refusals
from gateway.cli.client.adopting import fitting
from gateway.cli.client.appending import Appended
from gateway.cli.client.changing import Change
from gateway.cli.client.housing import Bearer, House
from gateway.cli.client.places import Place, Surroundings
from gateway.cli.client.planning import Sheet
from gateway.cli.client.receipts import FileKept, Receipt, SectionKept, digest
from gateway.cli.screen import Failed, Misconfigured, shown

# Longer than the hook itself ever takes: what the agent breaks off it may let pass.
_TIMEOUT_S: Final = 60
_SECTION: Final = ("hooks",)
_MARK: Final = "client pre-tool "
_MOST_NAMES: Final = 99


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        agent: one of ``DIALECTS``.
        around: where somebody stands.
        in_project: whether the hook is the project's, not the person's.
        house: the gateway.
        who: in whose name the hook asks.
    """

    agent: str
    around: Surroundings
    in_project: bool
    house: House
    who: Bearer


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that would be changed.

    Attributes:
        wish: what was asked for.
        server: the upstream that stands for the agent.
        appended: what the settings get.
        sheet: the agent's file.
        content: its new bytes.
    """

    wish: Wish
    server: str
    appended: Appended
    sheet: Sheet
    content: bytes

    @property
    def is_empty(self) -> bool:
        """Whether all is as it should be."""
        return self.content == self.sheet.found.content and not self.appended.block

    def document(self) -> dict[str, Any]:
        """For machines."""
        house = self.wish.house
        return {
            "client": self.wish.agent,
            "config": str(house.config),
            "file": str(self.sheet.found.path),
            "upstream": self.server,
        }

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.sheet.found.path}: the hook, which asks before each tool of the agent's own"]
        if self.appended.block:
            said.append(f"{self.wish.house.config}: [upstreams.{self.server}] is appended; it stands for the agent")
        return said


def receipt_name(agent: str) -> str:
    """What the receipt of a hook is kept under."""
    return f"{agent} hook"


def plan(wish: Wish) -> Plan:
    """What would be changed; nothing is.

    Raises:
        Misconfigured: it cannot be done, and why.
    """
    place = _place(wish)
    [sheet] = planning.sheets([place])
    if wish.agent == "claude-code":
        _require_hooks(wish)
    found = changing.look(wish.house.config)
    server, is_new = _server(wish.agent, appending.document(found))
    tables = {"upstreams": {server: {"kind": "hook", "client": wish.agent}}} if is_new else {"upstreams": {}}
    title = f"What {wish.agent} does itself, by `ostiary client hook`; `ostiary client undo --hook` takes it out."
    appended = appending.appended(wish.house, found, title, tables)
    return Plan(wish, server, appended, sheet, _rewritten(sheet, wish, server))


def carry_out(made: Plan) -> Path:
    """Do it; the folder of the receipt.

    Raises:
        Failed: nothing was changed.
    """
    house, appended, before = made.wish.house, made.appended, made.sheet.found.content
    home.prepare(house.state)
    with receipts.alone(house.state) as folder:
        name = made.sheet.found.path.name
        own = receipts.keep(folder, _receipt(made), {} if before is None else {name: before})
        settings = [Change(appended.found, appended.content)] if appended.block else []
        try:
            # The gateway first: until it knows the agent, every question is answered with no.
            changing.change([*settings, Change(made.sheet.found, made.content)])
        except Failed:
            receipts.forget(own)
            raise
        return own


def _require_hooks(wish: Wish) -> None:
    known = refusals.settings(wish.around)
    off = refusals.hooks_off(known if wish.in_project else known[:1])
    if off is not None:
        raise Misconfigured(f"{off}: disableAllHooks switches this hook off, too", "take it out first")


def _place(wish: Wish) -> Place:
    around = wish.around
    if wish.agent == "cursor":
        folder = around.project if wish.in_project else around.home
        return Place(folder / ".cursor" / "hooks.json", _SECTION, comments=False)
    if wish.in_project:  # not the file that is committed: paths of this machine stand in it
        return Place(around.project / ".claude" / "settings.local.json", _SECTION, comments=False)
    own = around.environment.get("CLAUDE_CONFIG_DIR")
    folder = Path(own) if own else around.home / ".claude"
    return Place(folder / "settings.json", _SECTION, comments=False)


def _server(agent: str, document: Mapping[str, Any]) -> tuple[str, bool]:
    """The upstream that stands for the agent, and whether it is new."""
    upstreams = document.get("upstreams", {})
    known: Mapping[str, Any] = upstreams if isinstance(upstreams, dict) else {}
    wished = fitting(agent)
    for number in range(1, _MOST_NAMES):
        name = wished if number == 1 else f"{wished}-{number}"
        entry = known.get(name)
        if entry is None:
            return name, True
        if isinstance(entry, dict) and entry.get("kind") == "hook" and entry.get("client") == agent:
            return name, False
    raise Misconfigured(f"no name is left for {agent}", "remove some [upstreams.*]")


def command(wish: Wish, server: str) -> str:
    """The shell command that the agent runs. Whatever keeps it from an answer ends it with 2, which means no."""
    who, house = wish.who, wish.house
    words = [*housing.program(), *_MARK.split(), wish.agent, "--server", server, *house.words]
    return f"{shlex.join([*words, '--user', who.user, '--agent', who.agent])} || exit 2"


def _rewritten(sheet: Sheet, wish: Wish, server: str) -> bytes:
    event = "preToolUse" if wish.agent == "cursor" else "PreToolUse"
    section = sheet.document.root.at(_SECTION)
    listed = {} if section is None else section.value
    others = [entry for entry in _listed(listed.get(event, []), sheet) if not _is_ours(entry)]
    text = jsonc.swap(sheet.document, _SECTION, (), {event: [*others, _entry(wish, server)]})
    document = jsonc.read(text, comments=False)
    if wish.agent == "cursor" and document.root.at(("version",)) is None:
        document = jsonc.read(jsonc.swap(document, (), (), {"version": 1}), comments=False)
    return (sheet.mark + document.text).encode()


def _listed(value: Any, sheet: Sheet) -> list[Any]:
    if not isinstance(value, list):
        raise Misconfigured(f"{sheet.found.path}: the hooks before a tool are no list", "correct the file")
    return value


def _entry(wish: Wish, server: str) -> dict[str, Any]:
    words = command(wish, server)
    if wish.agent == "cursor":
        return {"command": words, "timeout": _TIMEOUT_S, "failClosed": True}
    return {"matcher": "*", "hooks": [{"type": "command", "command": words, "timeout": _TIMEOUT_S}]}


def _is_ours(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    inner = entry.get("hooks")
    parts = [entry, *inner] if isinstance(inner, list) and len(inner) == 1 else [entry]
    return any(isinstance(part, dict) and _MARK in str(part.get("command", "")) for part in parts)


def _receipt(made: Plan) -> Receipt:
    found, appended = made.sheet.found, made.appended
    left = jsonc.read(made.content.decode().removeprefix("\ufeff"), comments=False).root.at(_SECTION)
    was = made.sheet.document.root.at(_SECTION)
    assert left is not None
    section = SectionKept(path=list(_SECTION), was=None if was is None else was.value, left=left.value)
    kept = FileKept(
        path=str(found.path),
        backup=None if found.content is None else found.path.name,
        before=digest(found.content),
        after=str(digest(made.content)),
        mode=found.mode,
        sections=[section],
    )
    return Receipt(
        client=receipt_name(made.wish.agent),
        files=[kept],
        settings=str(appended.found.path),
        block=appended.block,
        opening=appended.opening if appended.block else None,
        added=[made.server] if appended.block else [],
        used=[made.server],
        secrets={},
    )


def told(made: Plan, receipt: Path) -> list[str]:
    """What is said once it is done."""
    house, who, server = made.wish.house, made.wish.who, made.server
    lines = [f"done; a copy of the file as it was: {receipt}"]
    if house.is_development:
        lines.append(f"now: ostiary up --state {shown(str(house.state))}")
    else:
        lines.append(f"start the gateway anew: ostiary serve --config {shown(str(house.config))}")
        lines.append(f"nothing is allowed until policy allows it; {shown(who.agent)} and {shown(who.user)} need, say,")
        lines.append(f'  allow = ["{server}.hooks/Read"] in [policy.data.gateway.scope.agents.*] and users.*')
    undo = f"ostiary client undo {made.wish.agent} --hook"
    return [*lines, f"then start the agent anew; while no gateway runs it can do nothing; `{undo}` takes it back"]
