"""An OAuth 2 authorization server, and the gateway as a client of it: implements ``AuthorizationServer``.

Nothing of what it answers is trusted to be well-formed, and nothing of it is shown: its words may quote tokens.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp

from gateway.adapters.connections.answers import granted, object_of, refusal
from gateway.adapters.connections.metadata import metadata, odd, places
from gateway.core.breaker import Breaker
from gateway.core.connections import Consent, Granted, GrantRefused, Wish
from gateway.core.errors import Unavailable
from gateway.core.ports import Clock

_MAX_BYTES: Final = 128 * 1024
_OK: Final = 200
_NOT_FOUND: Final = 404
_LAST_REFUSAL: Final = 499
_KNOWN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where things are asked; None = there is no such place.

    Attributes:
        says_issuer: whether the server promises to say who it is with each code (RFC 9207).
    """

    authorization: str
    token: str
    revocation: str | None = None
    says_issuer: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """The gateway at the authorization server.

    Attributes:
        id: client id.
        secret: reads the client secret each time it is needed, known to the redactor; None = a public client.
        in_body: whether id and secret stand in the body, where the server takes them so only.
        resource: whom access tokens are for (RFC 8707), where it has to be said.
    """

    id: str
    secret: Callable[[], str] | None = field(default=None, repr=False)
    in_body: bool = False
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """How the server is reached.

    Attributes:
        session: makes an HTTP client.
        timeout_s: longest an answer may take.
    """

    session: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]
    clock: Clock
    timeout_s: float = 5.0


