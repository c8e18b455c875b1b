"""SQL databases as tools: declared statements with bound parameters. SQLite for now."""

from connectors.sql.connector import SqliteConnector, check

__all__ = ["SqliteConnector", "check"]
