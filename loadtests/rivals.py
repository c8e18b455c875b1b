"""Two gateways that many use, before the same upstream: ContextForge and LiteLLM, each in an environment of its own.

Both are started by their own commands, with what their documentation turns off for speed turned off: no console, no
access log, no limits. Neither is given anything to check but its credential. ``requirements/contextforge.txt`` and
``requirements/litellm.txt`` pin them; LiteLLM goes without its part that has another licence, which calls do not use.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from loadtests.load import ROOT, Door
from loadtests.processes import BenchmarkError, end

VENVS: Final = Path(os.environ.get("OSTIARY_VENVS", ROOT / ".venvs"))
# Their modules are compiled at the first start.
_START_S: Final = 240.0
_POLL_S: Final = 0.25
_DEADLINE_S: Final = 60.0
_TOOL: Final = "up-echo"
_VERSION: Final = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


class NotHere(Exception):
    """A peer cannot be measured on this machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs.

    Attributes:
        bin: its commands.
        folder: its files.
        port: where it listens on loopback.
    """

    bin: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"

    def said(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """The last line that a command of its environment prints.

        Raises:
            NotHere: the command fails.
        """
        line = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, env=_clean(env or {}), cwd=self.folder, timeout=_START_S
        )
        if done.returncode != 0 or not done.stdout.strip():
            raise NotHere(f"{command[-1]}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip().splitlines()[-1]


@contextlib.contextmanager
def contextforge(folder: Path, upstream: str) -> Iterator[tuple[Door, str]]:
    """ContextForge with the upstream registered; yields the door and the version.

    Raises:
        NotHere: it is not installed or does not start.
    """
    at = place("contextforge", folder)
    env = {
        "DATABASE_URL": f"sqlite:///{at.folder}/mcp.db",
        "JWT_SECRET_KEY": secrets.token_hex(32),
        "AUTH_ENCRYPTION_SECRET": secrets.token_hex(32),
        "PLATFORM_ADMIN_EMAIL": "bench@example.com",
        "PLATFORM_ADMIN_PASSWORD": f"Bench-{secrets.token_hex(8)}!",
        "AUTH_REQUIRED": "true",
        "CACHE_TYPE": "memory",
        "LOG_LEVEL": "ERROR",
        "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_A2A_ENABLED": "false",
        "PLUGINS_ENABLED": "false",
        "OBSERVABILITY_ENABLED": "false",
        "SSRF_ALLOW_LOCALHOST": "true",
        "RATE_LIMITING_ENABLED": "false",
    }
    command = ["mcpgateway", "--host", "127.0.0.1", "--port", str(at.port), "--no-access-log"]
    maker = ["-m", "mcpgateway.utils.create_jwt_token", "--username", "bench@example.com", "--admin", "--exp", "600"]
    with _running(at, command, env, "/health") as pid:
        token = at.said("python", *maker, "--secret", env["JWT_SECRET_KEY"], env=env)
        _register(at, token, upstream)
        version = at.said("python", "-c", _VERSION, "mcp-contextforge-gateway")
        yield Door("contextforge", f"{at.url}/mcp/", _TOOL, pid, (token,)), version


@contextlib.contextmanager
def litellm(folder: Path, upstream: str) -> Iterator[tuple[Door, str]]:
    """LiteLLM's proxy with the upstream in its configuration; yields the door and the version.

    Raises:
        NotHere: it is not installed or does not start.
    """
    at = place("litellm", folder)
    key = f"sk-{secrets.token_hex(16)}"
    config = at.folder / "config.yaml"
    # JSON is YAML.
    up = {"url": upstream, "transport": "http"}
    config.write_text(json.dumps({"mcp_servers": {"up": up}, "general_settings": {"master_key": key}}), "utf-8")
    env = {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(at.port)]
    with _running(at, command, env, "/health/liveliness") as pid:
        version = at.said("python", "-c", _VERSION, "litellm")
        yield Door("litellm", f"{at.url}/mcp/", _TOOL, pid, (key,)), version


Rival = Callable[[Path, str], contextlib.AbstractContextManager[tuple[Door, str]]]
RIVALS: Final[Mapping[str, Rival]] = {"contextforge": contextforge, "litellm": litellm}


def place(name: str, folder: Path) -> Place:
    """Where the peer ``name`` runs.

    Raises:
        NotHere: it is not installed.
    """
    commands = VENVS / name / "bin"
    if not (commands.parent / ".stamp").exists():
        raise NotHere("it is not installed (`make bench NAME=mcp` installs it where its packages are to be had)")
    own = folder / name
    own.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        return Place(commands, own, free.getsockname()[1])


@contextlib.contextmanager
def _running(at: Place, command: Sequence[str], env: Mapping[str, str], health: str) -> Iterator[int]:
    log = at.folder / "peer.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [at.bin / command[0], *command[1:]], stdout=out, stderr=out, env=_clean(env), cwd=at.folder
        )
    try:
        _await(process, at.url + health, log)
        yield process.pid
    finally:
        end(process)


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=_DEADLINE_S, trust_env=False).is_success:
                return
        time.sleep(_POLL_S)
    raise NotHere(f"it did not start: {log.read_text('utf-8', 'replace').strip()[-300:]}")


def _register(at: Place, token: str, upstream: str) -> None:
    answer = httpx.post(
        f"{at.url}/gateways",
        json={"name": "up", "url": upstream, "transport": "STREAMABLEHTTP"},
        headers={"authorization": f"Bearer {token}"},
        timeout=_DEADLINE_S,
        trust_env=False,
    )
    if not answer.is_success:
        raise BenchmarkError(f"ContextForge does not take the upstream: {answer.status_code} {answer.text[:300]}")


def _clean(env: Mapping[str, str]) -> dict[str, str]:
    # What stands in this process's environment is ours: its Python path would give a peer our modules.
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ} | dict(env)
