"""Stdio servers in boxes for tests: what this host holds, and a hostile server behind a connector."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anyio import fail_after

from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.sandbox import Capabilities, Enclosure
from gateway.core.tool import ToolLimits
from sandbox.runner import BwrapRunner, Options
from sandbox.served import Boxes, Tools
from tests.boxes import require
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES

# A user id that is nobody's on a test machine: who owns the folders that servers of a root gateway may write.
OWNER = 61_171
PYTHON = "/usr/bin/python3"
OPTIONS = StdioOptions(setup_timeout_s=30, first_pause_s=0.05, longest_pause_s=0.2)


async def seen() -> Capabilities:
    """What this host holds; skips the test where it has no sandbox, with the reason."""
    async with BwrapRunner() as runner:
        found = await runner.probe()
    require(found)
    return found


def accepting(found: Capabilities, **other: Any) -> Enclosure:
    """A box that this host can make; ``other`` are further fields."""
    return replace(Enclosure(read=(str(FIXTURES),), accept_missing=found.missing), **other)


def writable(folder: Path) -> Path:
    """``folder``, made so that servers of this gateway may be given it to write."""
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, OWNER, OWNER)
    return folder


@dataclass(slots=True)
class Hostile:
    """The hostile server behind a connector.

    Attributes:
        mark: the name of its processes.
        log: what the connector was told to log.
    """

    connector: StdioConnector
    mark: str
    log: list[str] = field(default_factory=list)

    async def call(self, tool: str, **arguments: Any) -> Any:
        """What one tool says; it must end by itself."""
        made = make_tool(tool, limits=ToolLimits(timeout_s=30))
        with fail_after(60):
            return (await self.connector.invoke(lease(made, arguments))).value["structuredContent"]["said"]


@asynccontextmanager
async def hostile(boxing: Boxes | None, **other: Any) -> AsyncIterator[Hostile]:
    """The hostile server, in a box or not; ``other`` are further ``Command`` fields."""
    mark, log = f"h-{uuid.uuid4().hex[:12]}", list[str]()
    command = Command([PYTHON, "-I", str(FIXTURES / "hostile_stdio.py"), mark], boxing=boxing, **other)
    async with StdioConnector(command, log.append, OPTIONS) as connector:
        yield Hostile(connector, mark, log)


def boxes(found: Capabilities, enclosure: Enclosure | None = None, options: Options | None = None) -> Boxes:
    """Boxes of an enclosure that this host can make."""
    options = options or Options()
    return Boxes(options, Tools.found(options), found, enclosure or accepting(found))
