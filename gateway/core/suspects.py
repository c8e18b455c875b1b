"""Whether a JSON text may have members that are named for secrets: a look that is cheap and errs to one side only."""

from enum import Enum
from typing import Any

import re2

from gateway.core.needles import VEILS
from gateway.core.secret_names import is_secret_name

_MAX_SUSPECTS = 256


def _suspects() -> Any:
    # A superset of the names layer 2 knows, at the end of a JSON string (inside a text the quote is escaped); and
    # whatever the squeezed scan cannot see through.
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    names = (
        rb"passw(?:or)?ds?|pwd|pass[-_ .]?(?:phrase|code|word)|secrets?(?:[-_ .]?id)?|token|jwt|keys?"
        rb"|authorization|auth[-_ .]?header|credentials?|cookie"
    )
    return re2.compile(rb"(?i:" + names + rb')[^a-zA-Z"\\]{0,16}\\*"|' + VEILS, options)


_SUSPECTS = _suspects()
# Every match of it holds one of these, in small letters, or a byte beyond ASCII. A scan by RE2 gives the interpreter
# lock away, and for a short body that costs more than looking for each.
_MARKS = ("pass", "pwd", "secret", "token", "jwt", "key", "auth", "credential", "cookie", "\\u", "\\x")
_SHORT_BYTES = 4096


class Suspicion(Enum):
    """What a look at a JSON text says of members whose names speak of secrets.

    ``NONE``: there are none. ``NAMED``: there are. ``OBSCURED``: a look cannot tell, or sees too many.
    """

    NONE = 0
    NAMED = 1
    OBSCURED = 2


def suspicion_of(body: bytes) -> Suspicion:
    """What a look at ``body``, a JSON text, says."""
    if len(body) <= _SHORT_BYTES and body.isascii():
        small = body.decode("ascii").lower()  # a text is searched in half of the time that bytes are
        for mark in _MARKS:
            if mark in small:
                break
        else:
            return Suspicion.NONE
    named = False
    for count, match in enumerate(_SUSPECTS.finditer(body)):
        if count >= _MAX_SUSPECTS or not match.group().endswith(b'"'):
            return Suspicion.OBSCURED
        start = body.rfind(b'"', 0, match.start()) + 1
        name = body[start : match.end()].rstrip(b'"\\')
        named = named or is_secret_name(name.decode("latin-1"))
    return Suspicion.NAMED if named else Suspicion.NONE
