"""Where the log is kept, by the settings."""

import importlib
import os
from typing import Any

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.adapters.ledger.storage.site import Folder, Site
from gateway.core.errors import Unavailable
from gateway.settings import GatewaySettings, PostgresSection, SettingsError

_EXTRA = "pip install 'ostiary[postgres]'"


def site(settings: GatewaySettings) -> Site:
    """The place of the log; nothing is opened.

    Raises:
        SettingsError: it cannot be used, or the extra is not installed.
    """
    given = settings.audit.postgres
    if given is None:
        return Folder(settings.state)
    # Loaded here: whoever has no PostgreSQL needs no driver.
    try:
        databases = importlib.import_module("gateway.adapters.ledger.storage.postgres_database")
        sites = importlib.import_module("gateway.adapters.ledger.storage.postgres_site")
    except ModuleNotFoundError:
        raise SettingsError([f"audit.postgres: PostgreSQL needs the extra `postgres`: {_EXTRA}"]) from None
    try:
        server = databases.server(given.url, _password(given), given.ca_certificate)
    except (ValueError, OSError) as error:
        raise SettingsError([f"audit.postgres.url: {error}"]) from None
    found: Any = sites.PostgresSite(settings.state, server)
    place: Site = found
    return place


def _password(given: PostgresSection) -> str | None:
    if given.password is None:
        return None
    source = SecretSource(env=given.password.env, file=given.password.file)
    try:
        return read_secret("audit.postgres.password", source, os.environ)
    except Unavailable as error:
        raise SettingsError([error.detail]) from None
