"""The house of the end-to-end tests: one gateway before a database, an HTTP API and four MCP servers of both eras."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import venvs
from tests.gateways import NO_TLS, Gateway, serving
from tests.processes import FIXTURES, http_server

HERE = Path(__file__).parent
API_KEY = "ak-e2e-5f2d9c81b7e3"
KNOWN_SECRET = "ks-e2e-0b6e4fd7a2c9"
SECRETS = {"API_KEY": API_KEY, "KNOWN_SECRET": KNOWN_SECRET}


@dataclass(frozen=True)
class Api:
    """The HTTP API behind the gateway, as a test looks at it past the gateway."""

    origin: str
    http: httpx.Client = field(repr=False)

    def journal(self, text: str = "") -> list[dict[str, Any]]:
        """What reached it whose path or body holds ``text``."""
        lines: list[dict[str, Any]] = self.http.get("/journal").json()
        return [line for line in lines if text in json.dumps(line)]

    def release(self) -> None:
        """Let what waits go on."""
        assert self.http.post("/release").status_code == 200


@dataclass(frozen=True)
class House:
    """The gateway and what stands behind it."""

    gateway: Gateway
    api: Api

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the ERP database past the gateway."""
        return read(self.gateway.folder, query, *values)


def read(folder: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read the ERP database of ``folder``."""
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database:
        return database.execute(query, values).fetchall()


@contextlib.contextmanager
def api_server() -> Iterator[Api]:
    """The HTTP API on a free port."""
    command = [sys.executable, str(FIXTURES / "http_api.py")]
    environment = {**os.environ, "API_KEY": API_KEY}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            origin = f"http://127.0.0.1:{int(process.stdout.readline())}"
            with httpx.Client(base_url=origin, verify=NO_TLS) as http:
                yield Api(origin, http)
        finally:
            process.kill()


def furnish(folder: Path, **places: str) -> None:
    """Write configuration, catalogue, policy and database into ``folder``; ``places`` fill the words in."""
    text = (HERE / "gateway.toml").read_text("utf-8")
    for name, value in places.items():
        text = text.replace(f"@{name.upper()}@", value)
    (folder / "gateway.toml").write_text(text, "utf-8")
    shutil.copy(HERE / "catalogue.toml", folder)
    shutil.copytree(HERE / "policy", folder / "policy")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.executescript(
            """
            CREATE TABLE orders (number TEXT PRIMARY KEY, vendor TEXT, total INT, currency TEXT);
            CREATE TABLE staging (invoice TEXT PRIMARY KEY, amount INT, currency TEXT);
            CREATE TABLE notes (text TEXT, number INT, extra TEXT);
            CREATE TABLE tickets (who TEXT);
            INSERT INTO orders VALUES ('PO-1', 'V-7', 400000, 'EUR');
            """
        )
    with contextlib.closing(sqlite3.connect(folder / "books.sqlite")) as database, database:
        database.execute("CREATE TABLE books (title TEXT)")
        database.executemany("INSERT INTO books VALUES (?)", [("The Door",), (f"a note: {KNOWN_SECRET}!",)])


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all end-to-end tests; at the end it stops cleanly and has complained of nothing."""
    folder, old, new = tmp_path_factory.mktemp("house"), venvs.python("mcp1"), venvs.python("mcp2")
    with (
        http_server(old, "mcp1_http.py") as old_url,
        http_server(new, "mcp2_http.py") as new_url,
        api_server() as api,
    ):
        servers = str(venvs.python("servers"))
        furnish(folder, api=api.origin, servers=servers, mcp1=str(old.parent), old=old_url, new=new_url)
        with serving(folder, **SECRETS) as gateway:
            yield House(gateway, api)
        assert gateway.process.returncode == 0
        assert "Traceback" not in gateway.words()
