"""HTTP APIs as tools: declared requests to one fixed origin."""

from connectors.http.api import HttpApi, HttpApiOptions
from connectors.http.binding import check

__all__ = ["HttpApi", "HttpApiOptions", "check"]
