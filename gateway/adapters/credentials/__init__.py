"""Credentials for calls: static ones as configured, and logins minted for one call each."""

from gateway.adapters.credentials.broker import CredentialBroker
from gateway.adapters.credentials.leases import Leases
from gateway.adapters.credentials.static import SecretSource, StaticCredential, StaticCredentials, read_secret

__all__ = ["CredentialBroker", "Leases", "SecretSource", "StaticCredential", "StaticCredentials", "read_secret"]
