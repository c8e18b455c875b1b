"""Issuing and verifying local access tokens (JWT per RFC 9068, Ed25519 per RFC 8037 and RFC 9864)."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OKPKey

from gateway.adapters.identity.claims import (
    AUTH_METHOD,
    SCOPES,
    Cause,
    Grant,
    Trust,
    claims_of,
    is_name,
    principal_of,
    refused,
)
from gateway.core import canonical
from gateway.core.call import Call, Live, Principal
from gateway.core.errors import GatewayError, InvalidArguments, Unavailable
from gateway.core.ports import Clock

_MAX_TOKEN = 8192
_MAX_CACHED = 10_000
_MAX_TTL_S = 366 * 86_400
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})", re.ASCII)
_HEADER = frozenset({"alg", "typ", "kid"})
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_NAMES = ("Ed25519", "EdDSA")  # the second is the older name of the first (RFC 9864)


class _Pinned(jws.JWSRegistry):
    """One algorithm under its two names, whatever else the library knows."""

    max_payload_length = _MAX_TOKEN

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in _NAMES:
            raise UnsupportedAlgorithmError("not an algorithm of this issuer")
        return self.algorithms["Ed25519"]


class LocalIssuer:
    """Signs tokens with one Ed25519 key. Issuing is sync and touches no file."""

    def __init__(self, clock: Clock, trust: Trust, key: Ed25519PrivateKey) -> None:
        """``trust`` is what the verifiers of these tokens expect."""
        self._clock = clock
        self._trust = trust
        self._key = OKPKey.import_key(key)
        self._header = {"alg": _NAMES[0], "typ": "at+jwt", "kid": self._key.thumbprint()}
        self._registry = _Pinned()

    def principal(self, grant: Grant) -> Principal:
        """The principal a token of ``grant`` speaks of, with a new ``jti``.

        Raises:
            InvalidArguments: a name, scope or life time that no token may have.
        """
        expires_us = (self._clock.now_us() // 1_000_000 + grant.ttl_s) * 1_000_000
        principal = Principal(
            issuer=self._trust.issuer,
            user=grant.user,
            agent=grant.agent,
            groups=grant.groups,
            scopes=grant.scopes,
            auth_method=AUTH_METHOD,
            jti=self._clock.uuid(),
            expires_us=expires_us,
            run=grant.run,
        )
        self._check(principal)
        return principal

    def issue(self, principal: Principal) -> str:
        """A signed token that authenticates as ``principal`` until ``expires_us`` (whole seconds, rounded down).

        Raises:
            InvalidArguments: not a principal of this issuer, or one that verification would refuse.
        """
        self._check(principal)
        now_s = self._clock.now_us() // 1_000_000
        payload = canonical.encode(claims_of(principal, self._trust.audiences, now_s))
        return jws.serialize_compact(dict(self._header), payload, self._key, registry=self._registry)

    def _check(self, principal: Principal) -> None:
        if principal.issuer != self._trust.issuer:
            raise InvalidArguments("this issuer cannot speak for another", cause_code="issuer")
        if not all(is_name(name) for name in (principal.user, principal.jti, *principal.groups)):
            raise InvalidArguments("user and groups are 1 to 128 of A-Z a-z 0-9 . _ @ : + / -", cause_code="name")
        if not all(name is None or is_name(name) for name in (principal.agent, principal.run)):
            raise InvalidArguments("agent and run are 1 to 128 of A-Z a-z 0-9 . _ @ : + / -", cause_code="name")
        if not principal.scopes <= SCOPES:
            raise InvalidArguments(f"scopes are any of {', '.join(sorted(SCOPES))}", cause_code="scope")
        life_us = principal.expires_us - self._clock.now_us()
        if not 0 < life_us <= _MAX_TTL_S * 1_000_000:
            raise InvalidArguments("a token lives longer than 0 seconds and at most 366 days", cause_code="ttl")


class LocalIdentity:
    """The Identity port over local tokens. Closed: what is not proven good raises ``Unauthenticated``.

    A verified token is remembered by its SHA-256 until it expires, so that a session pays for one signature check. Only
    good tokens get in, so a flood of bad ones cannot push them out.
    """

    def __init__(self, clock: Clock, trust: Trust, keys: Sequence[Ed25519PublicKey]) -> None:
        """``keys`` are all keys whose tokens are still good (several while a key is being replaced)."""
        self._clock = clock
        self._trust = trust
        imported = [OKPKey.import_key(key) for key in keys]
        self._keys: Mapping[str, OKPKey] = {key.thumbprint(): key for key in imported}
        self._registry = _Pinned()
        self._good: dict[bytes, Principal] = {}

    async def authenticate(self, call: Call) -> Principal:
        """Verify the call's credential.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``.
        """
        if not isinstance(call.origin, Live):
            raise refused(Cause.MISSING, "a bearer token is required")
        return self.verify(call.origin.token)

    def verify(self, token: str) -> Principal:
        """Who the bearer of ``token`` is; sync, no I/O.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``.
        """
        if not token:
            raise refused(Cause.MISSING, "a bearer token is required")
        if len(token) > _MAX_TOKEN or not token.isascii():
            raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
        digest, now_us = hashlib.sha256(token.encode("ascii")).digest(), self._clock.now_us()
        known = self._good.get(digest)
        if known is not None and now_us < known.expires_us:
            return known
        self._good.pop(digest, None)
        principal = principal_of(self._open(token), self._trust, now_us)
        if len(self._good) >= _MAX_CACHED:
            self._make_room(now_us)
        self._good[digest] = principal
        return principal

    async def ping(self) -> None:
        """Return when tokens can be verified.

        Raises:
            Unavailable: there is no key to verify with.
        """
        if not self._keys:
            raise Unavailable("no key to verify tokens with", cause_code="identity_unavailable")

    def _open(self, token: str) -> dict[str, Any]:
        # 1. Form: three base64url parts, the last as long as an Ed25519 signature.
        # 2. Header: exactly alg, typ and kid (so no crit, jku, jwk, x5c, b64, zip), read by the strict parser.
        # 3. Key by thumbprint; the signature over the bytes that were sent.
        # 4. Only now the claims, again by the strict parser: two claims of one name are nobody's word.
        form = _COMPACT.fullmatch(token)
        if form is None:
            raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
        for segment in form.groups():
            _bytes(segment)
        key = self._key_for(_object(_bytes(form[1])))
        try:
            opened = jws.deserialize_compact(token, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            raise refused(Cause.SIGNATURE, "the token's signature is not good") from None
        return _object(opened.payload)

    def _key_for(self, header: Mapping[str, Any]) -> OKPKey:
        if header.keys() != _HEADER or not all(isinstance(value, str) for value in header.values()):
            raise refused(Cause.MALFORMED, "the token's header is not alg, typ and kid")
        if header["typ"].lower() not in _TYPES:
            raise refused(Cause.TYPE, "the credential is not an access token")
        key = self._keys.get(header["kid"])
        if header["alg"] not in _NAMES or key is None:
            raise refused(Cause.SIGNATURE, "the token is not signed with a key of this gateway")
        return key

    def _make_room(self, now_us: int) -> None:
        self._good = {digest: good for digest, good in self._good.items() if now_us < good.expires_us}
        for digest in list(islice(self._good, max(0, len(self._good) - _MAX_CACHED // 2))):
            del self._good[digest]


def _bytes(segment: str) -> bytes:
    # Python's decoder forgives padding bits; two spellings of one token are refused instead.
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        decoded = b""
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != segment:
        raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
    return decoded


def _object(document: bytes) -> dict[str, Any]:
    try:
        value = canonical.parse(document).value
    except GatewayError:
        value = None
    if not isinstance(value, dict):
        raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
    return value