class OAuthServer:
    """One authorization server.

    Failure mode, closed: gone, slow, or not to be understood is ``Unavailable``; nothing is asked twice. One that did
    not answer several times in a row is left alone for a while.
    """

    def __init__(self, issuer: str | None, given: Endpoints | None, client: Client, reach: Reach) -> None:
        """``issuer`` publishes where things are (RFC 8414, OpenID Connect), unless they are ``given``."""
        assert issuer is not None or given is not None
        self.issuer = issuer
        place = given.token if given is not None else issuer
        self.client = hashlib.sha256(f"{place}|{client.id}".encode()).hexdigest()
        self._given = given
        self._as = client
        self._reach = reach
        self._breaker = Breaker()
        self._found: tuple[float, Endpoints] | None = None
        self._looking = asyncio.Lock()

    async def page(self, wish: Wish, scopes: Sequence[str]) -> str:
        """Where a person says yes or no; see ``AuthorizationServer``."""
        query = {
            "response_type": "code",
            "client_id": self._as.id,
            "redirect_uri": wish.redirect,
            "state": wish.state,
            "code_challenge": wish.challenge,
            "code_challenge_method": "S256",
            "prompt": "consent",
            **self._resource(),
        }
        if scopes:
            query["scope"] = " ".join(scopes)
        where = (await self._endpoints()).authorization
        return f"{where}{'&' if urlsplit(where).query else '?'}{urlencode(query)}"

    async def redeem(self, consent: Consent) -> Granted:
        """Tokens for a code; see ``AuthorizationServer``."""
        where = await self._endpoints()
        if not self._may_be_ours(consent.issuer, where):
            raise GrantRefused("issuer", is_over=True)
        form = {
            "grant_type": "authorization_code",
            "code": consent.code,
            "code_verifier": consent.verifier,
            "redirect_uri": consent.redirect,
            **self._resource(),
        }
        return granted(await self._said(where.token, form))

    async def refresh(self, token: str, scopes: Sequence[str]) -> Granted:
        """An access token; see ``AuthorizationServer``."""
        form = {"grant_type": "refresh_token", "refresh_token": token, **self._resource()}
        if scopes:
            form["scope"] = " ".join(scopes)
        return granted(await self._said((await self._endpoints()).token, form))

    async def can_revoke(self) -> bool:
        """Whether it revokes; see ``AuthorizationServer``."""
        return (await self._endpoints()).revocation is not None

    async def revoke(self, token: str, hint: str) -> None:
        """End a token; see ``AuthorizationServer``."""
        where = (await self._endpoints()).revocation
        if where is None:
            raise odd("revokes nothing")
        status, _ = await self._asked("POST", where, {"token": token, "token_type_hint": hint})
        if status != _OK:
            raise odd("does not revoke")

    def _may_be_ours(self, said: str | None, where: Endpoints) -> bool:
        # A code of another server, sent here, would be in this one's hands: a bad one sends persons on to a good one.
        if said is None:
            return not where.says_issuer
        if self.issuer is not None:
            return said == self.issuer
        return _origin(said) in {_origin(where.authorization), _origin(where.token)}

    async def _said(self, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        status, content = await self._asked("POST", url, form)
        said = object_of(content)
        refused = refusal(said)
        # Some say so with the status of a success.
        if refused is not None and status <= _LAST_REFUSAL:
            raise refused
        if status != _OK or said is None:
            raise odd("gives no answer that could be used")
        return said

    def _resource(self) -> dict[str, str]:
        return {} if self._as.resource is None else {"resource": self._as.resource}

    async def _endpoints(self) -> Endpoints:
        if self._given is not None:
            return self._given
        async with self._looking:
            now = self._reach.clock.monotonic()
            if self._found is None or now - self._found[0] > _KNOWN_S:
                self._found = (now, await self._discovered())
            return self._found[1]

    async def _discovered(self) -> Endpoints:
        assert self.issuer is not None
        for url in places(self.issuer):
            status, content = await self._asked("GET", url, None)
            if status == _NOT_FOUND:
                continue
            said = metadata(object_of(content) if status == _OK else None, self.issuer)
            return Endpoints(said.authorization, said.token, said.revocation, said.says_issuer)
        raise odd("publishes no metadata")

    async def _asked(self, method: str, url: str, form: Mapping[str, str] | None) -> tuple[int, bytes]:
        wait_s = self._breaker.wait(self._reach.clock.monotonic())
        if wait_s > 0:
            raise Unavailable("the service did not answer a moment ago", retry_after=1, cause_code="provider_down")
        headers, body = self._authenticated(form)
        try:
            answer = await self._exchanged(method, url, headers, body)
        except TimeoutError:
            self._breaker.failed(self._reach.clock.monotonic())
            raise Unavailable(
                "the service does not answer in time", retry_after=1, cause_code="provider_slow"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError):
            self._breaker.failed(self._reach.clock.monotonic())
            raise Unavailable("the service cannot be reached", retry_after=1, cause_code="provider_down") from None
        except BaseException:
            self._breaker.gave_up()
            raise
        self._breaker.succeeded()
        return answer

    async def _exchanged(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        timeout, content = aiohttp.ClientTimeout(total=self._reach.timeout_s), bytearray()
        async with (
            self._reach.session() as session,
            session.request(
                method, url, data=form, headers=headers, allow_redirects=False, timeout=timeout
            ) as response,
        ):
            async for block in response.content.iter_chunked(1 << 14):
                content += block
                if len(content) > _MAX_BYTES:
                    raise odd("answers too much")
            return response.status, bytes(content)

    def _authenticated(self, form: Mapping[str, str] | None) -> tuple[dict[str, str], Mapping[str, str] | None]:
        # As it is: what unpacks to much more than was sent would be read before it could be measured.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if form is None:
            return headers, None
        if self._as.secret is None:
            return headers, {**form, "client_id": self._as.id}
        secret = self._as.secret()
        if self._as.in_body:
            return headers, {**form, "client_id": self._as.id, "client_secret": secret}
        # RFC 6749 section 2.3.1: both are encoded as in a form before they are joined.
        basic = f"{quote(self._as.id, safe='')}:{quote(secret, safe='')}".encode("ascii")
        return {**headers, "authorization": f"Basic {base64.b64encode(basic).decode('ascii')}"}, form


def _origin(url: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc.lower()
