"""Which recorded decisions are meant, and where they and the policies that made them come from."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.moments import ago_or_moment
from gateway.cli.policies.events import Recorded, in_file, page, parsed, recorded
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, Misconfigured, shown
from gateway.core.bundle import Bundle, BundleError, Module, bundled

_PAGE = 200
_ASKING_S = 60.0
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which recorded decisions are meant: every given condition must hold.

    Attributes:
        since_us, until_us: first and last microsecond, inclusive.
        tool: ``server.tool`` or a pattern with ``*``.
        limit: most of them, oldest first.
        file: an exported file in place of the gateway's log.
        revisions: folder of exported revisions in place of the gateway's store.
    """

    since_us: int | None = None
    until_us: int | None = None
    tool: str | None = None
    agent: str | None = None
    limit: int = 10_000
    file: Path | None = None
    revisions: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; ``more`` says that the limit cut it short."""

    decisions: tuple[Recorded, ...]
    more: bool


def picking(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says which decisions are meant, and pass a ``Reach`` and a ``Wanted`` first."""
    path = click.Path(path_type=Path)

    @click.option("--since", "since_us", callback=ago_or_moment, help="Not before: 24h, 7d, or ISO 8601.")
    @click.option("--until", "until_us", callback=ago_or_moment, help="Not after.")
    @click.option("--tool", help="Tool, or a pattern such as 'erp.*'.")
    @click.option("--agent", help="Agent.")
    @click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Most decisions.")
    @click.option("--from", "file", type=path, metavar="FILE", help="Read an exported file instead of the log.")
    @click.option("--revisions", type=path, metavar="DIR", help="Read exported revisions instead of the gateway's.")
    @reaching
    @functools.wraps(command)
    def run(reach: Reach, **given: Any) -> None:
        names = Wanted.__dataclass_fields__
        wanted = Wanted(**{name: given.pop(name) for name in names})
        command(reach, wanted, **given)

    return run


def lines(reach: Reach, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """The events as JSON texts, each with its place; those of a file whatever the conditions.

    Raises:
        Failed: no gateway there, or it refused, or the file cannot be read.
    """
    if wanted.file is not None:
        yield from in_file(wanted.file)
        return
    query = {"since_us": wanted.since_us, "until_us": wanted.until_us, "tool": wanted.tool, "agent": wanted.agent}
    yield from _asked(reach, query)


def _asked(reach: Reach, query: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    after: int | None = None
    with reach.line(_ASKING_S) as line:
        while True:
            found = page(line.content("/v1/audit/decisions", {**query, "after": after, "limit": _PAGE}))
            yield from (("the gateway", bytes(raw)) for raw in found.decisions)
            if found.next is None:
                return
            after = found.next


def decisions(reach: Reach, wanted: Wanted) -> Found:
    """The recorded decisions, oldest first.

    Raises:
        Failed: they cannot be had, or one of them is none.
    """
    every = (recorded(parsed(raw, place)) for place, raw in lines(reach, wanted))
    meant = (one for one in every if is_meant(one, wanted))
    found = tuple(itertools.islice(meant, wanted.limit))
    return Found(found, more=next(meant, None) is not None)


def of_call(reach: Reach, wanted: Wanted, call_id: str) -> tuple[Recorded, ...]:
    """The recorded decisions of one call: one, or another one for each time it was decided again.

    Raises:
        Failed: as ``decisions`` does.
    """
    if wanted.file is not None:
        found = decisions(reach, wanted).decisions
    else:
        found = tuple(recorded(parsed(raw, place)) for place, raw in _asked(reach, {"call_id": call_id}))
    return tuple(one for one in found if one.event.ostiary.call_id == call_id)


class Revisions:
    """The policies of the past, by revision, from the gateway or from a folder; each is checked against its digest."""

    def __init__(self, reach: Reach, folder: Path | None) -> None:
        self._reach = reach
        self._folder = folder

    def bundle(self, revision: str) -> Bundle | None:
        """The bundle of that revision, or None where it is not kept any more.

        Raises:
            Failed: no gateway there, or what it gives is not that revision.
        """
        given = self.document(revision)
        return None if given is None else _bundle(revision, given)

    def document(self, revision: str) -> dict[str, Any] | None:
        """The revision as the gateway gives it; None where it is not kept."""
        if self._folder is not None:
            return _in_folder(self._folder, revision)
        try:
            found: dict[str, Any] = self._reach.get(f"/v1/policy/revisions/{quote(revision, safe='')}")
        except Failed as error:
            if isinstance(error.document, dict) and error.document.get("status") == _NOT_FOUND:
                return None
            raise
        return found


def is_meant(one: Recorded, wanted: Wanted) -> bool:
    """Whether every condition holds; the gateway looks at them, too, but a file has whatever was put into it."""
    at_us, tool = one.at_us, one.tool
    if wanted.since_us is not None and at_us < wanted.since_us:
        return False
    if wanted.until_us is not None and at_us > wanted.until_us:
        return False
    if wanted.tool is not None and not fnmatchcase(tool, wanted.tool):
        return False
    # The gateway finds an agent by the record, also where the input is gone.
    return wanted.agent is None or wanted.file is None or one.agent == wanted.agent


def _in_folder(folder: Path, revision: str) -> dict[str, Any] | None:
    # The name comes from a record: only a digest may become a path.
    if not revision.isalnum():
        return None
    path = folder / f"{revision}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Misconfigured(f"{path} is no revision", "give a folder that `ostiary policy decisions` wrote")
    return found


def _bundle(revision: str, given: dict[str, Any]) -> Bundle:
    try:
        modules = [Module(name, text) for name, text in given["modules"]]
        bundle = bundled(modules, json.loads(given["data"]))
    except (BundleError, KeyError, TypeError, ValueError):
        raise Misconfigured(f"revision {shown(revision)} cannot be read") from None
    if bundle.revision != revision:
        raise Misconfigured(
            f"what is given as revision {shown(revision)} is {bundle.revision}",
            "a replay on another policy than that of the record would say nothing",
        )
    return bundle
