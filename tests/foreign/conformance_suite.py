"""The official MCP conformance suite, run against a server that wants a bearer token.

The suite cannot send one, so its requests pass a proxy that adds the header and changes nothing else: Host and Origin
stay as they were sent.
"""

import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

_SUITE: Final = "@modelcontextprotocol/conformance"
_MOST_HEAD: Final = 64 * 1024
_VERDICT: Final = re.compile(r"^([✓✗]) ([\w/-]+): \d+ passed, \d+ failed$", re.MULTILINE)
_CLIENT: Final = re.compile(r"^client:\n((?:  - \S+\n)+)", re.MULTILINE)
_UNSCORED: Final = re.compile(r"^  [✓✗] ([\w/-]+) \(", re.MULTILINE)


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


def _installed() -> tuple[Path, Path]:
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parents[2] / ".venvs")
    modules = root / "conformance" / "node_modules"
    node = modules / ".bin" / "node"
    if not node.exists():
        pytest.skip(f"{node} is missing: the conformance suite is not run (`make setup`, Debian: apt install npm)")
    return node, modules / _SUITE


async def judge(url: str, revision: str, folder: Path) -> Verdict:
    """Run all that ``revision`` requires of a server against ``url``; the details are left in ``folder``.

    Skips the test where the suite is not installed.
    """
    node, package = _installed()
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


def required(revision: str) -> frozenset[str]:
    """The scenarios that ``revision`` requires of a client. Skips the test where the suite is not installed."""
    _, root = _installed()
    text = (root / "requirements" / f"{revision}.yaml").read_text("utf-8")
    section = _CLIENT.search(text)
    assert section is not None, f"{revision}: no client scenario is listed"
    return frozenset(line.removeprefix("  - ") for line in section[1].splitlines())


async def judge_client(program: str, scenario: str, revision: str, folder: Path) -> Verdict:
    """Run one scenario with ``program`` (a command line) as the client; the details are left in ``folder``."""
    node, root = _installed()
    words = ["client", "--command", program, "--scenario", scenario, "--spec-version", revision, "-o", str(folder)]
    done = await anyio.run_process(
        [str(node), str(root / "dist" / "index.js"), *words], cwd=folder, check=False, stderr=subprocess.STDOUT
    )
    names = frozenset({scenario})
    good = names if done.returncode == 0 else frozenset()
    return Verdict(good, names - good, done.stdout.decode())


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
