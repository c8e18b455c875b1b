"""HTTP clients for servers that settings name."""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp

from gateway.settings import SettingsError


def session(key: str, authority: Path | None) -> Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]:
    """Makes clients that check certificates against ``authority``, or the system's; proxies are not looked for.

    Raises:
        SettingsError: the certificate cannot be used; ``key`` is where it stands in the settings.
    """
    try:
        tls = None if authority is None else ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise SettingsError([f"{key}: {error.strerror or 'holds no certificate'}"]) from None

    def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or True), trust_env=False)

    return make
