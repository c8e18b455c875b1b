"""Tables appended to ``gateway.toml``: read back and compared with what was meant before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli import home
from gateway.cli.client import adopting
from gateway.cli.client.changing import Found
from gateway.cli.client.housing import House
from gateway.cli.screen import Misconfigured
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import proposed

_OPENING: Final = """\
# Ostiary. `ostiary check --config gateway.toml` shows what is in force; `ostiary schema gateway` lists every key.
state = "."
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """What is appended.

    Attributes:
        found: the file as it is on disk.
        opening: what a new file begins with; None where there is one.
        block: the appended text, empty where there are no tables.
        settings: as they will be.
    """

    found: Found
    opening: str | None
    block: str
    settings: GatewaySettings

    @property
    def content(self) -> bytes:
        """The file's new bytes."""
        return ((self.found.content or b"").decode() + (self.opening or "") + self.block).encode()


def document(found: Found) -> dict[str, Any]:
    """The settings file, parsed.

    Raises:
        Misconfigured: it is no TOML.
    """
    try:
        return adopting.parsed((found.content or b"").decode())
    except ValueError as error:  # TOML and UTF-8
        raise Misconfigured(f"{found.path}: not TOML: {error}", "correct the file") from None


def appended(house: House, found: Found, title: str, tables: Mapping[str, Mapping[str, Any]]) -> Appended:
    """``tables`` (by section and name) at the end of the settings, below a line that says ``title``.

    Raises:
        Misconfigured: the settings cannot be used, now or then.
    """
    opening = _OPENING if found.content is None else None
    before = document(found)
    text = (found.content or b"").decode() + (opening or "")
    block = _block(text, title, adopting.written(tables)) if any(tables.values()) else ""
    merged = adopting.merged(adopting.parsed(opening) if opening else before, tables)
    return Appended(found, opening, block, settled(text + block, merged, house))


def settled(text: str, merged: Mapping[str, Any], house: House) -> GatewaySettings:
    """The settings that ``text`` would be, which must say exactly ``merged``.

    Raises:
        Misconfigured: it says something else, or cannot be used.
    """
    try:
        fits = adopting.parsed(text) == merged
    except ValueError:
        fits = False
    if not fits:
        raise Misconfigured(
            f"{house.config} cannot be added to: what is appended would be read as something else",
            'write its upstreams and credentials as tables, [upstreams.NAME], and lists as catalogue = ["FILE"]',
        )
    try:
        return proposed(text, house.config, house.state if house.is_development else None)
    except SettingsError as error:
        raise home.unusable(error) from None


def _block(text: str, title: str, tables: str) -> str:
    lead = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    return f"{lead}# {title}\n{tables}"
