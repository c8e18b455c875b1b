"""Who is calling: the local issuer of Ed25519 bearer tokens, foreign issuers, and the verification of their tokens.

What stands here needs no network; foreign issuers are in ``foreign``, ``jwks`` and ``oidc``, so that commands which
issue or check a token of our own do not load an HTTP client.
"""

from gateway.adapters.identity.api_keys import ApiKeyIdentity
from gateway.adapters.identity.claims import SCOPES, Cause, Grant, Trust
from gateway.adapters.identity.issuer_keys import IssuerKeyRotation, IssuerTerms, former
from gateway.adapters.identity.keys import KeyFileError, create_key, load_key
from gateway.adapters.identity.local import LocalIdentity, LocalIssuer
from gateway.adapters.identity.shared_issuer import SharedIssuerKey, Signing

__all__ = [
    "SCOPES",
    "ApiKeyIdentity",
    "Cause",
    "Grant",
    "IssuerKeyRotation",
    "IssuerTerms",
    "KeyFileError",
    "LocalIdentity",
    "LocalIssuer",
    "SharedIssuerKey",
    "Signing",
    "Trust",
    "create_key",
    "former",
    "load_key",
]
