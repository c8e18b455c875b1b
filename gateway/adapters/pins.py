"""Approved tool definitions on disk: what an MCP upstream said when it was trusted.

Failure mode, closed: a file that cannot be read or parsed raises ``Unavailable``; nothing is pinned afresh over it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.errors import Unavailable


@dataclass(slots=True)
class Pins:
    """The pins of one state folder, by server and tool name: ``{"digest": hex, "definition": {...}}``."""

    path: Path
    _servers: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def load(self) -> None:
        """Read the file; a missing one is an empty one.

        Raises:
            Unavailable: unreadable or damaged.
        """
        if not self.path.exists():
            return
        try:
            document = json.loads(self.path.read_text("utf-8"))
            self._servers = {
                str(server): {
                    str(name): {"digest": pin["digest"], "definition": dict(pin["definition"])}
                    for name, pin in pins.items()
                }
                for server, pins in document.items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unavailable(f"the pins file cannot be read ({type(error).__name__})") from error

    def of(self, server: str) -> Mapping[str, Mapping[str, Any]]:
        """The pins of one server by tool name; empty where nothing was ever trusted."""
        return self._servers.get(server, {})

    def add(self, server: str, pins: Mapping[str, Mapping[str, Any]]) -> None:
        """Pin the tools of a server and write the file, atomically.

        Raises:
            Unavailable: the file cannot be written; the pins in force stay as they were.
        """
        servers = {**self._servers, server: {name: dict(pin) for name, pin in pins.items()}}
        fresh = self.path.with_suffix(".new")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(servers, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise Unavailable("the pins file cannot be written") from error
        self._servers = servers
