"""What an access token of a foreign issuer says, and what that makes of its bearer.

Such issuers put many claims into their tokens, so unknown ones are passed over; what would narrow a token in a way that
is not checked here (``cnf``: it is bound to a key) is refused. Names are kept apart by issuer: the same ``sub`` of two
issuers is two people.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.adapters.identity.claims import MAX_GROUPS, MAX_SKEW_S, SCOPES, Cause, is_name, refused
from gateway.core.call import Principal

AUTH_METHOD: Final = "oidc"
_MAX_AUDIENCES: Final = 16
_MAX_ACTORS: Final = 8
_LAST_SECOND: Final = 253_402_300_799
# What names may hold is written as it is; all else, and "+" itself, as "+" and two hex digits for each byte.
_OTHER: Final = re.compile(r"[^A-Za-z0-9._@:/-]")
_ACTOR: Final = frozenset({"sub", "iss", "act", "client_id"})


@dataclass(frozen=True, slots=True)
class ForeignTrust:
    """What is believed of one foreign issuer.

    Attributes:
        issuer: the one ``iss``.
        audiences: any of these as ``aud``.
        algorithms: the signatures it may use.
        types: the ``typ`` values of its access tokens, lower case.
        prefix: stands before each of its names (users, agents, groups).
        reserved: what its names may not begin with, as those of other issuers do.
        scopes: what its tokens may give here at most; a scope of a token by its name there.
        groups_claim: where a user's groups stand.
        persons: clients that are a person's own software: their tokens speak for nobody but the user.
        max_ttl_s: longest life of a token, seconds.
        skew_s: how far in the future ``nbf`` and ``iat`` may lie, seconds.
    """

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str] = frozenset({"RS256"})
    types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"})
    prefix: str = ""
    reserved: tuple[str, ...] = ()
    scopes: Mapping[str, str] = field(default_factory=lambda: {"tools": "tools"})
    groups_claim: str = "groups"
    persons: frozenset[str] = frozenset()
    max_ttl_s: int = 86_400
    skew_s: int = MAX_SKEW_S

    def __post_init__(self) -> None:
        """Refuse a configuration that would accept everything or nothing."""
        if not (self.issuer and self.audiences and self.algorithms and self.types):
            raise ValueError("issuer, audiences, algorithms and types must be set")
        if not SCOPES.issuperset(self.scopes.values()) or not 0 <= self.skew_s <= MAX_SKEW_S:
            raise ValueError(f"scopes are any of {sorted(SCOPES)}, and skew_s lies in 0..{MAX_SKEW_S}")


def principal_of(claims: Mapping[str, Any], trust: ForeignTrust, now_us: int, mark: str) -> Principal:
    """Who the (signature-checked) claims speak of; ``mark`` names a token without a usable ``jti``.

    Raises:
        Unauthenticated: with a ``Cause``; issuer and audience are looked at before time, time before the rest.
    """
    _check_origin(claims, trust)
    expires_s = _check_times(claims, trust, now_us)
    if "cnf" in claims:
        raise refused(Cause.CLAIMS, "the token is bound to a key, and that is not checked here")
    client = _client(claims)
    chain = _chain(claims.get("act"), trust)
    agent = chain[0] if chain else (None if client in trust.persons else client)
    return Principal(
        issuer=trust.issuer,
        user=name_of(claims.get("sub"), trust),
        agent=None if agent is None else name_of(agent, trust),
        groups=_groups(claims.get(trust.groups_claim, []), trust),
        scopes=_scopes(claims, trust),
        auth_method=AUTH_METHOD,
        jti=_credential(claims.get("jti", mark), mark),
        expires_us=expires_s * 1_000_000,
        delegation=tuple(name_of(one, trust) for one in chain),
    )


def name_of(value: object, trust: ForeignTrust) -> str:
    """A name as it stands everywhere here: no two names of an issuer become one.

    Raises:
        Unauthenticated: it is none, or too long.
    """
    if not isinstance(value, str) or not value:
        raise refused(Cause.CLAIMS, "a name in the token is missing or no text")
    try:
        written = trust.prefix + _OTHER.sub(lambda found: "".join(f"+{byte:02X}" for byte in found[0].encode()), value)
    except UnicodeEncodeError:
        written = ""
    if written.startswith(trust.reserved):
        raise refused(Cause.CLAIMS, "a name in the token is one of another issuer's")
    if not is_name(written):
        raise refused(Cause.CLAIMS, "a name in the token is too long or begins with a sign")
    return written


def _credential(jti: object, mark: str) -> str:
    # An id without meaning, which may begin with any sign: where it is no name here, the token's own mark is as good.
    if not isinstance(jti, str):
        raise refused(Cause.CLAIMS, "the token's jti is no text")
    return jti if is_name(jti) else mark


def _check_origin(claims: Mapping[str, Any], trust: ForeignTrust) -> None:
    if claims.get("iss") != trust.issuer:
        raise refused(Cause.ISSUER, "the token is from another issuer")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or len(named) > _MAX_AUDIENCES or not all(isinstance(one, str) for one in named):
        raise refused(Cause.AUDIENCE, "the token's audience is not usable")
    if trust.audiences.isdisjoint(named):
        raise refused(Cause.AUDIENCE, "the token is for another audience")


def _check_times(claims: Mapping[str, Any], trust: ForeignTrust, now_us: int) -> int:
    issued_s, expires_s = _second(claims.get("iat")), _second(claims.get("exp"))
    starts_s = max(issued_s, _second(claims.get("nbf", issued_s)))
    if expires_s * 1_000_000 <= now_us:
        raise refused(Cause.EXPIRED, "the token has expired")
    if starts_s * 1_000_000 > now_us + trust.skew_s * 1_000_000:
        raise refused(Cause.CLAIMS, "the token is not valid yet")
    if not 0 < expires_s - issued_s <= trust.max_ttl_s:
        raise refused(Cause.CLAIMS, f"the token lives longer than {trust.max_ttl_s} seconds, or ends before it begins")
    return expires_s


def _second(value: object) -> int:
    # RFC 7519 section 2: a NumericDate may have a fraction.
    if isinstance(value, float) and math.isfinite(value):
        value = math.floor(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND:
        return value
    raise refused(Cause.CLAIMS, "a time in the token is missing or not usable")


def _client(claims: Mapping[str, Any]) -> str:
    # RFC 9068 has client_id; issuers older than that have azp. Without one, nobody knows who uses the token.
    client = claims.get("client_id", claims.get("azp"))
    if not isinstance(client, str) or not client:
        raise refused(Cause.CLAIMS, "the token names no client")
    return client


def _chain(act: object, trust: ForeignTrust) -> list[str]:
    """Who acts, the present actor first (RFC 8693 section 4.1)."""
    chain: list[str] = []
    while act is not None:
        # Members nobody here understands may narrow what the actor may do.
        if not isinstance(act, dict) or not act.keys() <= _ACTOR or act.get("iss", trust.issuer) != trust.issuer:
            raise refused(Cause.CLAIMS, "the token's chain of actors is not usable")
        chain.append(str(act["sub"]) if isinstance(act.get("sub"), str) else "")
        if len(chain) > _MAX_ACTORS:
            raise refused(Cause.CLAIMS, f"the token has more than {_MAX_ACTORS} actors")
        act = act.get("act")
    return chain


def _groups(value: object, trust: ForeignTrust) -> frozenset[str]:
    if isinstance(value, list) and len(value) <= MAX_GROUPS:
        return frozenset(name_of(one, trust) for one in value)
    raise refused(Cause.CLAIMS, "the token's groups are not usable")


def _scopes(claims: Mapping[str, Any], trust: ForeignTrust) -> frozenset[str]:
    given = claims.get("scope", claims.get("scp", ""))
    named: Sequence[object] = given.split(" ") if isinstance(given, str) else given if isinstance(given, list) else (0,)
    if not all(isinstance(one, str) for one in named):
        raise refused(Cause.CLAIMS, "the token's scope is not usable")
    return frozenset(trust.scopes[one] for one in named if isinstance(one, str) and one in trust.scopes)
