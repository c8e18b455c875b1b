"""Who is calling: the local issuer of Ed25519 bearer tokens, foreign issuers, and the verification of their tokens."""

from gateway.adapters.identity.api_keys import ApiKeyIdentity
from gateway.adapters.identity.claims import SCOPES, Cause, Grant, Trust
from gateway.adapters.identity.foreign import ForeignTrust
from gateway.adapters.identity.issuer_keys import IssuerKeyRotation, IssuerTerms, former
from gateway.adapters.identity.jwks import Address, IssuerKeys
from gateway.adapters.identity.keys import KeyFileError, create_key, load_key
from gateway.adapters.identity.local import LocalIdentity, LocalIssuer
from gateway.adapters.identity.oidc import ForeignIdentity, Identities
from gateway.adapters.identity.shared_issuer import SharedIssuerKey, Signing

__all__ = [
    "SCOPES",
    "Address",
    "ApiKeyIdentity",
    "Cause",
    "ForeignIdentity",
    "ForeignTrust",
    "Grant",
    "Identities",
    "IssuerKeyRotation",
    "IssuerKeys",
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
