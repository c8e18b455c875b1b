"""Which JSON keys name a secret.

A name is cut into words (``clientSecret``, ``X-Api-Key``, ``db_password``) and judged by its end, so ``token_count``
and ``access_key_id`` are no secrets but ``github_token`` is. Tokens that mark a place in a list or a text
(``nextPageToken``) are none either: without them every paged answer would be destroyed. Plurals that count
(``tokens``) are left alone; digits at the end (``password2``) change nothing.
"""

import re

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_MAX_NAME = 128

_ENDS = frozenset(
    {
        "password", "passwords", "passwd", "pwd", "passphrase", "passcode", "secret", "secrets", "token",
        "jwt", "apikey", "apikeys", "authorization", "credential", "credentials", "cookie", "setcookie",
    }
)  # fmt: skip
_KEYS = frozenset(
    {
        "api", "private", "secret", "access", "signing", "encryption", "shared", "account", "master",
        "session",
    }
)  # fmt: skip
_END_PAIRS = frozenset(
    {("secret", "id"), ("pass", "word"), ("pass", "phrase"), ("api", "keys"), ("private", "keys"), ("auth", "header")}
)
# Written without any mark between the words.
_RUN_TOGETHER = (
    "password", "passwd", "passphrase", "clientsecret", "secretkey", "accesskey", "privatekey", "apikey", "apitoken",
    "accesstoken", "refreshtoken", "authtoken", "idtoken", "bearertoken", "sessiontoken", "securitytoken", "appsecret",
)  # fmt: skip
_PLACE_MARKS = frozenset(
    {
        "page", "nextpage", "next", "previous", "prev", "continuation", "continue", "pagination", "paging",
        "cursor", "sync", "resume", "start", "end", "first", "last", "progress", "bos", "eos", "pad", "unk",
        "sep", "cls", "mask", "stop", "special", "per", "max", "min", "total",
    }
)  # fmt: skip


def is_secret_name(name: str) -> bool:
    """Whether a value under this key is taken to be a secret."""
    words = [word.lower() for word in _WORDS.findall(name[-_MAX_NAME:])]
    while words and words[-1].isdigit():
        words.pop()
    if not words:
        return False
    last = words[-1]
    before = words[-2] if len(words) > 1 else ""
    if (before, last) in _END_PAIRS or (last == "key" and before in _KEYS):
        return True
    if last == "token":
        return before not in _PLACE_MARKS
    return last in _ENDS or last.endswith(_RUN_TOGETHER)
