"""One server of a client's file, as an upstream of the gateway."""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.cli.client.variables import (
    FromEnvironment,
    Given,
    Hidden,
    NotCarried,
    Parts,
    Variables,
    address_is_open,
    argument,
    environment_value,
    header_value,
)
from gateway.settings.sections import FRAMING

_STDIO: Final = frozenset({"stdio", "local"})
_HTTP: Final = frozenset({"http", "streamable-http", "streamableHttp"})
_ADDRESSES: Final = ("url", "serverUrl", "httpUrl")
# Of no matter to the gateway: its own limits, and its policy instead of what was let pass unasked.
_DROPPED: Final = frozenset(
    {"timeout", "autoApprove", "alwaysAllow", "disabled", "description", "gallery", "version", "dev", "icon"}
)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Server:
    """A server by command, or by URL.

    Attributes:
        command: the words.
        cwd: where it starts; None = where the gateway does.
        env: its variables.
        url: where it is.
        header: field that carries ``secret``.
        prefix: what stands before it.
        secret: the credential; None = it needs none.
        dropped: members that were of no matter.
    """

    command: tuple[str, ...] = ()
    cwd: str | None = None
    env: Mapping[str, Given] = field(default_factory=dict)
    url: str | None = None
    header: str = ""
    prefix: str = ""
    secret: Given | None = None
    dropped: tuple[str, ...] = ()

    @property
    def hidden(self) -> list[tuple[str, Hidden]]:
        """The secrets that move into files, each by a name."""
        found = [(name, given) for name, given in self.env.items() if isinstance(given, Hidden)]
        return [*found, (self.header, self.secret)] if isinstance(self.secret, Hidden) else found

    @property
    def borrowed(self) -> list[str]:
        """The variables that the gateway's environment must have."""
        given = [*self.env.values(), self.secret]
        return sorted({one.name for one in given if isinstance(one, FromEnvironment)})


def understood(entry: Any, variables: Variables, folder: Path | None) -> Server:
    """``entry`` of a client's file; ``folder`` is where the client starts its servers.

    Raises:
        NotCarried: something of it has no counterpart, so it would not be the same server.
    """
    if not isinstance(entry, dict):
        raise NotCarried("it is no object")
    kind = entry.get("type", "stdio" if "command" in entry else "http")
    if kind == "sse":
        raise NotCarried("it speaks the old SSE transport; give the server's Streamable HTTP address, with type http")
    if not isinstance(kind, str) or kind not in _STDIO | _HTTP:
        raise NotCarried(f"servers of type {kind!r} are not known")
    if kind in _STDIO:
        return _by_command(entry, variables, folder)
    return _by_address(entry, variables)


def _by_command(entry: dict[str, Any], variables: Variables, folder: Path | None) -> Server:
    dropped = _rest(entry, {"type", "command", "args", "env", "cwd"})
    cwd = _folder(entry, variables, folder)
    program = _program(entry, variables, cwd)
    given = _pairs(entry, "env")
    words: list[str] = [program]
    arguments: list[Parts] = [(program,)]
    for word in _texts(entry, "args"):
        arguments.append(argument(replace(variables, own=given.keys()).parts(word), words[-1]))
        words.append(word)
    env = {name: environment_value(name, variables.parts(text)) for name, text in given.items()}
    command, secrets = _command(arguments)
    return Server(command=command, cwd=cwd, env={**env, **secrets}, dropped=dropped)


def _program(entry: dict[str, Any], variables: Variables, cwd: str | None) -> str:
    program = entry.get("command")
    if not isinstance(program, str) or not program.strip():
        raise NotCarried("it has no command")
    program = variables.plainly(program)
    if any(letter.isspace() for letter in program) and not Path(program).exists():
        raise NotCarried("its command holds spaces; give the program alone, and the rest in args")
    if "/" not in program or Path(program).is_absolute():
        return program
    if cwd is None:
        raise NotCarried("its command is a relative path, and where from is known to the client only")
    return os.path.normpath(Path(cwd) / program)


