"""``ostiary doctor``: whether this machine can carry a gateway. It looks only, and leaves nothing behind."""

import importlib
import os
import platform
import resource
import shutil
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click

from gateway.cli.addresses import require_free
from gateway.cli.findings import as_document, as_lines
from gateway.cli.reach import ADMIN_SOCKET, Reach, state_option
from gateway.cli.screen import Failed, Misconfigured, answer, json_option
from gateway.core.sandbox import Capabilities
from gateway.findings import Finding
from gateway.parts.boxes import summary
from sandbox.runner import BwrapRunner

_PYTHON = (3, 11)
_SQLITE = (3, 37)  # strict tables
_GLIBC = (2, 34)  # what the Rego wheel is linked against
_DISK_MB = 256
_FILES = 1024
_SLOW_S = 0.2
_NETWORK = (
    "none, or where a server's settings say network = true the whole of this host's, which nothing filters: its "
    "loopback, and metadata addresses of clouds"
)
_PACKAGES = ("regorus", "re2", "cryptography", "jsonschema_rs", "msgspec", "joserfc", "uvloop")


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8470, show_default=True, help="Port that should be free."
)
@state_option
@json_option
def doctor(port: int, state: Path) -> None:
    """Look at this machine and say what to mend."""
    findings = [
        _python(),
        _sqlite(),
        _glibc(),
        *_packages(),
        _worker(),
        *_sandbox(),
        _port(port),
        _descriptors(),
        *_disk(state),
        *_modes(state),
        *_rotations(state),
        *_upstreams(state),
    ]
    document = as_document(findings)
    answer(document, as_lines(findings))
    if not document["ok"]:
        raise click.exceptions.Exit(1)


def _rotations(state: Path) -> Iterator[Finding]:
    # Only a running gateway knows; where none runs there is nothing to say.
    if not (state / ADMIN_SOCKET).exists():
        return
    try:
        found = Reach(state).get("/v1/rotations")["keys"]
    except Failed:
        return
    for one in found:
        name = f"key {one['kind']}" + (f" {one['subject']}" if one["subject"] else "")
        bad = one["overdue"] or one.get("failed") is not None
        text = f"not replaced for {_days(one['since_us'])} days" + (f"; {one['failed']}" if one.get("failed") else "")
        yield Finding(name, not bad, text, f"`ostiary rotate {one['kind']}`, and see the gateway's log")


def _upstreams(state: Path) -> Iterator[Finding]:
    if not (state / ADMIN_SOCKET).exists():
        return
    try:
        parts = Reach(state).get("/readyz")["parts"]
    except Failed:
        return
    for name, said in parts.items():
        if name.startswith("upstream:"):
            fix = "`ostiary check`, and the gateway's log of that upstream"
            yield Finding(name.replace(":", " "), said == "ok", said, fix)


def _days(since_us: int) -> int:
    return max(0, int(time.time() - since_us / 1_000_000) // 86_400)


def _python() -> Finding:
    fix = "install Python 3.11 or newer and make the environment anew"
    return Finding("python", sys.version_info >= _PYTHON, platform.python_version(), fix)


def _sqlite() -> Finding:
    fix = "use a Python built against SQLite 3.37 or newer"
    return Finding("sqlite", sqlite3.sqlite_version_info >= _SQLITE, sqlite3.sqlite_version, fix)


def _glibc() -> Finding:
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    ok = sys.platform != "linux" or (name == "glibc" and numbers >= _GLIBC)
    fix = "use a distribution with glibc 2.34 or newer (Debian 12, Ubuntu 22.04, RHEL 9); musl is not supported"
    return Finding("libc", ok, f"{name or 'other'} {version}".strip(), fix)


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library that does not load
            yield Finding(name, ok=False, text=str(error), fix="pip install --force-reinstall ostiary, from wheels")
        else:
            yield Finding(name, ok=True, text="loads")


def _worker() -> Finding:
    began = time.monotonic()
    try:
        rego = importlib.import_module("gateway.adapters.rego.engine")
        bundles = importlib.import_module("gateway.adapters.rego.layers")
        anyio.run(_ask_worker, rego.RegoEngine(bundles.load([bundles.shipped()])))
    except Exception as error:  # noqa: BLE001 - a diagnosis reports whatever stands in the way, and goes on
        return Finding("policy worker", ok=False, text=str(error) or type(error).__name__, fix="see the lines above")
    return Finding("policy worker", ok=True, text=f"starts and answers in {time.monotonic() - began:.2f} s")


async def _ask_worker(engine: Any) -> None:
    async with engine:
        await engine.ping()


def _sandbox() -> Iterator[Finding]:
    # Only code tools need one, so whatever it lacks is told and is no failure of the machine.
    seen = anyio.run(_ask_sandbox)
    more = "".join(f"; {name}: {fix}" for name, fix in seen.fixes.items()) if seen.usable else ""
    yield Finding("sandbox", ok=True, text=f"{summary(seen)}{more}")
    if seen.usable:
        yield Finding("sandbox network", ok=True, text=_NETWORK)


async def _ask_sandbox() -> Capabilities:
    async with BwrapRunner() as runner:
        return await runner.probe()


def _port(port: int) -> Finding:
    try:
        require_free("127.0.0.1", port)
    except Misconfigured as error:
        return Finding("port", ok=False, text=error.format_message(), fix=error.fix)
    return Finding("port", ok=True, text=f"{port} is free")


def _descriptors() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft == resource.RLIM_INFINITY or soft >= _FILES
    return Finding("open files", ok, f"limit {soft}", f"ulimit -n {_FILES}, or LimitNOFILE= in the unit file")


def _disk(state: Path) -> Iterator[Finding]:
    folder = next(path for path in (state.resolve(), *state.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free // 2**20
    yield Finding("disk", free >= _DISK_MB, f"{free} MiB free at {folder}", "make room, or use another --state folder")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ostiary-doctor-") as file:
            file.write(b"x")
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            took = time.monotonic() - began
    except OSError as error:
        text = f"{folder}: {error.strerror}"
        yield Finding("disk sync", ok=False, text=text, fix="use a --state folder you may write to")
        return
    fix = "each call waits for two syncs: put the state folder on a local disk"
    yield Finding("disk sync", took < _SLOW_S, f"{took * 1000:.1f} ms", fix)


def _modes(state: Path) -> Iterator[Finding]:
    if not state.exists():
        yield Finding("file modes", ok=True, text=f"{state} does not exist yet")
        return
    keys = state / "keys"
    secret = [path for path in (state, keys, *keys.glob("*")) if path.exists() and path.suffix != ".vkey"]
    open_ = [path for path in secret if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_:
        yield Finding("file modes", ok=False, text=f"{open_[0]} is open to other users", fix=f"chmod -R go= {state}")
    else:
        yield Finding("file modes", ok=True, text=f"{state} is its owner's alone")
