"""Where clients keep the MCP servers they know, as their makers document it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLIENTS: Final = ("claude-code", "claude-desktop", "cursor", "vscode")


@dataclass(frozen=True, slots=True)
class Place:
    """An object of servers in a file.

    Attributes:
        path: the file; it may not exist.
        section: keys that lead to the object.
        comments: whether the client takes comments in it.
        folder: where the client starts these servers, if that is known.
    """

    path: Path
    section: tuple[str, ...]
    comments: bool
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where somebody stands.

    Attributes:
        home: the person's own folder.
        project: the folder of the project, absolute.
        environment: variables.
        platform: as ``sys.platform`` names it.
    """

    home: Path
    project: Path
    environment: Mapping[str, str]
    platform: str = sys.platform

    @property
    def applications(self) -> Path:
        """Where desktop applications keep their settings."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        return Path(self.environment.get("XDG_CONFIG_HOME") or self.home / ".config")


def surroundings(project: Path) -> Surroundings:
    """Those of this process."""
    return Surroundings(Path.home(), Path(os.path.abspath(project)), os.environ)  # noqa: PTH100 - keeps symlinks


def places(client: str, around: Surroundings) -> list[Place]:
    """All places of ``client``, the widest first; that is where the gateway is put where no server is known yet."""
    return {
        "claude-code": _claude_code,
        "claude-desktop": _claude_desktop,
        "cursor": _cursor,
        "vscode": _vscode,
    }[client](around)


def _claude_code(around: Surroundings) -> list[Place]:
    own = Path(around.environment.get("CLAUDE_CONFIG_DIR") or around.home) / ".claude.json"
    return [
        Place(own, ("mcpServers",), comments=False),
        Place(own, ("projects", str(around.project), "mcpServers"), comments=False, folder=around.project),
        Place(around.project / ".mcp.json", ("mcpServers",), comments=False, folder=around.project),
    ]


def _claude_desktop(around: Surroundings) -> list[Place]:
    path = around.applications / "Claude" / "claude_desktop_config.json"
    return [Place(path, ("mcpServers",), comments=False)]


def _cursor(around: Surroundings) -> list[Place]:
    return [
        Place(around.home / ".cursor" / "mcp.json", ("mcpServers",), comments=True),
        Place(around.project / ".cursor" / "mcp.json", ("mcpServers",), comments=True, folder=around.project),
    ]


def _vscode(around: Surroundings) -> list[Place]:
    return [
        Place(around.applications / "Code" / "User" / "mcp.json", ("servers",), comments=True),
        Place(around.project / ".vscode" / "mcp.json", ("servers",), comments=True, folder=around.project),
    ]
