"""What an authorization server publishes of itself (RFC 8414, OpenID Connect): read strictly, by its name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.core.errors import Unavailable

_NEAR: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_MOST_NAMES: Final = 256
_PRINTED: Final = re.compile(r"[\x21-\x7e]{1,2048}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where things are asked, and what is possible there; None = there is no such place, or nothing is said.

    Attributes:
        scopes: names that may be asked for.
        ways: how clients may authenticate at the token endpoint (``client_secret_basic`` where nothing is said).
        has_pkce: whether challenges by S256 are checked.
        says_issuer: whether the server promises to say who it is with each code (RFC 9207).
        takes_documents: whether the address of a client's own document may be its client id.
    """

    issuer: str
    authorization: str
    token: str
    revocation: str | None
    registration: str | None
    scopes: tuple[str, ...] | None
    ways: tuple[str, ...]
    has_pkce: bool
    says_issuer: bool
    takes_documents: bool


def places(issuer: str) -> tuple[str, ...]:
    """The addresses at which it may be published, in the order they are asked."""
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}/.well-known", parts.path.rstrip("/")
    found = (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{root}/oauth-authorization-server{path}",
        f"{root}/openid-configuration{path}",
    )
    return tuple(dict.fromkeys(found))


def metadata(said: Mapping[str, Any] | None, issuer: str) -> Metadata:
    """What ``said`` says.

    Raises:
        Unavailable: it is of another issuer, or nothing that could be used.
    """
    # RFC 8414 section 3.3: metadata that speaks of another issuer is somebody else's.
    if said is None or said.get("issuer") != issuer:
        raise odd("publishes no metadata that could be used")
    revocation, registration = said.get("revocation_endpoint"), said.get("registration_endpoint")
    return Metadata(
        issuer,
        address(said.get("authorization_endpoint"), issuer),
        address(said.get("token_endpoint"), issuer),
        None if revocation is None else address(revocation, issuer),
        None if registration is None else address(registration, issuer),
        names(said.get("scopes_supported")),
        names(said.get("token_endpoint_auth_methods_supported")) or ("client_secret_basic",),
        has_pkce="S256" in (names(said.get("code_challenge_methods_supported")) or ()),
        says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
        takes_documents=said.get("client_id_metadata_document_supported") is True,
    )


def names(value: object) -> tuple[str, ...] | None:
    """A list of names; None where it is none."""
    if not isinstance(value, list) or len(value) > _MOST_NAMES or not all(isinstance(one, str) for one in value):
        return None
    return tuple(dict.fromkeys(value))


def address(url: object, issuer: str) -> str:
    """An address that ``issuer``, or whoever speaks of it, names.

    Raises:
        Unavailable: no https address, or one that a person or another reader could take for something else. Plain http
            only by the word of an issuer on this machine: another one could lead secrets to whatever is here.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) and _PRINTED.fullmatch(url) else None
    except ValueError:
        parts = None
    if parts is not None and "@" in parts.netloc:
        parts = None
    is_near = parts is not None and parts.scheme == "http" and parts.hostname in _NEAR and issuer.startswith("http://")
    if not isinstance(url, str) or parts is None or not parts.hostname or not (is_near or parts.scheme == "https"):
        raise odd("names an address that is no https address")
    return url


def odd(what: str) -> Unavailable:
    """The service is not to be understood."""
    return Unavailable(f"the service {what}", cause_code="provider_odd")
