"""Which operations of a document become tools, where their server is, and what is wrong with the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from connectors.http.dialling import origin
from gateway.cli.openapi import operations
from gateway.cli.openapi.document import Document, Refused
from gateway.cli.openapi.operations import Found

_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """What is asked for.

    Attributes:
        select: patterns of tools' names; none = all.
        leave: patterns of those that stay away.
        effects: (pattern, effect class), the last one that fits counts.
        outputs: whether answers are held against the document.
    """

    select: Sequence[str] = ()
    leave: Sequence[str] = ()
    effects: Sequence[tuple[str, str]] = ()
    outputs: bool = True

    def takes(self, name: str) -> bool:
        """Whether the operation of that name is to become a tool."""
        wanted = not self.select or any(fnmatchcase(name, pattern) for pattern in self.select)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.leave)

    def effect(self, name: str) -> str | None:
        """The effect class that a person gives it; None = they say nothing."""
        return next((effect for pattern, effect in reversed(self.effects) if fnmatchcase(name, pattern)), None)


@dataclass(slots=True)
class Picked:
    """What is made of a document.

    Attributes:
        entries: of the catalogue, without their server.
        notes: what a person should know, by tool.
        left: what is no tool: names, and kinds that are never carried.
        problems: why it cannot be done.
        locked: tools that take no stranger's call.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    problems: list[Refused] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)


def picked(document: Document, choice: Choice, prefix: str, check: Callable[[dict[str, Any]], list[str]]) -> Picked:
    """The tools of a document.

    Args:
        document: the whole.
        choice: what is asked for.
        prefix: path of its server.
        check: says what is wrong with an entry as the catalogue would take it.
    """
    found, unnamed, left = operations.operations(document)
    result = Picked(left=left)
    # What has no name can be left out only by selecting others.
    result.problems += unnamed if not choice.select else []
    taken = [one for one in found if choice.takes(one.name)]
    result.left += [one.name for one in found if not choice.takes(one.name)]
    result.problems += operations.clashes(taken)
    if len(taken) > _MOST:
        result.problems.append(Refused("#/paths", "too_large", f"{len(taken)} operations; {_MOST} at the most"))
        return result
    for one in taken:
        try:
            _add(document, one, (choice, prefix, check), result)
        except Refused as error:
            result.problems.append(error)
    if not taken and not result.problems:
        result.problems.append(Refused("#/paths", "nothing", "no operation is selected"))
    return result


def _add(
    document: Document, one: Found, how: tuple[Choice, str, Callable[[dict[str, Any]], list[str]]], result: Picked
) -> None:
    choice, prefix, check = how
    made = operations.made(document, one, prefix, outputs=choice.outputs)
    effect = choice.effect(one.name)
    if effect is not None:
        made.entry["effect"] = effect
    for problem in check(made.entry):
        raise one.at.refused("catalogue", problem)
    result.entries.append(made.entry)
    if made.notes:
        result.notes[one.name] = made.notes
    if operations.wants_credential(document, one):
        result.locked.append(one.name)


def server(document: Document, source: str | None, said: str | None) -> tuple[str, str]:
    """Origin and path of the server that the document speaks of.

    Args:
        document: the whole.
        source: URL it came from; None = from a file.
        said: what a person says it is; None = what the document says.

    Raises:
        Refused: it says none, several, or one that is none.
    """
    at = document.top.member("servers")
    named = list(at.items())
    if said is not None:
        url, place = said, document.top.member("servers")
    elif len(named) > 1:
        raise at.refused("servers", "it names several; say which by --base-url")
    else:
        place = named[0].member("url") if named else at
        url = named[0].text("url") if named else "/"
        if "{" in url:
            raise place.refused("server_variables", "its address has variables; say what it is by --base-url")
        if not url.startswith(("http://", "https://")):
            if source is None:
                raise place.refused("servers", "it names no whole address; say what it is by --base-url")
            url = urljoin(source, url)
    try:
        parts = urlsplit(url)
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("an address with a query or fragment is no server's")
        return origin(f"{parts.scheme}://{parts.netloc}").text, parts.path.rstrip("/")
    except ValueError as error:
        raise place.refused("servers", f"its address cannot be used: {error}") from None
