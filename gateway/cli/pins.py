"""``ostiary tool diff`` and ``tool pin``: look at what an upstream now says of a tool, and approve exactly that.

The digest that is approved is computed here, from the text on the screen: a gateway that shows one thing and wants
another one approved is found out.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from gateway.cli import reviewer_key
from gateway.cli.folding import for_screen
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, answer
from gateway.core.lookalikes import guarded
from gateway.core.pinning import pin_message
from gateway.core.tool import ConnectorKind, definition_digest

_MOST: Final = 50


@click.command()
@click.argument("name", required=False)
@reaching
def diff(reach: Reach, name: str | None) -> None:
    """Show what changed in the tool NAME, or in all that wait."""
    names = [name] if name is not None else _waiting(reach)
    found = [_shown(reach, one) for one in names[:_MOST]]
    lines = [line for one in found for line in (*for_screen(list(_lines(one))), *_how(one), "")]
    if len(names) > _MOST:
        lines.append(f"{len(names) - _MOST} more wait: give a NAME")
    answer({"tools": found, "more": max(0, len(names) - _MOST)}, lines or ["every tool is as it was approved"])


@click.command()
@click.argument("name")
@click.option("--digest", required=True, help="What `ostiary tool diff` showed; nothing else is approved.")
@reviewer_key.key_option
@reaching
def pin(reach: Reach, name: str, digest: str, key_file: Path | None) -> None:
    """Approve what `tool diff` showed of NAME; it can be used then."""
    found = _shown(reach, name)
    live = found.get("live")
    if live is None or live["digest"] != digest:
        raise Failed(
            "the upstream says something else than what was shown", f"look again: `ostiary tool diff {guarded(name)}`"
        )
    body: dict[str, Any] = {"digest": digest}
    if found["roles"] or key_file is not None:
        key = reviewer_key.load(key_file)
        before = found.get("approved")
        message = pin_message(found["origin"], name, digest, None if before is None else before["digest"])
        body |= {"key_id": key.id, "signature": key.sign(message)}
    done = reach.post(_path(name), body)
    answer(done, [f"{guarded(done['state'])}  {guarded(done['tool'])}  {guarded(digest)}"])


def _waiting(reach: Reach) -> list[str]:
    return [one["tool"] for one in reach.get("/v1/pins")["pins"] if one["state"] != "pinned"]


def _shown(reach: Reach, name: str) -> dict[str, Any]:
    found: dict[str, Any] = reach.get(_path(name))
    if found.get("tool") == name and all(_is_sound(name, found.get(side)) for side in ("approved", "live")):
        return found
    raise Failed("what the gateway shows is not what its digest names", "approve nothing; tell its operator")


def _is_sound(name: str, described: Mapping[str, Any] | None) -> bool:
    if described is None:
        return True
    server, _, own = name.partition(".")
    bound = {"tool": described["definition"], "binding": {}}
    digest = definition_digest(server, ConnectorKind.MCP, described["endpoint"], bound)
    return bool(digest == described["digest"] and described["definition"].get("name") == own)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    cause = f": {guarded(found['cause'])}" if found.get("cause") else ""
    yield f"{guarded(found['tool'])}  ({guarded(found['state'])}{cause})"
    old, new = found.get("approved"), found.get("live")
    changes = list(difflib.unified_diff(_text(old), _text(new), _title("approved", old), _title("now", new), "", ""))
    changes = [line.rstrip("\n") for line in changes]
    yield from changes or ["no difference to what was approved"]
    for one in found["suspicions"]:
        yield f"! {guarded(one['rule'])} at {guarded(one['path'])}: {guarded(one['excerpt'])}"


def _how(found: Mapping[str, Any]) -> Iterator[str]:
    new = found.get("live")
    if found["state"] != "pinned" and new is not None:  # to be copied: not taken apart
        yield f"approve it: ostiary tool pin {guarded(found['tool'])} --digest {guarded(new['digest'])}"


def _title(side: str, described: Mapping[str, Any] | None) -> str:
    return f"{side}: nothing" if described is None else f"{side}: {guarded(described['digest'])}"


def _text(described: Mapping[str, Any] | None) -> list[str]:
    if described is None:
        return []
    return [f"endpoint: {guarded(described['endpoint'])}", *_told(described["definition"], "")]


def _told(value: Any, path: str) -> Iterator[str]:
    """``value`` as lines that each begin with the place they stand at, so that no text can pose as another member."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _told(value[key], f"{path}/{guarded(json.dumps(key, ensure_ascii=False)[1:-1])}")
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from _told(item, f"{path}/{place}")
    elif isinstance(value, str) and "\n" in value:
        yield from (f"{path} | {guarded(line)}" for line in value.split("\n"))
    else:
        yield f"{path}: {guarded(json.dumps(value, ensure_ascii=False))}"


def _path(name: str) -> str:
    return f"/v1/tools/{quote(name, safe='')}/pin"
