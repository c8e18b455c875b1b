"""The gallery: starter packages that come with the gateway, to be copied under a name of one's own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from gateway.adapters.rego.layers import gallery, shipped

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
# What Rego would not take as a step of a package's name.
_WORDS: Final = re.compile(
    "as|contains|data|default|else|every|false|if|import|in|input|not|null|package|set|some|true|with"
)
_TITLE: Final = re.compile(r"^# title: (.+)$", re.MULTILINE)
_PACKAGE: Final = re.compile(r"^package gateway\.policies\.(\w+)$", re.MULTILINE)
_DATA: Final = "data.json"


class UnfitName(ValueError):
    """No package can be called that."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A package of the gallery.

    Attributes:
        name: its folder, and the last step of its package.
        title: what it is about.
        files: names to text.
    """

    name: str
    title: str
    files: Mapping[str, str]


def starters() -> dict[str, Starter]:
    """The gallery, by name."""
    folders = sorted(path for path in gallery().iterdir() if path.is_dir() and not path.name.startswith("__"))
    found: dict[str, Starter] = {}
    for folder in folders:
        files = {path.name: path.read_text("utf-8") for path in sorted(folder.iterdir()) if path.is_file()}
        title = _TITLE.search(files[f"{folder.name}.rego"])
        found[folder.name] = Starter(folder.name, "" if title is None else title[1], files)
    return found


def copied(starter: Starter, name: str) -> dict[PurePosixPath, str]:
    """The files of ``starter`` as the package ``name``, by their place in a bundle's folder.

    Its settings go where OPA puts the data that it reads: ``house/NAME/data.json`` is ``data.house.NAME``.

    Raises:
        UnfitName: no package can be called ``name``, or one that ships is.
    """
    check_name(name)
    return {
        _place(file, starter.name, name): _renamed(text, starter.name, name) for file, text in starter.files.items()
    }


def check_name(name: str) -> None:
    """Return where a package can be called ``name``.

    Raises:
        UnfitName: it cannot.
    """
    if not _NAME.fullmatch(name) or _WORDS.fullmatch(name):
        raise UnfitName("a package is called by small letters, digits and _, beginning with a letter, 32 at most")
    taken = {found for path in shipped().glob("authz/*.rego") for found in _PACKAGE.findall(path.read_text("utf-8"))}
    if name in taken:
        raise UnfitName(f"the gateway comes with a package {name} that is in force already")


def _place(file: str, old: str, new: str) -> PurePosixPath:
    if file == _DATA:
        return PurePosixPath("house", new, _DATA)
    return PurePosixPath(new, re.sub(rf"^{old}(?=[._])", new, file))


def _renamed(text: str, old: str, new: str) -> str:
    # Packages, the data they read, and the ids of reasons: in strings, and in the list that METADATA holds.
    text = re.sub(rf"\b(gateway\.(?:policies|lib|tests)|house)\.{old}\b", rf"\1.{new}", text)
    return re.sub(rf"""(?<=")({old})(?=\.[a-z_]+")|(?<=^\#\ \ \ \ \ -\ )({old})(?=\.)""", new, text, flags=re.MULTILINE)
