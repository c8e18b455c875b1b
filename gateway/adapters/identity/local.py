"""Issuing and verifying local access tokens (JWT per RFC 9068, Ed25519 per RFC 8037 and RFC 9864)."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.errors import ExceededSizeError, JoseError
from joserfc.jwk import OKPKey

from gateway.adapters.identity.claims import (
    AUTH_METHOD,
    MAX_GROUPS,
    SCOPES,
    Cause,
    Grant,
    Trust,
    claims_of,
    is_name,
    principal_of,
    refused,
)
from gateway.adapters.identity.compact import MAX_TOKEN, Pinned, document, segments
from gateway.core import canonical
from gateway.core.call import Call, Live, Principal
from gateway.core.errors import InvalidArguments, Unavailable
from gateway.core.ports import Clock

_MAX_CACHED = 10_000
_MAX_TTL_S = 366 * 86_400
_SIGNATURE_SIZE = 64
_HEADER = frozenset({"alg", "typ", "kid"})
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_NAMES = ("Ed25519", "EdDSA")  # the second is the older name of the first (RFC 9864)


class LocalIssuer:
    """Signs tokens with one Ed25519 key. Issuing is sync and touches no file."""

    def __init__(self, clock: Clock, trust: Trust, key: Ed25519PrivateKey) -> None:
        """``trust`` is what the verifiers of these tokens expect."""
        self._clock = clock
        self._trust = trust
        self._registry = Pinned(_NAMES)
        self.use(key)

    def use(self, key: Ed25519PrivateKey) -> None:
        """Sign with this key from now on."""
        self._key = OKPKey.import_key(key)
        self._header = {"alg": _NAMES[0], "typ": "at+jwt", "kid": self._key.thumbprint()}

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
        payload = canonical.encode(claims_of(principal, self._trust, now_s))
        try:
            token = jws.serialize_compact(dict(self._header), payload, self._key, registry=self._registry)
        except ExceededSizeError:
            token = ""
        if not 0 < len(token) <= MAX_TOKEN:
            raise InvalidArguments("the token would be too long to be taken: fewer groups", cause_code="size")
        return token

    def _check(self, principal: Principal) -> None:
        is_run = principal.run is not None and principal.agent is not None
        if principal.issuer != self._trust.issuer and not (is_run and principal.issuer in self._trust.vouched):
            raise InvalidArguments("this issuer cannot speak for another", cause_code="issuer")
        if not all(is_name(name) for name in (principal.user, principal.jti, *principal.groups)):
            raise InvalidArguments("user and groups are 1 to 128 of A-Z a-z 0-9 . _ @ : + / -", cause_code="name")
        if not all(name is None or is_name(name) for name in (principal.agent, principal.run)):
            raise InvalidArguments("agent and run are 1 to 128 of A-Z a-z 0-9 . _ @ : + / -", cause_code="name")
        if len(principal.groups) > MAX_GROUPS:
            raise InvalidArguments(f"a token holds at most {MAX_GROUPS} groups", cause_code="groups")
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
        self._keys: dict[str, tuple[OKPKey, int | None]] = {}
        self._registry = Pinned(_NAMES)
        self._good: dict[bytes, Principal] = {}
        for key in keys:
            self.trust(key, None)

    def trust(self, key: Ed25519PublicKey, until_s: int | None) -> None:
        """Take tokens of this key, until that second if one is given; what was remembered is verified anew."""
        imported = OKPKey.import_key(key)
        self._keys[imported.thumbprint()] = (imported, until_s)
        self._good.clear()

    def distrust(self, key: Ed25519PublicKey) -> None:
        """Take no token of this key any more."""
        self._keys.pop(OKPKey.import_key(key).thumbprint(), None)
        self._good.clear()

    async def authenticate(self, call: Call) -> Principal:
        """Verify the call's credential.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``.
        """
        if not isinstance(call.origin, Live):
            raise refused(Cause.MISSING, "a bearer token is required")
        return self.holder(call.origin)

    def verify(self, token: str) -> Principal:
        """Who the bearer of ``token`` is; sync, no I/O.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``.
        """
        return self.holder(Live(token))

    def holder(self, live: Live) -> Principal:
        """The same for a caller on the line.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``.
        """
        known = self.known(live)
        if known is not None:
            return known
        digest, now_us = live.digest, self._clock.now_us()
        self._good.pop(digest, None)
        principal, is_lasting = self._verified(live.token, now_us)
        if not is_lasting:  # its key may end before it does
            return principal
        if len(self._good) >= _MAX_CACHED:
            self._make_room(now_us)
        self._good[digest] = principal
        return principal

    def known(self, live: Live) -> Principal | None:
        """The same where its token was verified before and is still good; None = that is to be found out."""
        known = self._good.get(live.digest)
        return known if known is not None and self._clock.now_us() < known.expires_us else None

    def vouches(self, principal: Principal) -> bool:
        """See ``core.ports.Identity``."""
        return principal.issuer == self._trust.issuer

    def holds(self, digest: bytes) -> bool:
        """Whether the token of that SHA-256 is remembered; whether it is still good, ``holder`` says."""
        return digest in self._good

    async def ping(self) -> None:
        """Return when tokens can be verified.

        Raises:
            Unavailable: there is no key to verify with.
        """
        if not self._keys:
            raise Unavailable("no key to verify tokens with", cause_code="identity_unavailable")

    def _verified(self, token: str, now_us: int) -> tuple[Principal, bool]:
        if not token:
            raise refused(Cause.MISSING, "a bearer token is required")
        if len(token) > MAX_TOKEN or not token.isascii():
            raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
        claims, is_lasting = self._open(token)
        return principal_of(claims, self._trust, now_us), is_lasting

    def _open(self, token: str) -> tuple[dict[str, Any], bool]:
        # 1. Form: three base64url parts, the last as long as an Ed25519 signature.
        # 2. Header: exactly alg, typ and kid (so no crit, jku, jwk, x5c, b64, zip), read by the strict parser.
        # 3. Key by thumbprint; the signature over the bytes that were sent.
        # 4. Only now the claims, again by the strict parser: two claims of one name are nobody's word.
        header, _, signature = segments(token)
        if len(signature) != _SIGNATURE_SIZE:
            raise refused(Cause.MALFORMED, "the credential is not a token of this gateway")
        key, is_lasting = self._key_for(document(header))
        try:
            opened = jws.deserialize_compact(token, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            raise refused(Cause.SIGNATURE, "the token's signature is not good") from None
        return document(opened.payload), is_lasting

    def _key_for(self, header: Mapping[str, Any]) -> tuple[OKPKey, bool]:
        if header.keys() != _HEADER or not all(isinstance(value, str) for value in header.values()):
            raise refused(Cause.MALFORMED, "the token's header is not alg, typ and kid")
        if header["typ"].lower() not in _TYPES:
            raise refused(Cause.TYPE, "the credential is not an access token")
        key, until_s = self._keys.get(header["kid"], (None, None))
        if header["alg"] not in _NAMES or key is None:
            raise refused(Cause.SIGNATURE, "the token is not signed with a key of this gateway")
        if until_s is not None and self._clock.now_us() >= until_s * 1_000_000:
            raise refused(Cause.SIGNATURE, "the key that signed the token was replaced, and its time is over")
        return key, until_s is None

    def _make_room(self, now_us: int) -> None:
        self._good = {digest: good for digest, good in self._good.items() if now_us < good.expires_us}
        for digest in list(islice(self._good, max(0, len(self._good) - _MAX_CACHED // 2))):
            del self._good[digest]
