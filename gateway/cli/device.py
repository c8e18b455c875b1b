"""The device authorization grant (RFC 8628): a person logs in with a browser somewhere, for a command here."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from gateway.cli.addresses import is_loopback
from gateway.cli.screen import Failed, shown

_TIMEOUT: Final = httpx.Timeout(15.0)
_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_RESOURCE: Final = "/.well-known/oauth-protected-resource/mcp"
_OK: Final = 200
_SLOWER_S: Final = 5.0
_LONGEST_S: Final = 1800.0
_TRY: Final = "ask whoever runs the gateway for the issuer and the client id to use"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a gateway takes tokens from.

    Attributes:
        resource: the gateway as tokens name it.
        issuers: identifiers of the issuers it trusts.
        scopes: what tokens may give there.
    """

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        issuer: who is asked.
        client_id: as which client.
        scope: scopes, separated by spaces.
        resource: whom the token is for (RFC 8707).
    """

    issuer: str
    client_id: str
    scope: str
    resource: str


def offer(gateway: str) -> Offer:
    """What the gateway at ``gateway`` says of itself (RFC 9728).

    Raises:
        Failed: there is none, or it takes no foreign tokens.
    """
    with _client() as client:
        said = _read(client, gateway.rstrip("/") + _RESOURCE)
    issuers = said.get("authorization_servers") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(issuers, list) or not issuers:
        raise Failed(f"{shown(gateway)} takes no tokens of other issuers", "set OSTIARY_TOKEN to one of its own")
    scopes = said.get("scopes_supported", [])
    return Offer(str(said.get("resource")), tuple(map(str, issuers)), tuple(map(str, scopes)))


def log_in(wish: Wish, show: Callable[[str, str], None]) -> Mapping[str, Any]:
    """Have a person log in; ``show`` is told where, and the code to confirm. Returns the issuer's answer.

    Raises:
        Failed: the issuer has no such way, the person said no, or time ran out.
    """
    with _client() as client:
        metadata = _metadata(client, wish.issuer)
        asked = {"client_id": wish.client_id, "scope": wish.scope, "resource": wish.resource}
        begun = _begun(client, str(metadata["device_authorization_endpoint"]), asked)
        show(str(begun.get("verification_uri_complete") or begun["verification_uri"]), str(begun["user_code"]))
        form = {"grant_type": _GRANT, "device_code": begun["device_code"], "client_id": wish.client_id}
        return _awaited(client, str(metadata["token_endpoint"]), form | {"resource": wish.resource}, begun)


def _awaited(client: httpx.Client, url: str, form: Mapping[str, Any], begun: Mapping[str, Any]) -> Mapping[str, Any]:
    pause = float(begun.get("interval", 5))
    deadline = time.monotonic() + min(_LONGEST_S, float(begun.get("expires_in", _LONGEST_S)))
    while time.monotonic() < deadline:
        time.sleep(pause)
        answer = _answered(client.post(_near_or_tls(url), data=dict(form)))
        problem = answer.get("error")
        if problem is None and isinstance(answer.get("access_token"), str):
            return answer
        if problem == "slow_down":
            pause += _SLOWER_S
        elif problem != "authorization_pending":
            raise Failed(f"the issuer gave no token: {shown(problem or 'it answered something else')}", _TRY)
    raise Failed("nobody confirmed the code in time", "log in again")


def _begun(client: httpx.Client, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
    begun = _answered(client.post(_near_or_tls(url), data=dict(form)))
    if not {"device_code", "user_code", "verification_uri"} <= begun.keys():
        raise Failed(
            f"the issuer refused: {shown(begun.get('error_description') or begun.get('error') or begun)}", _TRY
        )
    return begun


def _metadata(client: httpx.Client, issuer: str) -> Mapping[str, Any]:
    parts = urlsplit(issuer)
    inserted = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"
    for url in (f"{issuer.rstrip('/')}/.well-known/openid-configuration", inserted):
        said = _read(client, url)
        if isinstance(said, dict):
            if said.get("issuer") != issuer:
                raise Failed(f"{shown(url)} speaks of another issuer", _TRY)
            if not {"device_authorization_endpoint", "token_endpoint"} <= said.keys():
                raise Failed(f"{shown(issuer)} has no login for devices", "set OSTIARY_TOKEN to a token of the issuer")
            return said
    raise Failed(f"{shown(issuer)} publishes no metadata", _TRY)


def _read(client: httpx.Client, url: str) -> Any:
    answer = client.get(_near_or_tls(url), headers={"accept": "application/json"})
    return _answered(answer) if answer.status_code == _OK else None


def _answered(answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Failed(f"{shown(str(answer.url))} answers no JSON object (status {answer.status_code})", _TRY)
    return said


def _near_or_tls(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return url
    raise Failed(f"{shown(url)} is no https address: what is sent there can be read on the way", _TRY)


@contextmanager
def _client() -> Iterator[httpx.Client]:
    try:
        # What an issuer says of itself is not looked for elsewhere.
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            yield client
    except httpx.HTTPError as error:
        raise Failed(f"it cannot be reached ({type(error).__name__})", "check the address and the network") from None
