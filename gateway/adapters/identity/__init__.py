"""Who is calling: the local issuer of Ed25519 bearer tokens and their verification."""

from gateway.adapters.identity.claims import SCOPES, Cause, Grant, Trust
from gateway.adapters.identity.keys import KeyFileError, create_key, load_key
from gateway.adapters.identity.local import LocalIdentity, LocalIssuer

__all__ = [
    "SCOPES",
    "Cause",
    "Grant",
    "KeyFileError",
    "LocalIdentity",
    "LocalIssuer",
    "Trust",
    "create_key",
    "load_key",
]
