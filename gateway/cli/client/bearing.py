"""Tokens for clients that this command serves: made afresh with the key of the state folder, in nobody's file."""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gateway.adapters.identity import Grant
from gateway.cli import home
from gateway.cli.screen import Misconfigured
from gateway.core.errors import InvalidArguments
from gateway.settings import GatewaySettings
from gateway.settings.file import DEVELOPMENT_AGENT, DEVELOPMENT_USER

_HEADERS_TTL_S: Final = 8 * 3600


def config_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--config``."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--config", type=kind, help="The gateway's configuration file, instead of --state.")(command)


def who_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--user`` and ``--agent``."""

    @click.option("--user", default=DEVELOPMENT_USER, show_default=True, help="Person the client works for.")
    @click.option("--agent", default=DEVELOPMENT_AGENT, show_default=True, help="Name of the client as an agent.")
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    return run


def settings_of(config: Path | None, state: Path) -> GatewaySettings:
    """The settings of a configuration file, else those that a state folder belongs to.

    Raises:
        Misconfigured: they cannot be used.
    """
    return home.of_state(state) if config is None else home.read(config)


def minted(settings: GatewaySettings, user: str, agent: str, ttl_s: int) -> tuple[str, float]:
    """A token for calls, and when it ends, seconds since the epoch.

    Raises:
        Misconfigured: the key cannot be used, or the names cannot.
    """
    issuer = home.issuer(settings)
    try:
        token = issuer.issue(issuer.principal(Grant(user, agent, ttl_s=ttl_s)))
    except InvalidArguments as error:
        raise Misconfigured(error.detail) from None
    return token, time.time() + ttl_s


def header_fields(settings: GatewaySettings, user: str, agent: str) -> str:
    """The header fields of a request, as a JSON object."""
    token, _ = minted(settings, user, agent, _HEADERS_TTL_S)
    return json.dumps({"Authorization": f"Bearer {token}"})
