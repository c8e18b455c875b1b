"""Accounts of persons at other services: opened once by them, used for one call at a time by the gateway."""

from gateway.adapters.connections.desk import Accounts
from gateway.adapters.connections.minting import Link, PersonTokens, TokenParts
from gateway.adapters.connections.server import Client, Endpoints, OAuthServer

__all__ = ["Accounts", "Client", "Endpoints", "Link", "OAuthServer", "PersonTokens", "TokenParts"]
