"""The official MCP conformance suite, run against a server that wants a bearer token.

The suite cannot send one, so its requests pass a proxy that adds the header and changes nothing else: Host and Origin
stay as they were sent.
"""

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from deploy.servers.process import short_folder

_SUITE: Final = "@modelcontextprotocol/conformance"
_MOST_HEAD: Final = 64 * 1024
_VERDICT: Final = re.compile(r"^([✓✗]) ([\w/-]+): \d+ passed, \d+ failed(?:, \d+ warnings)?$", re.MULTILINE)
_CLIENT: Final = re.compile(r"^client:\n((?:  - \S+\n)+)", re.MULTILINE)
_ASIDE: Final = re.compile(r"^  - scenario: (\S+)\n    leg: client$", re.MULTILINE)
# A scenario's own bound is half a minute; all of them run at once, on however slow a machine.
_PATIENCE_MS: Final = "240000"
_UNSCORED: Final = re.compile(r"^  [✓✗] ([\w/-]+) \(", re.MULTILINE)

Doing = Callable[[str, str, Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Verdict:
    """What the suite says of the scenarios that it scores.

    Attributes:
        passed: names of scenarios.
        failed: names of scenarios.
        said: all that it printed.
    """

    passed: frozenset[str]
    failed: frozenset[str]
    said: str


def installed() -> tuple[Path, Path]:
    """Node, and the suite's package; skips the test where they are not there."""
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parents[2] / ".venvs")
    modules = root / "conformance" / "node_modules"
    # Where it is, not by its link: not every npm makes one.
    node = next(modules.glob("node-linux-*/bin/node"), None)
    if node is None:
        pytest.skip(f"no Node in {modules}: the conformance suite is not run (`make setup`, Debian: apt install npm)")
    return node, modules / _SUITE


async def judge(url: str, revision: str, folder: Path) -> Verdict:
    """Run all that ``revision`` requires of a server against ``url``; the details are left in ``folder``.

    Skips the test where the suite is not installed.
    """
    node, package = installed()
    words = ["server", "--url", url, "--requirements", revision, "-o", str(folder)]
    # It ends with an error code where a scenario fails, also one that is not scored: its summary is what counts.
    done = await anyio.run_process(
        [str(node), str(package / "dist" / "index.js"), *words], cwd=folder, check=False, stderr=subprocess.STDOUT
    )
    said = done.stdout.decode()
    summary, _, unscored = said.partition("=== SUMMARY ===")[2].partition("\nNot scored")
    aside = set(_UNSCORED.findall(unscored))
    marks = {name: mark for mark, name in _VERDICT.findall(summary) if name not in aside}
    good = frozenset(name for name, mark in marks.items() if mark == "✓")
    return Verdict(good, frozenset(marks) - good, said)


def required(revision: str, *, scored: bool = True) -> frozenset[str]:
    """The scenarios that ``revision`` requires of a client, or those that it only lists.

    Skips the test where the suite is not installed.
    """
    _, root = installed()
    text = (root / "requirements" / f"{revision}.yaml").read_text("utf-8")
    section = _CLIENT.search(text)
    assert section is not None, f"{revision}: no client scenario is listed"
    names = section[1].replace("  - ", "").split() if scored else _ASIDE.findall(text)
    return frozenset(names)


async def judge_client(program: str, revision: str, folder: Path) -> Verdict:
    """Run all that ``revision`` requires of a client, and what it lists besides, with ``program`` (a command line).

    The details are left in ``folder``. Skips the test where the suite is not installed.
    """
    node, root = installed()
    words = ["client", "--command", program, "--requirements", revision, "--timeout", _PATIENCE_MS, "-o", str(folder)]
    done = await anyio.run_process(
        [str(node), str(root / "dist" / "index.js"), *words], cwd=folder, check=False, stderr=subprocess.STDOUT
    )
    said = done.stdout.decode()
    marks = {name: mark for mark, name in _VERDICT.findall(said.partition("=== SUITE SUMMARY ===")[2])}
    good = frozenset(name for name, mark in marks.items() if mark == "✓")
    return Verdict(good, frozenset(marks) - good, said)


@asynccontextmanager
async def answering(client: Doing) -> AsyncIterator[str]:
    """The command line that has ``client`` do what a scenario wants, here: given the scenario, URL and context."""
    with short_folder("suite-") as folder:
        path = str(folder / "suite.sock")
        listener = await anyio.create_unix_listener(path)
        async with listener, anyio.create_task_group() as serving:
            serving.start_soon(listener.serve, partial(_done, client=client))
            yield f"{sys.executable} -I -S {Path(__file__).parent / 'conformance_caller.py'} {path}"
            serving.cancel_scope.cancel()


async def _done(line: SocketStream, client: Doing) -> None:
    async with line:
        asked = json.loads(await BufferedByteReceiveStream(line).receive_until(b"\n", _MOST_HEAD))
        said = "done"
        # Whatever goes wrong is the scenario's to judge: some want the client to fail.
        try:
            await client(asked["scenario"], asked["url"], json.loads(asked["context"]))
        except Exception as error:  # noqa: BLE001 -- and is told to the suite
            said = "".join(traceback.format_exception(error)).replace("\n", " | ")
        await line.send(f"{said}\n".encode())


@asynccontextmanager
async def bearing(url: str, token: str) -> AsyncIterator[str]:
    """The address of a proxy before the server at ``url`` that adds the bearer header to each request."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    added = f"\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n".encode()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    handler = partial(_passed_on, place=(place.hostname, place.port), added=added)
    async with listener, anyio.create_task_group() as serving:
        serving.start_soon(listener.serve, handler)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        serving.cancel_scope.cancel()


async def _passed_on(near: SocketStream, place: tuple[str, int], added: bytes) -> None:
    # One request a connection, so that no other head has to be found in what follows the first one.
    async with near:
        reader = BufferedByteReceiveStream(near)
        try:
            head = await reader.receive_until(b"\r\n\r\n", _MOST_HEAD)
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            return
        kept = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:"))
        far = await anyio.connect_tcp(*place)
        async with far, anyio.create_task_group() as both:
            await far.send(kept + added)
            both.start_soon(_pumped, reader, far)
            await _pumped(far, near)
            both.cancel_scope.cancel()


async def _pumped(source: ByteReceiveStream, target: ByteSendStream) -> None:
    try:
        async for piece in source:
            await target.send(piece)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return
