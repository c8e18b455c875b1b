"""Where the ledger's contract suite keeps its logs: in a folder, and in a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.servers.postgres import SUPERUSER, Postgres, postgres
from gateway.adapters.ledger.storage.postgres_database import Server
from gateway.adapters.ledger.storage.postgres_site import PostgresSite
from gateway.adapters.ledger.storage.site import Folder, Site

KINDS = ("sqlite", "postgres")


@pytest.fixture(scope="session")
def real_postgres() -> Iterator[Postgres]:
    """One server for all tests; each log has a database of its own."""
    with postgres() as server:
        yield server


def log_database(server: Postgres, name: str) -> Server:
    """A new database for one log."""
    server.run(f'create database "{name}"')
    return Server(str(server.folder), 5432, name, SUPERUSER, server.password)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The place of a new log, in either store."""
    if request.param == "sqlite":
        yield Folder(tmp_path)
        return
    server: Postgres = request.getfixturevalue("real_postgres")
    target = log_database(server, f"log_{tmp_path.parent.name[-8:]}_{tmp_path.name}"[:60].lower())
    yield PostgresSite(tmp_path, target)
    server.run(f'drop database "{target.database}" with (force)')
