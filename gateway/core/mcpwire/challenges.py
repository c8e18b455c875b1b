"""What a server says in ``WWW-Authenticate`` to a client that it wants a bearer token of (RFC 9110, RFC 6750)."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

INSUFFICIENT_SCOPE: Final = "insufficient_scope"
_BEARER: Final = re.compile(r"(?:^|,)\s*bearer\s+", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"""[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))""")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,256}", re.ASCII)
_MOST_SCOPES: Final = 64


def bearer(challenges: Sequence[str]) -> Mapping[str, str]:
    """The parameters of the first challenge that wants a bearer token, by their names in lower case."""
    for value in challenges:
        start = _BEARER.search(value)
        if start is None:
            continue
        found, at = dict[str, str](), start.end()
        while (one := _PARAMETER.match(value, at)) is not None:
            quoted, plain = one[2], one[3]
            found.setdefault(one[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            at = one.end()
        return found
    return {}


def scopes(names: Sequence[str]) -> tuple[str, ...] | None:
    """Names of scopes (RFC 6749, 3.3), each once; None where one could be none, or they are too many to be read."""
    found = tuple(dict.fromkeys(names))
    return found if len(found) <= _MOST_SCOPES and all(_SCOPE.fullmatch(one) for one in found) else None


def further(challenges: Sequence[str]) -> tuple[str, ...]:
    """The scopes that a refused token lacks, by a refusal for that reason; none where it is another, or names none."""
    said = bearer(challenges)
    return (scopes(said.get("scope", "").split()) or ()) if said.get("error") == INSUFFICIENT_SCOPE else ()
