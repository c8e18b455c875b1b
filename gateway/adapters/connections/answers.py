"""What an authorization server answers: tokens, or why there are none."""

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.core import canonical
from gateway.core.connections import Granted, GrantRefused
from gateway.core.errors import GatewayError, Unavailable

_TOKEN: Final = re.compile(r"[\x21-\x7e]{8,8192}", re.ASCII)
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]{8,8192}=*", re.ASCII)  # RFC 6750
_CODE: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)
# The second is of a service that has its own words for it.
_OVER: Final = frozenset({"invalid_grant", "bad_refresh_token"})
# What is no verdict on what was shown: the client is set up wrongly, or the server has troubles.
_NO_VERDICT: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_MOST_SCOPES: Final = 64
_LONGEST_S: Final = 366 * 86_400


def object_of(content: bytes) -> Mapping[str, Any] | None:
    """The JSON object, or None where it is none."""
    try:
        value = canonical.parse(content).value
    except GatewayError:
        return None
    return value if isinstance(value, dict) else None


def refusal(said: Mapping[str, Any] | None) -> GrantRefused | None:
    """The server's no (RFC 6749 section 5.2); None where it says none that is understood."""
    code = None if said is None else said.get("error")
    if not isinstance(code, str) or not _CODE.fullmatch(code) or code in _NO_VERDICT:
        return None
    return GrantRefused(code, is_over=code in _OVER)


def granted(said: Mapping[str, Any]) -> Granted:
    """Tokens (RFC 6749 section 5.1).

    Raises:
        Unavailable: there are none that could be used.
    """
    access, refresh, kind = said.get("access_token"), said.get("refresh_token"), said.get("token_type", "")
    if not isinstance(access, str) or not _BEARER.fullmatch(access) or str(kind).lower() != "bearer":
        raise _unusable()
    if refresh is not None and (not isinstance(refresh, str) or not _TOKEN.fullmatch(refresh)):
        raise _unusable()
    return Granted(access, refresh, _seconds(said.get("expires_in")), _scopes(said.get("scope")))


def _seconds(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:  # noqa: PLR2004
        value = int(value)
    if value is None or isinstance(value, bool) or not isinstance(value, int):
        return None
    return min(value, _LONGEST_S) if value > 0 else None


def _scopes(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, str):
        return None
    found = tuple(dict.fromkeys(value.replace(",", " ").split()))
    if len(found) > _MOST_SCOPES or not all(_SCOPE.fullmatch(one) for one in found):
        raise _unusable()
    return found


def _unusable() -> Unavailable:
    return Unavailable("the service gives something that is no bearer token", cause_code="provider_odd")
