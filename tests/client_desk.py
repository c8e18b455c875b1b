"""A person's machine for tests of ``ostiary client``: a home, a project and a state folder that exist for one test."""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli.root import ostiary

TOKEN = "tok-9f8e7d6c5b4a"
PASSWORD = "pw-hunter2-4711"
CURSOR = """\
{
  // my servers
  "mcpServers": {
    "GitHub Tools": {
      "url": "https://tracker.example.org/mcp",
      "headers": { "Authorization": "Bearer tok-9f8e7d6c5b4a" },
    },
    // the database
    "db": {
      "command": "npx",
      "args": ["-y", "db-server", "postgresql://u:pw-hunter2-4711@db.example.org/erp"],
      "env": { "LOG_LEVEL": "debug", "API_TOKEN": "tok-second-0001" }
    }, /* both */
    "gateway": { "command": "uvx", "args": ["mcp-server-time"], "timeout": 5 }
  },
  "other": [1, 2]
}
"""


@dataclass(frozen=True)
class Desk:
    """A person's machine."""

    home: Path
    project: Path
    state: Path

    def run(self, *words: str, env: dict[str, str] | None = None, typed: str | None = None) -> Result:
        """Run ``ostiary client`` there."""
        place = {"HOME": str(self.home), "XDG_CONFIG_HOME": None, "CLAUDE_CONFIG_DIR": None, **(env or {})}
        state = [] if "--config" in words else ["--state", str(self.state)]
        return CliRunner().invoke(ostiary, ["client", *words, *state], env=place, input=typed)

    def connect(self, *words: str, **more: Any) -> Result:
        """Connect without being asked."""
        return self.run("connect", *words, "--project", str(self.project), "--yes", **more)

    def file(self, name: str, text: str | bytes) -> Path:
        """A file below the home or, beginning with ``project/``, of the project."""
        path = self.home.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    @property
    def settings(self) -> dict[str, Any]:
        """``gateway.toml``, parsed."""
        return tomllib.loads((self.state / "gateway.toml").read_text("utf-8"))

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """All files of home and project, with their modes."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mode)
            for root in (self.home, self.project)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def servers(path: Path, key: str = "mcpServers") -> Any:
    """The servers a client finds in ``path``; the file must be strict JSON by then, comments aside."""
    lines = [re.sub(r"(^|\s)//.*", "", line) for line in path.read_text("utf-8-sig").splitlines()]
    return json.loads("\n".join(lines).replace("/* both */", ""))[key]


def furnished(folder: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    for name in ("home", "project"):
        (folder / name).mkdir()
    return Desk(folder / "home", folder / "project", folder / "state")
