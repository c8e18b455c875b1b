"""Code that callers send, run in a sandbox that the gateway hands in."""

from connectors.code.connector import CodeConnector, check

__all__ = ["CodeConnector", "check"]
