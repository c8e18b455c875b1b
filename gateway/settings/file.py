"""Settings from files: ``gateway.toml`` of an operator, or what ``ostiary up`` makes up for development."""

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.core.tool import Kind
from gateway.settings import GatewaySettings, SettingsError

DEVELOPMENT_AGENT, DEVELOPMENT_USER = "dev-agent", "developer"
# What upstreams of a kind offer; all others have tools only.
_OFFERED: Mapping[str, tuple[Kind, ...]] = {
    "mcp": tuple(kind for kind in Kind if kind is not Kind.HOOK),
    "hook": (Kind.HOOK,),
}


def load(path: Path) -> GatewaySettings:
    """Read and check ``gateway.toml``.

    Raises:
        SettingsError: unreadable, not TOML, or keys that do not fit.
    """
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: not TOML: {error}"]) from None
    return _checked(_anchored(document, path.resolve().parent))


def proposed(text: str, config: Path, state: Path | None) -> GatewaySettings:
    """The settings that ``text`` would be as the file ``config``; nothing is written.

    Args:
        text: TOML.
        config: where it would lie.
        state: as for ``ostiary up``, which knows the state folder without being told; None = the text says it.

    Raises:
        SettingsError: not TOML, or keys that do not fit.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{config}: not TOML: {error}"]) from None
    if state is not None:
        document["state"] = str(state)
    return _checked(_anchored(document, config.resolve().parent))


def development(state: Path, port: int, upstreams: Mapping[str, str]) -> GatewaySettings:
    """Settings of ``ostiary up``: loopback, tools pinned on first use and granted to one agent of one user.

    Args:
        state: folder, created when missing.
        port: TCP port, 0 = any free one.
        upstreams: by name, a URL or a command line (split as a shell would, no shell runs).

    Raises:
        SettingsError: a name or URL does not fit.
    """
    document = _existing(state)
    document["state"] = state
    document.setdefault("listen", {})["port"] = port
    kill = document.setdefault("kill", {})
    if isinstance(kill, dict):
        kill.setdefault("lift_quorum", 1)
    known = document.setdefault("upstreams", {})
    for name, target in upstreams.items():
        known[name] = {"kind": "mcp", "trust": "first_use", **_reach(target)}
    policy = document.setdefault("policy", {})
    allowed = [pattern for name, upstream in known.items() for pattern in _patterns(name, upstream)]
    policy["data"] = _granting(policy.get("data", {}), allowed)
    return _checked(document)


def _patterns(name: str, upstream: Any) -> list[str]:
    kind = upstream.get("kind") if isinstance(upstream, dict) else None
    return [f"{name}.{each.prefix}*" for each in _OFFERED.get(str(kind), (Kind.TOOL,))]


def _granting(data: Any, patterns: list[str]) -> Any:
    # Malformed data is left as it is, for the check that names the key.
    for side, name in (("agents", DEVELOPMENT_AGENT), ("users", DEVELOPMENT_USER)):
        section = data
        for key in ("gateway", "scope", side):
            section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault(name, {"allow": patterns, "deny": []})
    return data


def _existing(state: Path) -> dict[str, Any]:
    config = state / "gateway.toml"
    if not config.is_file():
        return {}
    try:
        with config.open("rb") as file:
            return _anchored(tomllib.load(file), state.resolve())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{config}: {error}"]) from None


def _reach(target: str) -> dict[str, Any]:
    if target.startswith(("http://", "https://")):
        return {"url": target}
    return {"command": tuple(_words(target))}


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SettingsError([f"--upstream: {error}"]) from None


# Where the file may hold paths; "*" stands for any name.
_PATHS = (
    ("state",),
    ("catalogue",),
    ("listen", "tls_certificate"),
    ("listen", "tls_key"),
    ("audit", "postgres", "ca_certificate"),
    ("audit", "postgres", "password", "file"),
    ("policy", "bundles"),
    ("policy", "bundles", "*", "path"),
    ("policy", "shadow", "bundles"),
    ("policy", "shadow", "bundles", "*", "path"),
    ("policy", "sources", "*", "path"),
    ("policy", "sources", "*", "public_key"),
    ("policy", "sources", "*", "ca_certificate"),
    ("policy", "sources", "*", "token", "file"),
    ("upstreams", "*", "database"),
    ("upstreams", "*", "cwd"),
    ("upstreams", "*", "sandbox", "read"),
    ("upstreams", "*", "sandbox", "write"),
    ("upstreams", "*", "env", "*", "file"),
    ("upstreams", "*", "ca_certificate"),
    ("credentials", "*", "file"),
    ("sandbox", "bwrap"),
    ("sandbox", "python"),
    ("vault", "ca_certificate"),
    ("vault", "secret_id", "file"),
    ("vault", "token", "file"),
    ("vault", "break_glass", "secret_id", "file"),
    ("identity", "issuers", "*", "ca_certificate"),
    ("policy", "opa", "ca_certificate"),
    ("policy", "opa", "token", "file"),
)


def _anchored(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    # A relative path means relative to the file it stands in, wherever the command was started.
    for path in _PATHS:
        _anchor(document, path, folder)
    upstreams = document.get("upstreams")
    for upstream in upstreams.values() if isinstance(upstreams, dict) else ():
        _anchor_program(upstream, folder)
    return document


def _anchor_program(upstream: Any, folder: Path) -> None:
    # As a shell does it: a program named with a slash is a path, a bare name is looked for in PATH.
    command = upstream.get("command") if isinstance(upstream, dict) else None
    if isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
        upstream["command"] = [str(folder / command[0]), *command[1:]]


def _anchor(section: Any, path: tuple[str, ...], folder: Path) -> None:
    if isinstance(section, list) and path[0] == "*":
        for item in section:
            _anchor(item, path[1:], folder)
    if not isinstance(section, dict):
        return
    for key in list(section) if path[0] == "*" else [path[0]]:
        if len(path) > 1:
            _anchor(section.get(key), path[1:], folder)
        elif isinstance(section.get(key), str):
            section[key] = folder / section[key]
        elif isinstance(section.get(key), list):
            section[key] = [folder / item if isinstance(item, str) else item for item in section[key]]


def _checked(document: dict[str, Any]) -> GatewaySettings:
    try:
        return GatewaySettings(**document)
    except ValidationError as error:
        raise SettingsError(
            [
                f"{'.'.join(str(part) for part in item['loc']) or 'gateway.toml'}: {item['msg']}"
                for item in error.errors()
            ]
        ) from None
