"""Ordinary stdio servers work in their boxes: of both package indexes, of both eras, and with what a call is lent."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs

from connectors.mcp.lent import LentConnector
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector
from gateway.core.call import Handout, Lease
from gateway.core.mcpwire.eras import Era
from gateway.core.sandbox import Capabilities
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES
from tests.stdio_boxes import OPTIONS, PYTHON, accepting, boxes, hostile, seen, writable
from tests.venvs import python


@pytest.fixture(scope="module")
def found() -> Capabilities:
    """What this host holds, tried once."""
    return anyio.run(seen)


def packages() -> tuple[str, ...]:
    """The folder of the tests' environments, by the names that programs in it know it by."""
    folder = python("servers").parents[2]
    return tuple(sorted({str(folder), str(folder.resolve())}))


def boxed(found: Capabilities, argv: list[str], **other: Any) -> StdioConnector:
    """A server in a box that shows the environments of the tests; ``other`` are further fields of the box."""
    enclosure = accepting(found, **{"read": packages(), **other})
    environment = {"PATH": os.defpath, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    command = Command(argv, {**environment, "GIT_CONFIG_VALUE_0": "*"}, boxing=boxes(found, enclosure))
    return StdioConnector(command, list[str]().append, OPTIONS)


async def said(connector: StdioConnector, tool: str, **arguments: Any) -> str:
    """The text of one call's result."""
    result = await connector.invoke(lease(make_tool(tool), arguments))
    assert not result.value.get("isError"), result.value
    text: str = result.value["content"][0]["text"]
    return text


@pytest.mark.requirement("TOOL-7")
async def test_time(found: Capabilities) -> None:
    """mcp-server-time, of the stateless era: it needs its packages and the system's time zones."""
    argv = [str(python("servers")), "-m", "mcp_server_time", "--local-timezone", "UTC"]
    async with boxed(found, argv) as connector:
        assert {tool["name"] for tool in await connector.discover()} == {"get_current_time", "convert_time"}
        assert "Europe/Paris" in await said(connector, "get_current_time", timezone="Europe/Paris")
        assert connector.era is Era.STATELESS


async def test_git(found: Capabilities, tmp_path: Path) -> None:
    """mcp-server-git starts git, which reads a repository that the box shows."""
    if shutil.which("git") is None:
        pytest.skip(reason="git is not installed")
    repository = tmp_path / "repository"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    for words in (["init", str(repository)], ["-C", str(repository), "commit", "--allow-empty", "-m", "The first one"]):
        await anyio.run_process([*git, *words])
    for place in (repository, *repository.rglob("*")):
        place.chmod(place.stat().st_mode | (0o055 if place.is_dir() else 0o044))
    argv = [str(python("servers")), "-m", "mcp_server_git"]
    async with boxed(found, argv, read=(*packages(), str(repository))) as connector:
        assert "The first one" in await said(connector, "git_log", repo_path=str(repository))


async def test_sqlite(found: Capabilities, tmp_path: Path) -> None:
    """mcp-server-sqlite, of the handshake era, keeps its database in a folder that it may write."""
    own = writable(tmp_path / "own")
    argv = [str(python("mcp1").with_name("mcp-server-sqlite")), "--db-path", str(own / "x.db")]
    async with boxed(found, argv, write=(str(own),)) as connector:
        await said(connector, "create_table", query="create table t (n int)")
        await said(connector, "write_query", query="insert into t values (42)")
        assert "42" in await said(connector, "read_query", query="select n from t")
        assert connector.era is Era.HANDSHAKE
    assert (own / "x.db").stat().st_size > 0


async def test_node(found: Capabilities) -> None:
    """A server on the official SDK for Node, under caps that Node's own appetite for address space does not meet."""
    modules = python("servers").parents[2] / "conformance" / "node_modules"
    nodes = (*modules.glob("node-linux-*/bin/node"), Path("/usr/bin/node"))
    node = next((path for path in nodes if path.exists()), None)
    if node is None or _version(node) < (18,):
        pytest.skip(reason="no Node of version 18 or newer here")
    argv = [str(node), str(FIXTURES / "node_stdio.mjs"), str(modules / "@modelcontextprotocol" / "sdk")]
    async with boxed(found, argv, read=(*packages(), str(FIXTURES))) as connector:
        told = json.loads(await said(connector, "versions"))
    assert set(told["env"]) - {"PWD"} == {
        "HOME", "LANG", "PATH", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0",
    }  # fmt: skip


def _version(node: Path) -> tuple[int, ...]:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in done.stdout.strip().lstrip("v").split("."))


async def test_a_lent_file_is_there_in_the_box(found: Capabilities) -> None:
    """A call's own credential reaches the one process it is for, though that sees no folder of the host."""
    command = Command([PYTHON, "-I", str(FIXTURES / "hostile_stdio.py"), "lent"], boxing=boxes(found))
    async with LentConnector(command, list[str]().append, OPTIONS) as connector:
        for text in ("the first call's", "the second call's"):
            handout = Handout("LENT_FILE", text, in_file=True)
            given = await connector.invoke(lent(handout))
            assert given.value["structuredContent"]["said"]["lent"] == text


def lent(handout: Handout) -> Lease:
    """A call that is lent a credential."""
    return structs.replace(lease(make_tool("facts"), {}), handout=handout)


async def test_complaints_are_bounded(found: Capabilities) -> None:
    """What a server in a box writes to its standard error is heard, and cut as anybody's."""
    async with hostile(boxes(found), env={"SECRET": "x" * 10_000}, log_lines=1) as up:
        await up.connector.ping()
        (complaint,) = [line for line in up.log if "complains" in line]
        assert len(complaint) == 2048
