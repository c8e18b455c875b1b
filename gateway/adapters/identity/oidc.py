"""Access tokens of foreign issuers (RFC 9068), and the one door to all issuers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError

from gateway.adapters.identity.api_keys import ApiKeyIdentity
from gateway.adapters.identity.claims import Cause, refused
from gateway.adapters.identity.compact import Pinned, document, segments
from gateway.adapters.identity.foreign import ForeignTrust, principal_of
from gateway.adapters.identity.jwks import IssuerKeys, Key
from gateway.adapters.identity.local import LocalIdentity
from gateway.core.api_keys import AUTH_METHOD
from gateway.core.call import Call, Live, Principal
from gateway.core.errors import Unauthenticated, Unavailable
from gateway.core.ports import Clock

_MAX_CACHED: Final = 10_000
# The thumbprints of certificates say nothing that the key id does not; all else in a header changes what it means.
_HEADER: Final = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})


@dataclass(frozen=True, slots=True)
class _Good:
    principal: Principal
    generation: int


class ForeignIdentity:
    """Verifies the tokens of one foreign issuer. Closed: what is not proven good raises ``Unauthenticated``.

    A verified token is remembered by its SHA-256 until it expires or the issuer's keys change.
    """

    def __init__(self, clock: Clock, trust: ForeignTrust, keys: IssuerKeys) -> None:
        """``keys`` are the issuer's own."""
        self.trust = trust
        self.keys = keys
        self._clock = clock
        self._registry = Pinned(trust.algorithms)
        self._good: dict[bytes, _Good] = {}

    async def holder(self, live: Live) -> Principal:
        """Whose token this is.

        Raises:
            Unauthenticated: anything wrong with it; ``cause_code`` is a ``Cause``, or ``idp_unavailable`` where the
                issuer could not be asked for its keys for too long.
        """
        digest, now_us = live.digest, self._clock.now_us()
        known = self._good.get(digest)
        if known is not None and now_us < known.principal.expires_us and self._is_current(known):
            self.keys.keep_fresh()
            return known.principal
        self._good.pop(digest, None)
        claims, generation = await self._open(live.token)
        now_us = self._clock.now_us()  # the issuer may have taken its time
        principal = principal_of(claims, self.trust, now_us, digest.hex())
        if len(self._good) >= _MAX_CACHED:
            self._make_room(now_us)
        self._good[digest] = _Good(principal, generation)
        return principal

    def holds(self, digest: bytes) -> bool:
        """Whether the token of that SHA-256 is remembered; whether it is still good, ``holder`` says."""
        return digest in self._good

    def _is_current(self, known: _Good) -> bool:
        return known.generation == self.keys.generation and self.keys.is_known

    async def _open(self, token: str) -> tuple[dict[str, Any], int]:
        # 1. Header: a closed set of members, type and algorithm pinned; 2. the issuer's key; 3. the signature over the
        # bytes that were sent; 4. only now the claims, by the strict parser.
        header, _, _ = segments(token)
        said = document(header)
        key = await self._key(said)
        try:
            opened = jws.deserialize_compact(token, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            raise refused(Cause.SIGNATURE, "the token's signature is not good") from None
        return document(opened.payload), self.keys.generation

    async def _key(self, header: Mapping[str, Any]) -> Key:
        if not {"alg", "typ"} <= header.keys() <= _HEADER or not all(isinstance(one, str) for one in header.values()):
            raise refused(Cause.MALFORMED, "the token's header is not alg, typ and kid")
        if header["typ"].lower() not in self.trust.types:
            raise refused(Cause.TYPE, "the credential is not an access token")
        if header["alg"] not in self.trust.algorithms:
            raise refused(Cause.SIGNATURE, "the token is signed in a way its issuer is not trusted for")
        try:
            key = await self.keys.find(header.get("kid"), header["alg"])
        except Unavailable as error:
            raise Unauthenticated(error.detail, cause_code="idp_unavailable", retry_after=error.retry_after) from None
        if key is None:
            raise refused(Cause.SIGNATURE, "the token is not signed with a key of its issuer")
        return key

    def _make_room(self, now_us: int) -> None:
        self._good = {
            digest: good
            for digest, good in self._good.items()
            if now_us < good.principal.expires_us and self._is_current(good)
        }
        for digest in list(islice(self._good, max(0, len(self._good) - _MAX_CACHED // 2))):
            del self._good[digest]


class Identities:
    """The Identity port over all issuers: a token's own ``iss`` says whose keys it is held to.

    That word is not believed before its signature was checked with that very issuer's keys.
    """

    def __init__(
        self, local: LocalIdentity, foreign: Sequence[ForeignIdentity], api_keys: ApiKeyIdentity | None = None
    ) -> None:
        """Issuers have names of their own; ``local`` takes whatever no foreign issuer is named in."""
        self._local = local
        self._api_keys = api_keys
        self._foreign = {one.trust.issuer: one for one in foreign}

    async def authenticate(self, call: Call) -> Principal:
        """Verify the call's credential; see ``core.ports.Identity``."""
        if not isinstance(call.origin, Live):
            return await self._local.authenticate(call)
        live = call.origin
        known = self._local.known(live)  # each call is authenticated twice, at the edge and in the pipeline
        if known is not None:
            return known
        if self._api_keys is not None and self._api_keys.takes(live.token):
            return self._api_keys.holder(live)
        foreign = self._named(live) if self._foreign else None
        return self._local.holder(live) if foreign is None else await foreign.holder(live)

    def vouches(self, principal: Principal) -> bool:
        """See ``core.ports.Identity``."""
        if principal.auth_method == AUTH_METHOD:
            return self._api_keys is not None and self._api_keys.is_good(principal.jti)
        return principal.issuer in self._foreign or self._local.vouches(principal)

    async def ping(self) -> None:
        """Return when tokens of the local issuer can be verified; foreign issuers are asked after one by one."""
        await self._local.ping()

    def _named(self, live: Live) -> ForeignIdentity | None:
        # What is remembered is not read again.
        if self._local.holds(live.digest) or not live.token.isascii():
            return None
        holder = next((one for one in self._foreign.values() if one.holds(live.digest)), None)
        return self._issuer_of(live.token) if holder is None else holder

    def _issuer_of(self, token: str) -> ForeignIdentity | None:
        try:
            _, payload, _ = segments(token)
            issuer = document(payload).get("iss")
        except Unauthenticated:
            return None  # the local issuer's verifier says what is wrong with it
        return self._foreign.get(issuer) if isinstance(issuer, str) else None
