"""Text of others before an approver's eyes: what is not what it seems is shown by its code.

``screen.shown`` keeps a terminal from being moved. Here the threat is a reader who is misled: a payee with a Cyrillic
letter, a zero-width joiner in an account, blanks that are none, a letter with a dozen accents over its neighbours.
"""

import re
import unicodedata
from functools import lru_cache

# Letters of other scripts that common fonts draw like an ASCII letter.
_TWINS = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b\u051d\u0475\u04cf"  # Cyrillic
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0405\u0406\u0408\u0417\u04c0\u051a\u051c"
    "\u03b1\u03b3\u03b9\u03ba\u03bd\u03bf\u03c1\u03c5\u03c7\u03c9\u03f2\u03f3"  # Greek
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03f9\u037f"
    "\u0585\u0578\u057d\u0570\u0566\u0581\u0555\u054f\u0548"  # Armenian
    "\u0251\u0261\u0131\u0269\u01c0\u01c3\u0237"  # Latin letters beyond the alphabet
)
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u034f\U0001d159")  # drawn as nothing
_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_WORD = re.compile(r"\w+")


def guarded(text: str) -> str:
    """``text`` on one line, with every control, invisible, bidirectional and confusable character as its escape.

    A letter is confusable where it looks like an ASCII one and stands in a word with letters of ASCII, or in a word
    that consists of such letters altogether; the words of other languages stay readable.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, _WORD.sub(_unmasked, text)))


def plain(text: str) -> str:
    """``text`` in printable ASCII only: for names, which have no business in another script."""
    return "".join(char if char.isascii() and char.isprintable() else _escape(char) for char in text)


def _unmasked(match: re.Match[str]) -> str:
    word = match[0]
    letters = [char for char in word if char.isalpha()]
    foreign = [char for char in letters if not char.isascii()]
    if not foreign:
        return word
    is_mixed = any(char.isascii() for char in letters) and any(_script(char) != "LATIN" for char in foreign)
    is_mask = all(char in _TWINS or char.isascii() for char in letters)
    if not (is_mixed or is_mask):
        return word
    return "".join(_escape(char) if char in _TWINS or (is_mixed and _is_stranger(char)) else char for char in word)


def _is_stranger(char: str) -> bool:
    return not char.isascii() and char.isalpha() and _script(char) != "LATIN"


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    return unicodedata.name(char, "?").partition(" ")[0]


@lru_cache(maxsize=4096)
def _visible(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else _escape(char)
    kind = unicodedata.category(char)
    # A compatibility form (full width, mathematical, ligature) reads like another character; a combining mark may
    # strike through or cover its neighbour.
    is_form = unicodedata.normalize("NFKC", char) != unicodedata.normalize("NFC", char)
    if kind in _HIDDEN or kind[0] == "M" or kind == "Zs" or char in _BLANK or is_form:
        return _escape(char)
    return char


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
