"""SQL databases as tools: declared statements with bound parameters. SQLite here, PostgreSQL in ``postgres``."""

from connectors.sql.connector import SqliteConnector, check

__all__ = ["SqliteConnector", "check"]
