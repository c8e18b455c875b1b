"""The gateway as the bridge reaches it: a socket or a URL, and a token that is fresh at each request."""

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import httpx

from gateway.cli import logins
from gateway.cli.client.bearing import config_option, minted, settings_of, who_options
from gateway.cli.reach import ADMIN_SOCKET, guard, state_option
from gateway.cli.screen import Misconfigured
from gateway.settings import GatewaySettings

_TTL_S: Final = 3600
_EARLY_S: Final = 300.0
_MOST_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gateway is.

    Attributes:
        url: base URL; of a socket, one that only names the path.
        path: of the endpoint.
        socket: Unix socket, instead of an address.
        token: gives the token for the next request; its argument says that the last one was refused.
    """

    url: str
    path: str
    token: Callable[[bool], str] = field(repr=False)
    socket: Path | None = None

    @property
    def shown(self) -> str:
        """For people."""
        return str(self.socket or self.url)

    def client(self) -> httpx.AsyncClient:
        """A client with no credential of its own."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        transport = httpx.AsyncHTTPTransport(uds=self._place, verify=self._is_remote, limits=limits)
        return httpx.AsyncClient(
            base_url=self.url,
            transport=transport,
            timeout=httpx.Timeout(None, connect=5.0, write=60.0),
            follow_redirects=False,
            trust_env=False,
        )

    def plain_client(self, timeout_s: float) -> httpx.Client:
        """The same for one question at a time, each of whose steps takes no longer."""
        transport = httpx.HTTPTransport(uds=self._place, verify=self._is_remote)
        return httpx.Client(
            base_url=self.url, transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False
        )

    @property
    def _place(self) -> str | None:
        return None if self.socket is None else str(self.socket)

    @property
    def _is_remote(self) -> bool:
        return self.socket is None  # nothing on a socket speaks TLS, and reading all authorities takes its time


def way_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what ``way`` needs: ``--url`` and ``--token-file``, or for whom, and which gateway of this machine."""
    file = click.Path(path_type=Path, dir_okay=False)
    url = click.option("--url", help="Base URL of a gateway that runs elsewhere.")
    token_file = click.option("--token-file", type=file, help="With --url: a file with the token.")
    return url(token_file(who_options(config_option(state_option(command)))))


def way(path: str, given: Mapping[str, Any]) -> Door:
    """To ``path``, as ``way_options`` say.

    Raises:
        Misconfigured: the settings cannot be used, or the address.
    """
    if given["url"] is not None:
        return of_url(given["url"], given["token_file"], path)
    settings = settings_of(given["config"], given["state"])
    return of_settings(settings, given["user"], given["agent"], path)


def of_settings(settings: GatewaySettings, user: str, agent: str, path: str) -> Door:
    """By the socket of a state folder on this machine; tokens are made with the key in it."""
    return Door("http://localhost", path, _Minted(settings, user, agent).token, settings.state / ADMIN_SOCKET)


def of_url(url: str, token_file: Path | None, path: str) -> Door:
    """By an address, with a token from a file, the environment, or a login.

    Raises:
        Misconfigured: no address, or one a token is not sent to.
    """
    guard(url, "")  # whether there is a token is seen at each request: a login may come later
    return Door(url.rstrip("/"), path, lambda _: _kept(url, token_file))


class _Minted:
    """Tokens made here; a new one in time."""

    def __init__(self, settings: GatewaySettings, user: str, agent: str) -> None:
        self._wish = (settings, user, agent)
        self._token = ""
        self._ends_s = 0.0

    def token(self, refused: bool) -> str:
        if refused or time.time() > self._ends_s - _EARLY_S:
            self._token, self._ends_s = minted(*self._wish, ttl_s=_TTL_S)
        return self._token


def _kept(url: str, token_file: Path | None) -> str:
    if token_file is not None:
        return _in_file(token_file)
    token = os.environ.get("OSTIARY_TOKEN") or logins.token_for(url)
    if not token:
        raise Misconfigured("there is no token", f"`ostiary login --url {url}`, or --token-file FILE")
    return token


def _in_file(path: Path) -> str:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Misconfigured(f"{path} can be read by others", f"chmod 600 {path}")
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Misconfigured(f"{path} is no regular file", "put a token or an API key into a file")
            token = file.read(_MOST_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"{path} cannot be read", "put a token or an API key into it") from None
    if not token.isprintable() or not token:
        raise Misconfigured(f"{path} holds no token", "put a token or an API key into it")
    return token
