"""What a local access token may say, and what that makes of its bearer.

The set of claims is closed. A claim nobody here understands may be one that narrows the token (``cnf`` binds it to a
key, ``act`` to an actor), and ignoring it would widen it again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.core.call import Principal
from gateway.core.errors import Unauthenticated

SCOPES = frozenset({"tools", "runs", "review", "audit", "admin"})
AUTH_METHOD = "local"
MAX_SKEW_S = 30
MAX_GROUPS = 256
_MAX_AUDIENCES = 16
_LAST_SECOND = 253_402_300_799  # 9999-12-31, so that microseconds stay below 2^63
# "|" joins the parts of Principal.key, so it must not occur in one; non-ASCII look-alikes are kept out with it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+/-]{0,127}", re.ASCII)
# Whose person a run token speaks for, where a person of a foreign issuer opened the run.
_HOME = "subject_issuer"
_REQUIRED = frozenset({"iss", "sub", "aud", "exp", "iat", "jti", "scope"})
_OPTIONAL = frozenset({"nbf", "agent", "groups", "run", _HOME})


class Cause(StrEnum):
    """Why a credential was refused: ``Unauthenticated.cause_code``, and the label of the counter."""

    MISSING = "missing"
    MALFORMED = "malformed"
    TYPE = "type"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN = "unknown_key"
    CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verifier accepts.

    Attributes:
        issuer: the one ``iss``.
        audiences: any of these as ``aud``.
        skew_s: how far in the future ``nbf`` and ``iat`` may lie, 0..30 seconds. An end is an end: no skew on ``exp``.
        vouched: issuers whose persons' run tokens are issued here.
    """

    issuer: str
    audiences: frozenset[str]
    skew_s: int = MAX_SKEW_S
    vouched: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a configuration that would accept everything or nothing."""
        if not self.issuer or not self.audiences or not 0 <= self.skew_s <= MAX_SKEW_S:
            raise ValueError(f"issuer and audiences must be set and skew_s lie in 0..{MAX_SKEW_S}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new token is to say.

    Attributes:
        user: person or system of record.
        agent: agent that acts for them; None for the person's own token.
        scopes: subset of ``SCOPES``.
        groups: groups of the user.
        ttl_s: life time, seconds.
        run: id of the run the token is bound to, if any.
    """

    user: str
    agent: str | None = None
    scopes: frozenset[str] = frozenset({"tools"})
    groups: frozenset[str] = frozenset()
    ttl_s: int = 3600
    run: str | None = None


def refused(cause: Cause, detail: str) -> Unauthenticated:
    """The one error of this package."""
    return Unauthenticated(detail, cause_code=cause.value)


def is_name(value: object) -> bool:
    """Whether ``value`` can name a user, agent, group, run or token."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def claims_of(principal: Principal, trust: Trust, issued_s: int) -> dict[str, Any]:
    """The claims that say ``principal``; the reverse of ``principal_of``."""
    claims: dict[str, Any] = {
        "iss": trust.issuer,
        "sub": principal.user,
        "aud": sorted(trust.audiences),
        "iat": issued_s,
        "nbf": issued_s,
        "exp": principal.expires_us // 1_000_000,
        "jti": principal.jti,
        "scope": " ".join(sorted(principal.scopes)),
    }
    if principal.agent is not None:
        claims["agent"] = principal.agent
    if principal.groups:
        claims["groups"] = sorted(principal.groups)
    if principal.run is not None:
        claims["run"] = principal.run
    if principal.issuer != trust.issuer:
        claims[_HOME] = principal.issuer
    return claims


def principal_of(claims: Mapping[str, Any], trust: Trust, now_us: int) -> Principal:
    """Who the (signature-checked) claims speak of.

    Raises:
        Unauthenticated: with a ``Cause``; issuer and audience are looked at before time, time before the rest.
    """
    _check_keys(claims)
    _check_origin(claims, trust)
    expires_s = _check_times(claims, trust, now_us)
    if not all(is_name(claims[key]) for key in ("sub", "jti", "agent", "run") if key in claims):
        raise refused(Cause.CLAIMS, "the token's sub, jti, agent or run is not usable")
    return Principal(
        issuer=_home(claims, trust),
        user=claims["sub"],
        agent=claims.get("agent"),
        groups=_groups(claims.get("groups", [])),
        scopes=_scopes(claims["scope"]),
        auth_method=AUTH_METHOD,
        jti=claims["jti"],
        expires_us=expires_s * 1_000_000,
        run=claims.get("run"),
    )


def _home(claims: Mapping[str, Any], trust: Trust) -> str:
    home = claims.get(_HOME, trust.issuer)
    # Whose person this is was checked when the run was opened; an issuer that is trusted no more takes its runs along.
    if home == trust.issuer:
        return trust.issuer
    if not isinstance(home, str) or home not in trust.vouched or not {"run", "agent"} <= claims.keys():
        raise refused(Cause.ISSUER, "the token speaks for a person of an issuer that is not trusted")
    return home


def _check_keys(claims: Mapping[str, Any]) -> None:
    if not claims.keys() >= _REQUIRED:
        raise refused(Cause.CLAIMS, "the token lacks a required claim")
    if not claims.keys() <= _REQUIRED | _OPTIONAL:
        raise refused(Cause.CLAIMS, "the token has a claim this gateway does not know")


def _check_origin(claims: Mapping[str, Any], trust: Trust) -> None:
    if claims["iss"] != trust.issuer:
        raise refused(Cause.ISSUER, "the token is from another issuer")
    audience = claims["aud"]
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or len(named) > _MAX_AUDIENCES or not all(isinstance(one, str) for one in named):
        raise refused(Cause.AUDIENCE, "the token's audience is not usable")
    if trust.audiences.isdisjoint(named):
        raise refused(Cause.AUDIENCE, "the token is for another audience")


def _check_times(claims: Mapping[str, Any], trust: Trust, now_us: int) -> int:
    issued_s, expires_s = _second(claims["iat"]), _second(claims["exp"])
    starts_s = _second(claims.get("nbf", issued_s))
    if expires_s * 1_000_000 <= now_us:
        raise refused(Cause.EXPIRED, "the token has expired")
    if max(starts_s, issued_s) * 1_000_000 > now_us + trust.skew_s * 1_000_000:
        raise refused(Cause.CLAIMS, "the token is not valid yet")
    if expires_s <= max(starts_s, issued_s):
        raise refused(Cause.CLAIMS, "the token ends before it begins")
    return expires_s


def _second(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND:
        return value
    raise refused(Cause.CLAIMS, "a time in the token is not usable")


def _groups(value: object) -> frozenset[str]:
    if isinstance(value, list) and len(value) <= MAX_GROUPS and all(is_name(name) for name in value):
        return frozenset(value)
    raise refused(Cause.CLAIMS, "the token's groups are not usable")


def _scopes(value: object) -> frozenset[str]:
    # Scopes this gateway does not know give nothing, so they are dropped (RFC 6749 section 3.3 lets issuers have more).
    if not isinstance(value, str):
        raise refused(Cause.CLAIMS, "the token's scope is not usable")
    return SCOPES.intersection(value.split(" "))
