"""What a token may be that somebody asks for: never more than who asks has, but for the machine's operator."""

from gateway.core.api_keys import AUTH_METHOD
from gateway.core.call import Principal
from gateway.core.errors import Forbidden
from gateway.edge.auth import Visit

_USUAL_S = 3600
_MICRO = 1_000_000


def life_s(visit: Visit, asked_s: int | None, now_us: int) -> int:
    """How long the token lives, seconds; where nothing was asked an hour, or what is left of the caller's own."""
    if asked_s is not None or visit.operator:
        return _USUAL_S if asked_s is None else asked_s
    return max(1, min(_USUAL_S, (visit.principal.expires_us - now_us) // _MICRO))


def check(visit: Visit, wish: Principal) -> None:
    """Whether the caller may have a token of ``wish``.

    A token that outlives the caller's own, or speaks for another person, would be a way to keep or to get what nobody
    gave: whoever finds an administrator's token must not be everybody for a year.

    Raises:
        Forbidden: it would be more than the caller has; ``cause_code`` says in what.
    """
    own = visit.principal
    if own.auth_method == AUTH_METHOD:
        # Or whoever finds a key could go on after it was revoked.
        raise Forbidden("a key issues no tokens: come with a token", cause_code="api_key")
    if visit.operator:
        return
    if (wish.issuer, wish.user) != (own.issuer, own.user):
        raise Forbidden("a token for another user: only the gateway's operator issues it", cause_code="user")
    _check_within("groups", wish.groups - own.groups, "group")
    _check_within("scopes", wish.scopes - own.scopes, "scope")
    if wish.expires_us > own.expires_us:
        raise Forbidden("ttl_s: a token may not outlive the one it is asked for with", cause_code="ttl")


def _check_within(name: str, more: frozenset[str], cause: str) -> None:
    if more:
        raise Forbidden(f"{name}: a token may not do more than who asks: {', '.join(sorted(more))}", cause_code=cause)
