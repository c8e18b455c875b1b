"""Who gives tokens for an MCP server, and how the gateway becomes its client: found out once, when an operator asks.

The server is asked without a token, says where its metadata are (RFC 9728), and they name its authorization server,
which publishes its own (RFC 8414) and may take a registration (RFC 7591). None of it is believed further than it
reaches: the resource must be the server that was asked, metadata their issuer's, every address https, and what comes
of it is shown to the operator, who pins it in the settings. Nothing is found out again while calls are made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from gateway.adapters.connections.answers import object_of
from gateway.adapters.connections.metadata import Metadata, address, metadata, names, odd, places
from gateway.core.canonical import encode
from gateway.core.mcpwire import challenges

_OK, _CREATED, _NOT_FOUND = 200, 201, 404
_FETCHED: Final = frozenset({_OK, _CREATED})
_PROBE: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'
_PRINTED: Final = re.compile(r"[\x21-\x7e]{1,2048}", re.ASCII)
_OFFLINE: Final = "offline_access"
# How a client authenticates, as settings say it, in the order of preference.
_WAYS: Final = {"client_secret_basic": "basic", "client_secret_post": "body", "none": None}


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer.

    Attributes:
        challenges: values of ``WWW-Authenticate``.
        content: the body, of bounded length.
    """

    status: int
    challenges: tuple[str, ...] = ()
    content: bytes = b""


class Fetch(Protocol):
    """Asks an address once: no redirect is followed, no secret sent, and only what may be dialled is dialled."""

    async def __call__(self, method: str, url: str, body: bytes | None = None) -> Fetched:
        """The answer.

        Raises:
            Unavailable: there is none, or the address may not be dialled.
        """


@dataclass(frozen=True, slots=True)
class Protected:
    """A server that wants tokens.

    Attributes:
        resource: as it names itself; what tokens are asked for (RFC 8707).
        issuers: authorization servers that give them.
        scopes: what it wants, or else what there is.
    """

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """The gateway as a client of an authorization server.

    Attributes:
        auth: how id and secret are sent, ``basic`` or ``body``; None = a public client.
    """

    id: str
    secret: str | None = field(default=None, repr=False)
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a registration asks for.

    Attributes:
        redirect: where persons' browsers come back to.
    """

    name: str
    redirect: str
    scopes: Sequence[str]


async def protected(url: str, fetch: Fetch) -> Protected:
    """What the MCP server at ``url`` says of the tokens it wants.

    Raises:
        Unavailable: nothing, or nothing that could be used.
    """
    challenge = challenges.bearer((await fetch("POST", url, _PROBE)).challenges)
    said = await _published(url, challenge.get("resource_metadata"), fetch)
    resource, issuers = said.get("resource"), names(said.get("authorization_servers"))
    if not isinstance(resource, str) or not covers(resource, url):
        raise odd("speaks for another server than the one that was asked")
    if not issuers or not all(_PRINTED.fullmatch(one) for one in issuers):
        raise odd("names nobody who gives tokens for it")
    issuers = tuple(address(one, url) for one in issuers)
    wanted = challenge["scope"].split() if "scope" in challenge else names(said.get("scopes_supported")) or ()
    scopes = challenges.scopes(wanted)
    if scopes is None:
        raise odd("wants scopes that are none")
    return Protected(resource, issuers, scopes)


async def published(issuer: str, fetch: Fetch) -> Metadata:
    """What an authorization server publishes, which must be enough for a person to connect an account.

    Raises:
        Unavailable: it is not.
    """
    for place in places(issuer):
        answer = await fetch("GET", place)
        if answer.status == _NOT_FOUND:
            continue
        found = metadata(object_of(answer.content) if answer.status == _OK else None, issuer)
        if not found.has_pkce:
            raise odd("does not say that it checks code challenges (PKCE, S256)")
        return found
    raise odd("publishes no metadata")


def asked(wanted: Sequence[str], found: Metadata) -> tuple[str, ...]:
    """The scopes that persons are asked for: what the server wants, and a token that lasts where there is one."""
    lasting = (_OFFLINE,) if _OFFLINE in (found.scopes or ()) else ()
    return tuple(dict.fromkeys((*wanted, *lasting)))


async def registered(found: Metadata, applicant: Applicant, fetch: Fetch) -> Membership:
    """Become a client (RFC 7591).

    Raises:
        Unavailable: it takes no clients, or not as we could be one.
    """
    way = next((one for one in _WAYS if one in found.ways), None)
    if found.registration is None:
        raise odd("registers no clients: have one made there, and name it by --client-id")
    if way is None:
        raise odd("takes clients in no way that is known here")
    document = {
        "client_name": applicant.name,
        "redirect_uris": [applicant.redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": way,
        "application_type": "native",
        **({"scope": " ".join(applicant.scopes)} if applicant.scopes else {}),
    }
    answer = await fetch("POST", found.registration, encode(document))
    said = object_of(answer.content) if answer.status in _FETCHED else None
    if said is None:
        raise odd(f"does not take the registration (status {answer.status})")
    return _member(said, way)


def covers(resource: str, url: str) -> bool:
    """Whether a resource identifier is that of the server at ``url``: its origin, and its path or one above it."""
    try:
        named, here = urlsplit(resource), urlsplit(url)
        same = (named.scheme, named.hostname, named.port) == (here.scheme, here.hostname, here.port)
    except ValueError:
        return False
    if not same or not _PRINTED.fullmatch(resource) or named.fragment or named.username is not None:
        return False
    if named.query:
        return (named.path, named.query) == (here.path, here.query)
    path = named.path.rstrip("/")
    return here.path == path or here.path.startswith(f"{path}/")


async def _published(url: str, named: str | None, fetch: Fetch) -> Mapping[str, Any]:
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource"
    below = f"{root}{parts.path}" if parts.path.strip("/") else root
    for place in (address(named, url),) if named is not None else dict.fromkeys((below, root)):
        answer = await fetch("GET", place)
        if answer.status != _OK and named is None:
            continue  # places where it may be: some servers refuse what they do not have
        said = object_of(answer.content) if answer.status == _OK else None
        if said is None:
            raise odd("publishes no metadata of the server that could be used")
        return said
    raise odd("does not say who gives tokens for it")


def _member(said: Mapping[str, Any], asked_way: str) -> Membership:
    name, secret, way = said.get("client_id"), said.get("client_secret"), said.get("token_endpoint_auth_method")
    way = asked_way if way is None else way
    if not _is_printed(name) or not isinstance(way, str) or way not in _WAYS:
        raise odd("makes a client that could not be used")
    if _WAYS[way] is None:
        return Membership(str(name))
    if not _is_printed(secret):
        raise odd("makes a client that could not be used")
    return Membership(str(name), str(secret), _WAYS[way])


def _is_printed(value: object) -> bool:
    return isinstance(value, str) and _PRINTED.fullmatch(value) is not None