def _folder(entry: dict[str, Any], variables: Variables, folder: Path | None) -> str | None:
    given = entry.get("cwd")
    if given is None:
        return None if folder is None else str(folder)
    if not isinstance(given, str):
        raise NotCarried("its cwd is no text")
    path = Path(variables.plainly(given))
    if not path.is_absolute() and folder is None:
        raise NotCarried("its cwd is a relative path, and where from is known to the client only")
    return str(path if folder is None else folder / path)


def _command(arguments: list[Parts]) -> tuple[tuple[str, ...], dict[str, Given]]:
    """Words without secrets, and the variables that hold those.

    A server that takes its secret as an argument is started by a shell that reads it from a variable: other users of
    the machine can still see it in the list of processes, as they could before, but no file of settings holds it.
    """
    secrets: dict[str, Given] = {}
    words: list[str] = []
    for parts in arguments:
        pieces = []
        for part in parts:
            if isinstance(part, str):
                pieces.append(shlex.quote(part) if part or len(parts) == 1 else "")
            else:
                name = f"OSTIARY_ARGUMENT_{len(secrets) + 1}"
                secrets[name] = part
                pieces.append(f'"${name}"')
        words.append("".join(pieces))
    if secrets:
        return ("/bin/sh", "-c", f"exec {' '.join(words)}"), secrets
    return tuple("".join(str(part) for part in parts) for parts in arguments), secrets


def _by_address(entry: dict[str, Any], variables: Variables) -> Server:
    named = [name for name in _ADDRESSES if name in entry]
    if len(named) != 1 or not isinstance(entry[named[0]], str):
        raise NotCarried("it has neither a command nor one address")
    dropped = _rest(entry, {"type", "headers", named[0]})
    url = variables.plainly(entry[named[0]])
    _require_address(url)
    if "type" not in entry and urlsplit(url).path.rstrip("/").endswith("/sse"):
        raise NotCarried(
            "its address looks like one of the old SSE transport; give the Streamable HTTP one, or say type http"
        )
    headers = _pairs(entry, "headers")
    if len(headers) > 1:
        raise NotCarried(f"it needs {len(headers)} header fields, and the gateway sends one credential field")
    for name, text in headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in FRAMING:
            raise NotCarried(f"{name!r} cannot be a credential's header field")
        prefix, secret = header_value(name, variables.parts(text))
        return Server(url=url, header=name, prefix=prefix, secret=secret, dropped=dropped)
    return Server(url=url, dropped=dropped)


def _require_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise NotCarried("its address is no http or https URL")
    if not address_is_open(url):
        raise NotCarried("its address holds a secret, which would stand in settings; give it in a header field")


def _rest(entry: dict[str, Any], known: set[str]) -> tuple[str, ...]:
    all_tools = {"tools"} if entry.get("tools") == ["*"] else set()  # as GitHub's agents want it said
    strange = sorted(entry.keys() - known - _DROPPED - all_tools)
    if strange:
        raise NotCarried(f"what {', '.join(strange)} means cannot be carried over")
    return tuple(sorted(entry.keys() & _DROPPED - {"disabled"}))


def _texts(entry: dict[str, Any], name: str) -> list[str]:
    given = entry.get(name) or []
    if not isinstance(given, list) or not all(isinstance(one, str) and "\0" not in one for one in given):
        raise NotCarried(f"its {name} is no list of texts")
    return given


def _pairs(entry: dict[str, Any], name: str) -> dict[str, str]:
    given = entry.get(name) or {}
    if not isinstance(given, dict):
        raise NotCarried(f"its {name} is no object")
    found = {key: _text(value) for key, value in given.items() if value is not None}
    if not all("\0" not in key + value for key, value in found.items()):
        raise NotCarried(f"its {name} holds a zero character")
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise NotCarried("a variable or header field is no text")
    return str(value)
