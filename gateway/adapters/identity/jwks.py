"""The public keys of one foreign issuer: fetched from where its metadata says, kept while it is out of reach.

Bounded against those who do not have a token: whatever they send, the issuer is asked at most once in half a minute, by
one request at a time, and what it answers is read up to a limit and never followed elsewhere.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from gateway.core import canonical
from gateway.core.errors import GatewayError, Unavailable
from gateway.core.ports import Clock

Key = RSAKey | ECKey | OKPKey
Session = Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]

# What each algorithm takes (RFC 7518 section 3.1, RFC 8037, RFC 9864). Only asymmetric ones: whoever can verify with a
# shared secret can sign with it.
KINDS: Final[Mapping[str, tuple[str, str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
_FRESH_S: Final = 300.0
_STALE_S: Final = 24 * 3600.0
_COOLDOWN_S: Final = 30.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, connect=3)
_MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 64
_LEAST_RSA, _MOST_RSA = 2048, 8192
_OK: Final = 200
_NOT_FOUND: Final = 404
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_LOG = logging.getLogger("gateway.identity")


class IssuerUnreachable(Exception):
    """An issuer's keys cannot be fetched; the message says why and is safe to show to operators."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an issuer's keys are.

    Attributes:
        issuer: its identifier, an https URL (or http on loopback).
        jwks_url: its key set; None = as its metadata says.
        session: makes the HTTP client.
    """

    issuer: str
    jwks_url: str | None
    session: Session


@dataclass(slots=True)
class IssuerKeys:
    """The keys of one issuer, by key id and algorithm. Belongs to one event loop.

    Attributes:
        generation: changes whenever the keys do; what was verified with former keys is no longer good.
    """

    address: Address
    clock: Clock
    generation: int = 0
    _keys: list[tuple[str | None, str | None, Key]] = field(default_factory=list)
    _marks: frozenset[str] = frozenset()
    _fetched_at: float | None = None
    _tried_at: float | None = None
    _trouble: str = "never asked"
    _task: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key a token names, or None where the issuer has no such key.

        A token without a key id is good for the only key of its algorithm.

        Raises:
            Unavailable: the issuer could not be asked for longer than keys are kept.
        """
        if not self.is_known:
            await self._refreshed()
            if not self.is_known:
                raise Unavailable("the issuer's keys cannot be fetched", retry_after=5, cause_code="idp_unavailable")
        else:
            self.keep_fresh()
        found = self._held(kid, algorithm)
        if found is None and self._may_ask():
            await self._refreshed()
            found = self._held(kid, algorithm)
        return found

    def keep_fresh(self) -> None:
        """Have keys fetched that are not fresh; meanwhile those at hand are good.

        Asked at each use of what was verified before: else a key that was taken back is good as ever.
        """
        if self._age(self._fetched_at) >= _FRESH_S:
            self._begin()

    @property
    def is_known(self) -> bool:
        """Whether there are keys that may still be used."""
        return self._fetched_at is not None and self._age(self._fetched_at) < _STALE_S

    async def ping(self) -> None:
        """Return when the issuer's keys are at hand and fresh.

        Raises:
            Unavailable: they are not, and why.
        """
        if self._fetched_at is None or self._age(self._fetched_at) >= _FRESH_S:
            await self._refreshed()
        if self._fetched_at is None or self._age(self._fetched_at) >= _FRESH_S + _COOLDOWN_S:
            raise Unavailable(f"{self.address.issuer}: {self._trouble}", cause_code="idp_unavailable")

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _age(self, at: float | None) -> float:
        return float("inf") if at is None else self.clock.monotonic() - at

    def _held(self, kid: str | None, algorithm: str) -> Key | None:
        fit = [
            key
            for name, bound, key in self._keys
            if fits(key, algorithm) and _is_for(bound, algorithm) and kid in (None, name)
        ]
        # Two keys of one id, or no id where several fit: which one is meant is a guess.
        return fit[0] if len(fit) == 1 else None

    def _may_ask(self) -> bool:
        return self._task is not None or self._age(self._tried_at) >= _COOLDOWN_S

    def _begin(self) -> None:
        if self._task is None and self._age(self._tried_at) >= _COOLDOWN_S:
            self._task = asyncio.create_task(self._refresh())

    async def _refreshed(self) -> None:
        self._begin()
        if self._task is not None:
            # The fetch is everybody's: who gives up waiting does not end it.
            await asyncio.shield(self._task)

    async def _refresh(self) -> None:
        try:
            self._take(await self._fetch())
        except IssuerUnreachable as error:
            if self._trouble != str(error):
                _LOG.warning("the keys of %s cannot be fetched: %s", self.address.issuer, error)
            self._trouble = str(error)
        # Callers wait for this: whatever an issuer answers, it is the issuer's failure and not the gateway's.
        except Exception:  # noqa: BLE001 - see above; it is logged whole
            self._trouble = "its answer cannot be used"
            _LOG.exception("the keys of %s cannot be read", self.address.issuer)
        finally:
            self._tried_at = self.clock.monotonic()
            self._task = None

    def _take(self, keys: list[tuple[str | None, str | None, Key]]) -> None:
        marks = frozenset(f"{name}|{bound}|{key.thumbprint()}" for name, bound, key in keys)
        if marks != self._marks:
            self.generation += 1
        self._keys, self._marks, self._trouble = keys, marks, ""
        self._fetched_at = self.clock.monotonic()

    async def _fetch(self) -> list[tuple[str | None, str | None, Key]]:
        try:
            async with self.address.session() as session:
                url = self.address.jwks_url or await self._discovered(session)
                found = await _object(session, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise IssuerUnreachable(str(error) or type(error).__name__) from None
        if found is None:
            raise IssuerUnreachable(f"{url} is not there")
        return keys_of(found)

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        for url in metadata_urls(self.address.issuer):
            said = await _object(session, url)
            if said is None:
                continue
            # RFC 8414 section 3.3: metadata that speaks of another issuer is somebody else's.
            if said.get("issuer") != self.address.issuer:
                raise IssuerUnreachable(f"{url} speaks of another issuer")
            return _near_or_tls(said.get("jwks_uri"))
        raise IssuerUnreachable("it publishes no metadata: set jwks_url")


def fits(key: Key, algorithm: str) -> bool:
    """Whether ``key`` is of the kind that ``algorithm`` takes."""
    kind, curve = KINDS[algorithm]
    if key.key_type != kind:
        return False
    return curve is None or key.as_dict(private=False).get("crv") == curve


def _is_for(bound: str | None, algorithm: str) -> bool:
    # Two names of one algorithm (RFC 9864).
    return bound in (None, algorithm) or (KINDS[bound] == KINDS[algorithm] and KINDS[bound][0] == "OKP")


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where an issuer's metadata may be: OpenID Connect Discovery section 4, RFC 8414 section 3."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    inserted = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration", inserted


def keys_of(document: Mapping[str, Any]) -> list[tuple[str | None, str | None, Key]]:
    """The usable keys of a key set, as (key id, the one algorithm it is for, key); others are left out.

    Raises:
        IssuerUnreachable: it is no key set.
    """
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise IssuerUnreachable(f"its key set is no list of at most {_MAX_KEYS} keys")
    return [found for one in listed if isinstance(one, dict) and (found := _usable(one)) is not None]


def _usable(one: Mapping[str, Any]) -> tuple[str | None, str | None, Key] | None:
    operations, kid, bound = one.get("key_ops", ["verify"]), one.get("kid"), one.get("alg")
    # A set that shows a private key shows that its keys are nobody's.
    is_for_this = one.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not is_for_this or not _PRIVATE.isdisjoint(one) or _is_weak(one):
        return None
    if not (kid is None or isinstance(kid, str)) or not (bound is None or (isinstance(bound, str) and bound in KINDS)):
        return None
    members: dict[str, str | list[str]] = {name: value for name, value in one.items() if isinstance(value, str)}
    try:
        key = import_key(members)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return (kid, bound, key) if isinstance(key, RSAKey | ECKey | OKPKey) else None


def _is_weak(one: Mapping[str, Any]) -> bool:
    # Before it is made a key of: four base64 characters are 24 bits.
    modulus = one.get("n")
    if one.get("kty") != "RSA":
        return False
    return not isinstance(modulus, str) or not _LEAST_RSA <= len(modulus.lstrip("A")) * 6 <= _MOST_RSA + 6


def _near_or_tls(url: object) -> str:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    is_near = parts is not None and parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not isinstance(url, str) or parts is None or not (is_near or parts.scheme == "https"):
        raise IssuerUnreachable("its key set has no https address")
    return url


async def _object(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """The JSON object at ``url``; None where there is nothing."""
    headers = {"accept": "application/json"}
    async with session.get(url, headers=headers, allow_redirects=False, timeout=_TIMEOUT) as answer:
        if answer.status == _NOT_FOUND:
            return None
        if answer.status != _OK:
            raise IssuerUnreachable(f"{url} answers {answer.status}")
        content = bytearray()
        async for block in answer.content.iter_chunked(1 << 14):
            content += block
            if len(content) > _MAX_BYTES:
                raise IssuerUnreachable(f"{url} answers more than {_MAX_BYTES} bytes")
    try:
        value = canonical.parse(bytes(content)).value
    except GatewayError:
        value = None
    if not isinstance(value, dict):
        raise IssuerUnreachable(f"{url} answers no JSON object")
    return value
