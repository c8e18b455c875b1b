"""Texts in small languages that stand in Rego: regular expressions and formats, as far as engines read them alike.

OPA reads regular expressions as RE2 does, the embedded engine as Rust's ``regex`` does, and each prints numbers its own
way. What is let through here means the same to both: that is the whole purpose, so it is a subset of either.
"""

import re
from collections.abc import Sequence
from typing import Final

_MOST_REPEATS: Final = 1000
_CLASSES: Final = {"d": "[0-9]", "w": "[0-9A-Za-z_]", "s": "[ \\t\\r\\n]", "b": "^ or $, or name the characters around"}
_ESCAPED: Final = r"\\[!-,./:;=?@\[-^`{-~_aftnrvz-]|\\p\{[A-Z][a-z]?\}|\\p[A-Z]"
_TOKEN: Final = re.compile(
    rf"""(?P<escape>{_ESCAPED})
    |(?P<class>\[\^?\]?(?:\[:\^?[a-z]+:\]|{_ESCAPED}|[^\]\[\\])*\])
    |(?P<open>\((?:\?[ims]*(?:-[ims]+)?[:)]|\?P?<[A-Za-z_][A-Za-z0-9_]*>)?)
    |(?P<repeat>[*+?]\??|\{{(?P<least>[0-9]{{1,4}})(?:,(?P<most>[0-9]{{0,4}}))?\}}\??)
    |(?P<plain>[^\\\[\](){{}}*+?^$|.])
    |(?P<mark>[)^$|.])""",
    re.VERBOSE | re.DOTALL,
)
_SET_OPERATORS: Final = ("&&", "--", "~~")
_VERB: Final = re.compile(r"%(.?)", re.DOTALL)
_VERBS: Final = {"s": ("text",), "d": ("integer",), "v": ("text", "integer", "other")}
# After these there is nothing to repeat.
_EMPTY: Final = ("(", "|", "^", "$")


def regex_problem(pattern: str) -> str | None:
    """What in ``pattern`` engines read differently, and what to write instead; None where there is nothing."""
    at, is_repeatable = 0, False
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        problem = _stumbled(pattern, at) if found is None else _misread(found, is_repeatable=is_repeatable)
        if problem is not None or found is None:
            return problem
        at, is_repeatable = found.end(), found["repeat"] is None and not found[0].startswith(_EMPTY)
    return None


def _misread(found: re.Match[str], *, is_repeatable: bool) -> str | None:
    if found["class"] is not None and any(sign in found["class"] for sign in _SET_OPERATORS):
        return f"{found['class']}: && -- ~~ are operators to one engine; write the characters once each"
    if found["repeat"] is not None and not is_repeatable:
        return f"{found[0]} has nothing, or another repetition, to repeat"
    counts = [int(text) for text in (found["least"], found["most"]) if text]
    return f"{found[0]}: at most {_MOST_REPEATS}" if any(count > _MOST_REPEATS for count in counts) else None


def _stumbled(pattern: str, at: int) -> str:
    escape = re.match(r"\\(.?)" if pattern[at] == "\\" else r"\[[^\]]*?\\([dDwWsSbB])", pattern[at:], re.DOTALL)
    if escape is None:
        return f"{pattern[at : at + 8]!r} is read in different ways; escape it with a backslash"
    instead = _CLASSES.get(escape[1].lower())
    return f"\\{escape[1]} is another set of characters to each engine" + (f"; write {instead}" if instead else "")


def keeps_to(pattern: str, allowed: str) -> bool:
    """Whether any text that ``pattern`` matches is all of the characters in the class ``allowed``, e.g. ``[ -~]``."""
    if regex_problem(pattern) is not None or not pattern.startswith("^"):
        return False
    if not pattern.endswith("$") or pattern.endswith("\\$"):
        return False
    pieces = [found for found in _TOKEN.finditer(pattern[1:-1]) if found["repeat"] is None]
    return all(_keeps_to(found, allowed) for found in pieces)


def _keeps_to(found: re.Match[str], allowed: str) -> bool:
    if found["class"] is not None:
        inside = found["class"][1:-1]
        is_plain = not inside.startswith("^") and re.search(r"\\[A-Za-z]", inside) is None
        return is_plain and re.fullmatch(f"{allowed}*", _spelled(inside)) is not None
    if found["open"] is not None or found[0] == ")":
        return found[0] in {"(", ")", "(?:"}
    # A dot is anything, a bar leaves one of the ends open.
    return found["plain"] is not None and re.fullmatch(allowed, found["plain"]) is not None


def _spelled(text: str) -> str:
    # Both ends of a range and all between them; what is escaped or named in a class stays, and does not keep to digits.
    return re.sub(r"(.)-(.)", lambda range_: "".join(map(chr, range(ord(range_[1]), ord(range_[2]) + 1))), text)


def format_problem(text: str, kinds: Sequence[str]) -> str | None:
    """What in a format of ``sprintf`` engines print differently.

    ``kinds`` says of each argument what it is for certain: ``text``, ``integer``, ``other``, or empty where that shows
    only when it is evaluated.
    """
    verbs = [verb for verb in _VERB.findall(text) if verb != "%"]
    odd = [verb for verb in verbs if verb not in _VERBS]
    if odd:
        return f"%{odd[0]}: engines agree on %s (text), %d (integers), %v (anything) and %% only"
    if len(kinds) != len(verbs):
        return f"{len(verbs)} verbs for {len(kinds)} arguments"
    unfit = [verb for verb, kind in zip(verbs, kinds, strict=True) if kind and kind not in _VERBS[verb]]
    return f"%{unfit[0]} of a value that is none: write %v" if unfit else None
