"""Servers that somebody has told Claude Code not to use: in its settings, not beside the servers themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.cli.client import changing, jsonc
from gateway.cli.client.places import Surroundings
from gateway.cli.screen import Misconfigured

_LISTS: Final = ("disabledMcpjsonServers", "disabledMcpServers")


def refused(around: Surroundings) -> frozenset[str]:
    """Their names, for the project.

    Raises:
        Misconfigured: a file that may say so cannot be read.
    """
    return frozenset(
        name
        for document in _documents(around)
        for member in _LISTS
        for name in _listed(document.get(member))
        if isinstance(name, str)
    )


def _documents(around: Surroundings) -> Iterator[dict[str, Any]]:
    given = around.environment.get("CLAUDE_CONFIG_DIR")
    folder, mine = Path(given) if given else around.home / ".claude", around.project / ".claude"
    projects = _object(_object(_read((Path(given) if given else around.home) / ".claude.json")).get("projects"))
    yield _object(projects.get(str(around.project)))
    for path in (folder / "settings.json", mine / "settings.json", mine / "settings.local.json"):
        yield _object(_read(path))


def _read(path: Path) -> Any:
    text = (changing.look(path).content or b"").decode(errors="replace").removeprefix("\ufeff")
    try:
        return jsonc.read(text if text.strip() else "{}", comments=True).root.value
    except jsonc.NotJson as error:
        raise Misconfigured(f"{path}: {error}; nothing was changed", "correct the file") from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
