"""What somebody has told Claude Code not to use: servers, in its settings and not beside them, and all hooks."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from gateway.cli.client import changing, jsonc
from gateway.cli.client.places import Surroundings
from gateway.cli.screen import Misconfigured

_ANYWHERE: Final = "disabledMcpServers"
_SHARED: Final = "disabledMcpjsonServers"  # of the project's own file: one of that name elsewhere is another server


def refused(around: Surroundings, place: Path) -> frozenset[str]:
    """The names of those in ``place``, for the project.

    Raises:
        Misconfigured: a file that may say so cannot be read.
    """
    return frozenset(
        name
        for document in _documents(around)
        for member in ((_ANYWHERE, _SHARED) if place == around.project / ".mcp.json" else (_ANYWHERE,))
        for name in _listed(document.get(member))
        if isinstance(name, str)
    )


def settings(around: Surroundings) -> list[Path]:
    """Claude Code's settings files, the widest first: what a later one says counts."""
    given = around.environment.get("CLAUDE_CONFIG_DIR")
    folder, mine = Path(given) if given else around.home / ".claude", around.project / ".claude"
    return [folder / "settings.json", mine / "settings.json", mine / "settings.local.json"]


def hooks_off(paths: Iterable[Path]) -> Path | None:
    """The one of these settings files, the widest first, that silences all hooks.

    Raises:
        Misconfigured: one cannot be read.
    """
    off = None
    for path in paths:
        said = _object(_read(path)).get("disableAllHooks")
        off = (path if said else None) if isinstance(said, bool) else off
    return off


def _documents(around: Surroundings) -> Iterator[dict[str, Any]]:
    given = around.environment.get("CLAUDE_CONFIG_DIR")
    projects = _object(_object(_read((Path(given) if given else around.home) / ".claude.json")).get("projects"))
    yield _object(projects.get(str(around.project)))
    for path in settings(around):
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
