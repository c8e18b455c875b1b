"""The device authorization grant (RFC 8628): a person logs in with a browser somewhere, for a command here."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from gateway.cli.addresses import is_loopback, place
from gateway.cli.screen import Failed, shown

_TIMEOUT: Final = httpx.Timeout(15.0)
_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_ENDPOINT: Final = "/mcp"
_RESOURCE: Final = f"/.well-known/oauth-protected-resource{_ENDPOINT}"
_OK: Final = 200
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750
_MAX_TOKEN: Final = 8192
_MAX_BYTES: Final = 256 * 1024
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0
_LIFE_S, _LONGEST_LIFE_S = 300.0, 7 * 86_400.0
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


@dataclass(frozen=True, slots=True)
class Login:
    """What a person got.

    Attributes:
        token: a bearer token.
        lives_s: how long it is good, seconds.
    """

    token: str = field(repr=False)
    lives_s: float


def offer(gateway: str) -> Offer:
    """What the gateway at ``gateway`` says of itself (RFC 9728).

    Raises:
        Failed: there is none, it takes no foreign tokens, or it speaks of another resource.
    """
    with _client() as client:
        said = _read(client, gateway.rstrip("/") + _RESOURCE)
    issuers = said.get("authorization_servers") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(issuers, list) or not issuers:
        raise Failed(f"{shown(gateway)} takes no tokens of other issuers", "set OSTIARY_TOKEN to one of its own")
    resource, scopes = str(said.get("resource")), said.get("scopes_supported")
    # RFC 9728 section 3.3. One that asks for a token for another would be handed it, and use it there.
    if place(resource) != place(gateway) + _ENDPOINT:
        raise Failed(
            f"{shown(gateway)} asks for a token for {shown(resource)}", "use the address that gateway goes by as --url"
        )
    return Offer(resource, tuple(map(str, issuers)), tuple(map(str, scopes if isinstance(scopes, list) else ())))


def log_in(wish: Wish, show: Callable[[str, str], None]) -> Login:
    """Have a person log in; ``show`` is told where, and the code to confirm.

    Raises:
        Failed: the issuer has no such way, the person said no, or time ran out.
    """
    with _client() as client:
        metadata = _metadata(client, wish.issuer)
        asked = {"client_id": wish.client_id, "scope": wish.scope, "resource": wish.resource}
        begun = _begun(client, str(metadata["device_authorization_endpoint"]), asked)
        page = _near_or_tls(str(begun.get("verification_uri_complete") or begun["verification_uri"]))
        show(page, str(begun["user_code"]))
        form = {"grant_type": _GRANT, "device_code": begun["device_code"], "client_id": wish.client_id}
        return _awaited(client, str(metadata["token_endpoint"]), form | {"resource": wish.resource}, begun)


def _awaited(client: httpx.Client, url: str, form: Mapping[str, Any], begun: Mapping[str, Any]) -> Login:
    pause = _seconds(begun.get("interval"), _PAUSE_S, _LONGEST_PAUSE_S)
    deadline = time.monotonic() + _seconds(begun.get("expires_in"), _LONGEST_S, _LONGEST_S)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        answer = _posted(client, url, form)
        problem = answer.get("error")
        if problem is None and (token := answer.get("access_token")) is not None:
            return Login(_token(token), _seconds(answer.get("expires_in"), _LIFE_S, _LONGEST_LIFE_S))
        if problem == "slow_down":
            pause += _SLOWER_S
        elif problem != "authorization_pending":
            raise Failed(f"the issuer gave no token: {shown(problem or 'it answered something else')}", _TRY)
    raise Failed("nobody confirmed the code in time", "log in again")


def _token(value: object) -> str:
    # It goes into a header of each later request.
    if not isinstance(value, str) or len(value) > _MAX_TOKEN or _TOKEN.fullmatch(value) is None:
        raise Failed("the issuer gave something that is no bearer token", _TRY)
    return value


def _seconds(value: object, usual: float, most: float) -> float:
    """What an issuer says of a time, within bounds; ``usual`` where it says nothing that can be used."""
    try:
        said = float(value) if isinstance(value, int | float | str) else usual
    except (ValueError, OverflowError):
        said = usual
    return min(most, max(0.0, usual if math.isnan(said) else said))


def _begun(client: httpx.Client, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
    begun = _posted(client, url, form)
    if not {"device_code", "user_code", "verification_uri"} <= begun.keys():
        raise Failed(
            f"the issuer refused: {shown(begun.get('error_description') or begun.get('error') or begun)}", _TRY
        )
    return begun


def _metadata(client: httpx.Client, issuer: str) -> Mapping[str, Any]:
    parts = urlsplit(_near_or_tls(issuer))
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
    with _asked(client, "GET", url) as answer:
        return _object(answer) if answer.status_code == _OK else None


def _posted(client: httpx.Client, url: str, form: Mapping[str, Any]) -> dict[str, Any]:
    with _asked(client, "POST", url, dict(form)) as answer:
        return _object(answer)


def _asked(
    client: httpx.Client, method: str, url: str, form: dict[str, Any] | None = None
) -> AbstractContextManager[httpx.Response]:
    # As it is: what unpacks to much more than was sent would be read before it could be measured.
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    return client.stream(method, _near_or_tls(url), data=form, headers=headers)


def _object(answer: httpx.Response) -> dict[str, Any]:
    content = bytearray()
    for block in answer.iter_raw():
        content += block
        if len(content) > _MAX_BYTES:
            raise Failed(f"{shown(str(answer.url))} answers too much", _TRY)
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Failed(f"{shown(str(answer.url))} answers no JSON object (status {answer.status_code})", _TRY)
    return said


def _near_or_tls(url: str) -> str:
    with suppress(ValueError):
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
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Failed(f"it cannot be reached ({type(error).__name__})", "check the address and the network") from None
