"""The same little shop in SQLite and in PostgreSQL, with the connector before it and a look past it."""

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from connectors.sql import SqliteConnector
from connectors.sql.postgres import PostgresConnector, target
from deploy.servers.postgres import Postgres
from gateway.core.call import Login, Raw
from gateway.core.connector import Connector
from gateway.core.tool import ConnectorKind, EffectClass, Tool, ToolLimits
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool

_NUMBERS = itertools.count(1)
_SQLITE = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, city TEXT, total REAL, big INTEGER, raw BLOB);
INSERT INTO orders VALUES (1, 'Bern', 9.5, 9007199254740993, NULL), (2, 'Zürich', NULL, 1, x'00ff');
CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL
    REFERENCES orders(id) DEFERRABLE INITIALLY DEFERRED, sku TEXT UNIQUE);
"""
_POSTGRES = (
    "CREATE TABLE orders (id int PRIMARY KEY, city text, total double precision, big bigint, raw bytea)",
    r"INSERT INTO orders VALUES (1, 'Bern', 9.5, 9007199254740993, NULL), (2, 'Zürich', NULL, 1, '\x00ff')",
    (
        "CREATE TABLE lines (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id int NOT NULL "
        "REFERENCES orders(id) DEFERRABLE INITIALLY DEFERRED, sku text UNIQUE)"
    ),
    "GRANT ALL ON orders, lines TO shopper",
)
PASSWORD = "shoppersOwnPassword1"


@dataclass(frozen=True)
class Shop:
    """A connector and the database it reaches.

    Attributes:
        rows: what a statement finds, run past the connector.
        endless: a SELECT that does not end by itself, of one integer column ``top``.
        login: whom it logs in as; None where there are no users.
    """

    connector: Connector
    rows: Callable[[str], list[tuple[Any, ...]]]
    endless: str
    login: Login | None = None

    async def call(self, which: Tool, arguments: Mapping[str, Any] | bytes | None = None) -> Raw:
        """The result of a call; it must keep the output contract."""
        raw = await self.connector.invoke(structs.replace(lease(which, arguments), login=self.login))
        Verifier().verify(raw)
        return raw


@asynccontextmanager
async def sqlite_shop(folder: Path) -> AsyncIterator[Shop]:
    """The shop in a SQLite file."""
    path = folder / "shop.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as looking:
        looking.executescript(_SQLITE)
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS top FROM n"
        async with SqliteConnector(path, busy_s=0.05) as connector:
            yield Shop(connector, lambda query: looking.execute(query).fetchall(), endless)


@asynccontextmanager
async def postgres_shop(server: Postgres) -> AsyncIterator[Shop]:
    """The shop in a new database of a running PostgreSQL."""
    name = f"shop_{next(_NUMBERS)}"
    (known,) = server.run("SELECT 1 FROM pg_roles WHERE rolname = 'shopper'")
    make = [] if known else [f"CREATE ROLE shopper LOGIN PASSWORD '{PASSWORD}'"]
    server.run(*make, f"CREATE DATABASE {name}")
    there = replace(server, database=name)
    there.run(*_POSTGRES)
    endless = "SELECT 1 AS top FROM pg_sleep(3600)"
    try:
        async with PostgresConnector(target(there.url)) as connector:
            yield Shop(connector, lambda query: there.run(query)[0], endless, Login("shopper", PASSWORD))
    finally:
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


def sql_tool(
    statement: str, *parameters: Any, mode: str = "read", limits: ToolLimits | None = None, **more: Any
) -> Tool:
    """A SQL tool whose schema takes its parameters."""
    names = [item if isinstance(item, str) else item["pointer"].split("/")[1] for item in parameters]
    schema = {"type": "object", "properties": {name: {} for name in names}, "additionalProperties": False}
    return make_tool(
        "sql",
        schema=schema,
        limits=limits,
        connector=ConnectorKind.SQL,
        effect=EffectClass.READ if mode == "read" else EffectClass.WRITE,
        binding={"statement": statement, "parameters": parameters, "mode": mode, **more},
    )


def insert() -> Tool:
    """A tool that adds an order line."""
    return sql_tool(
        "INSERT INTO lines (order_id, sku) VALUES (:order_id, :sku) RETURNING order_id, sku",
        "order_id",
        "sku",
        mode="write",
    )
