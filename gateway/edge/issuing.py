"""What a token, key or run may be that somebody asks for: no more than who asks has, but for the machine's operator."""

from gateway.core.api_keys import AUTH_METHOD
from gateway.core.call import Principal
from gateway.core.errors import Forbidden
from gateway.edge.auth import Visit

TOKEN, KEY, RUN = "token", "key", "run"
_USUAL_S = {TOKEN: 3600, KEY: 90 * 86_400, RUN: 3600}
_MICRO = 1_000_000


def life_s(visit: Visit, asked_s: int | None, now_us: int, what: str = TOKEN) -> int:
    """How long ``what`` lives, seconds; where nothing was asked the usual time, or what is left of the caller's own."""
    if asked_s is not None or visit.operator:
        return _USUAL_S[what] if asked_s is None else asked_s
    return max(1, min(_USUAL_S[what], (visit.principal.expires_us - now_us) // _MICRO))


def check(visit: Visit, wish: Principal, what: str = TOKEN) -> None:
    """Whether the caller may have ``what`` for ``wish``.

    A token or key that outlives the caller's own, or speaks for another person, would be a way to keep or to get what
    nobody gave: whoever finds an administrator's token must not be everybody for a year.

    Raises:
        Forbidden: it would be more than the caller has; ``cause_code`` says in what.
    """
    own = visit.principal
    if own.auth_method == AUTH_METHOD:
        # Or whoever finds a key could go on after it was revoked.
        raise Forbidden(f"a key makes no {what}s: come with a token", cause_code="api_key")
    if visit.operator:
        return
    if (wish.issuer, wish.user) != (own.issuer, own.user):
        raise Forbidden(f"a {what} for another user: only the gateway's operator makes it", cause_code="user")
    _check_within(what, "groups", wish.groups - own.groups)
    _check_within(what, "scopes", wish.scopes - own.scopes)
    check_end(visit, wish.expires_us, what)


def check_end(visit: Visit, expires_us: int, what: str) -> None:
    """Whether ``what`` may last until then; the operator has no credential that ends.

    Raises:
        Forbidden: it would outlive the caller's own; ``cause_code`` is ``ttl``.
    """
    until = until_us(visit)
    if until is not None and expires_us > until:
        words = f"ttl_s: a {what} may not outlive what it is asked for with: leave it out, or come with a longer token"
        raise Forbidden(words, cause_code="ttl")


def until_us(visit: Visit) -> int | None:
    """When the caller's own credential ends, and with it what is made of it; None for the operator, who has none."""
    return None if visit.operator else visit.principal.expires_us


def _check_within(what: str, name: str, more: frozenset[str]) -> None:
    if more:
        words = f"{name}: a {what} may not do more than who asks: {', '.join(sorted(more))}"
        raise Forbidden(words, cause_code=name.removesuffix("s"))
