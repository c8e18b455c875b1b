"""A connection taken back: the client's files byte for byte as they were, its upstreams and secrets gone."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.cli.client import adopting, changing, jsonc, receipts
from gateway.cli.client.changing import Change, Found, look
from gateway.cli.client.receipts import FileKept, Receipt, digest
from gateway.cli.screen import Failed


@dataclass(slots=True)
class _Back:
    """What taking back changes.

    Attributes:
        changes: to the files.
        changed: files that were changed by others since, by a name for their copies.
        problems: what speaks against it, unless it is forced.
        stays: whether the upstreams stay in the settings, whatever is done.
    """

    changes: list[Change] = field(default_factory=list)
    changed: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    stays: bool = False


def take_back(client: str, folder: Path, *, forced: bool) -> tuple[Receipt, Path | None]:
    """Undo the newest connection of ``client``, to be called with ``folder`` of receipts held.

    The second value is where files are kept that others had changed since, if that was forced.

    Raises:
        Failed: there is none, or something speaks against it; nothing was changed.
    """
    own, receipt = _newest(client, folder)
    back = _Back()
    for kept in receipt.files:
        _file(kept, own, back, forced=forced)
    _settings(receipt, back)
    for name, was in receipt.secrets.items() if not back.stays else ():  # what refers to them would not start
        _secret(look(Path(name)), was, back)
    if back.problems and not forced:
        raise Failed(
            "\n  ".join(("nothing was changed", *back.problems)),
            "with --force the servers are put back and the other changes kept where that can be; what cannot be kept "
            "is copied",
            {"error": "changed", "problems": back.problems},
        )
    left = receipts.put_aside(own, back.changed)
    try:
        changing.change(back.changes)
    except Failed:
        if left is not None:
            shutil.rmtree(left)
        raise
    gone = [] if back.stays else receipt.added
    changing.sweep(map(Path, (receipt.settings, *receipt.secrets, *(one.path for one in receipt.files))))
    receipts.forget(own)
    added = dict.fromkeys([*gone, *_broken_off(receipt, folder)])
    return receipt.model_copy(update={"added": list(added)}), left


def _broken_off(done: Receipt, folder: Path) -> list[str]:
    """Take back what was begun before and never came to these files; the upstreams that are gone with it.

    A connection of other files, say of another project's, may have been put away for a while.
    """
    mine = [receipt for _, receipt in receipts.kept(folder) if receipt.client == done.client]
    if not mine or not {one.path for one in mine[-1].files} <= {one.path for one in done.files}:
        return []
    if any(digest(look(Path(one.path)).content) != one.before for one in mine[-1].files):
        return []
    try:
        return take_back(done.client, folder, forced=False)[0].added
    except Failed:
        return []  # somebody else needs it by now: it is told whoever asks for it


def _newest(client: str, folder: Path) -> tuple[Path, Receipt]:
    known = receipts.kept(folder)
    mine = [one for one in known if one[1].client == client]
    if not mine:
        raise Failed(f"{client} is not connected, as far as this state folder knows", "name its gateway by --state")
    own, receipt = mine[-1]
    for _, other in known[known.index(mine[-1]) + 1 :]:
        shared = sorted(set(receipt.added) & set(other.used))
        if shared:
            raise Failed(f"{other.client} uses {', '.join(shared)} too", f"`ostiary client undo {other.client}` first")
        again = sorted({one.path for one in receipt.files} & {one.path for one in other.files})
        if again:
            raise Failed(f"{again[0]} was connected again as {other.client}", f"`ostiary client undo {other.client}`")
    return own, receipt


def _file(kept: FileKept, own: Path, back: _Back, *, forced: bool) -> None:
    found = look(Path(kept.path))
    now = digest(found.content)
    before = None if kept.backup is None else (own / kept.backup).read_bytes()
    if now == kept.before:
        return  # the connection was broken off before it came to this file
    if now == kept.after:
        back.changes.append(Change(Found(found.path, found.content, kept.mode), before))
        return
    back.problems.append(f"{kept.path} was changed since")
    if not forced:
        return
    merged = None if found.content is None else _merged(kept, found.content)
    if merged is None and found.content is not None:
        back.changed[f"changed-{len(back.changed)}-{found.path.name}"] = found.content
    back.changes.append(Change(found, before if merged is None else merged))


def _merged(kept: FileKept, content: bytes) -> bytes | None:
    """The file as others left it, with its servers put back; None where they changed those."""
    if kept.backup is None:
        return None
    try:
        text = content.decode()
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        document = jsonc.read(text.removeprefix(mark), comments=True)
        for section in kept.sections:
            path = tuple(section.path)
            node = document.root.at(path)
            if node is None or node.value != section.left:
                return None
            gone, put = ((path[-1],), {}) if section.was is None else ((), {path[-1]: section.was})
            document = jsonc.read(jsonc.swap(document, path[:-1], gone, put), comments=True)
    except (UnicodeDecodeError, jsonc.NotJson):
        return None
    return (mark + document.text).encode()


def _settings(receipt: Receipt, back: _Back) -> None:
    if not receipt.block:
        return
    found = look(Path(receipt.settings))
    text = (found.content or b"").decode(errors="surrogateescape")
    if not _has_any(text, receipt.added):
        return  # it was broken off before, or somebody took them out
    rest = text.replace(receipt.block, "", 1)
    if text.count(receipt.block) != 1 or not _is_without(text, rest, receipt.added):
        back.problems.append(f"{receipt.settings}: what was appended was changed since; it stays, and its secrets do")
        back.stays = True
        return
    is_empty = receipt.opening is not None and rest == receipt.opening
    back.changes.append(Change(found, None if is_empty else rest.encode(errors="surrogateescape")))


def _has_any(text: str, added: Sequence[str]) -> bool:
    try:
        return bool(adopting.parsed(text).get("upstreams", {}).keys() & set(added))
    except (ValueError, AttributeError):
        return True


def _is_without(text: str, rest: str, added: Sequence[str]) -> bool:
    """Whether ``rest`` says what ``text`` says, less what was added: lines below the block may belong to its tables."""
    try:
        whole, left = adopting.parsed(text), adopting.parsed(rest)
    except ValueError:
        return False
    for part in ("upstreams", "credentials"):
        remaining = {name: one for name, one in _section(whole, part).items() if name not in added}
        whole.pop(part, None)
        if remaining != _section(left, part):
            return False
        left.pop(part, None)
    return whole == left


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name, {})
    return found if isinstance(found, dict) else {}


def _secret(found: Found, was: str, back: _Back) -> None:
    if found.content is None:
        return
    if digest(found.content) != was:
        back.problems.append(f"{found.path} was changed since")
        back.changed[f"changed-{len(back.changed)}-{found.path.name}"] = found.content
    back.changes.append(Change(found, None))
