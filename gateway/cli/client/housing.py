"""The gateway that clients are connected to: its settings file, its state folder, and how it is reached."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.cli import home
from gateway.cli.screen import Misconfigured
from gateway.settings import GatewaySettings
from gateway.settings.file import DEVELOPMENT_AGENT, DEVELOPMENT_USER

ENTRY: Final = "ostiary"
_CONFIG: Final = "gateway.toml"


@dataclass(frozen=True, slots=True)
class House:
    """One gateway's files.

    Attributes:
        config: ``gateway.toml``; it may not exist yet.
        state: state folder.
        is_development: whether ``ostiary up`` reads them, which lets its own agent use every upstream.
    """

    config: Path
    state: Path
    is_development: bool

    @property
    def words(self) -> list[str]:
        """The options that name it to a command started anywhere."""
        if self.is_development or self.config == self.state.parent / _CONFIG:
            return ["--state", str(self.state)]
        return ["--config", str(self.config)]


@dataclass(frozen=True, slots=True)
class Bearer:
    """In whose name the client calls."""

    user: str
    agent: str


def find(config: Path | None, state: Path) -> House:
    """The gateway of a configuration file, else the one a state folder belongs to; it may be a new one.

    Raises:
        Misconfigured: the file cannot be used.
    """
    if config is not None:
        return House(config.resolve(), home.read(config).state.resolve(), is_development=False)
    beside, inside = state.resolve().parent / _CONFIG, state.resolve() / _CONFIG
    if not inside.is_file() and beside.is_file() and home.read(beside).state.resolve() == state.resolve():
        return House(beside, state.resolve(), is_development=False)
    return House(inside, state.resolve(), is_development=True)


def bearer(house: House, user: str | None, agent: str | None) -> Bearer:
    """Who the client is.

    Raises:
        Misconfigured: it must be said.
    """
    if house.is_development:
        return Bearer(user or DEVELOPMENT_USER, agent or DEVELOPMENT_AGENT)
    if user is None or agent is None:
        raise Misconfigured(
            "whose calls they are must be said", "give --user and --agent, as [policy.data.gateway.scope] names them"
        )
    return Bearer(user, agent)


def program() -> list[str]:
    """The words that start this very command again, from anywhere."""
    beside = Path(sys.executable).parent / "ostiary"
    return [str(beside)] if beside.is_file() else [sys.executable, "-P", "-m", "gateway"]


def bridge_entry(client: str, house: House, who: Bearer) -> dict[str, Any]:
    """What a client is told: start the bridge. No secret is in it."""
    first, *rest = program()
    words = [*rest, "client", "bridge", *house.words, "--user", who.user, "--agent", who.agent]
    kind = {"type": "stdio"} if client in {"vscode", "claude-code"} else {}
    return {**kind, "command": first, "args": words}


def address_entry(settings: GatewaySettings, house: House, who: Bearer) -> dict[str, Any]:
    """What a client is told that can ask a command for header fields: where, and which command."""
    listen = settings.listen
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    scheme = "http" if listen.tls_certificate is None else "https"
    url = listen.external_url or f"{scheme}://{host}:{listen.port}"
    words = [*program(), "client", "headers", *house.words, "--user", who.user, "--agent", who.agent]
    return {"type": "http", "url": f"{url.rstrip('/')}/mcp", "headersHelper": shlex.join(words)}


def is_ours(entry: Any) -> bool:
    """Whether a client's entry is one that this command wrote."""
    if not isinstance(entry, dict):
        return False
    words = entry.get("args")
    if isinstance(words, list) and ["client", "bridge"] in [words[at : at + 2] for at in range(len(words))]:
        return True
    return "client headers --" in str(entry.get("headersHelper", ""))
