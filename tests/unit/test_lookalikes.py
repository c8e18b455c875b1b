"""Text before an approver's eyes: what hides or imitates is shown by its code, what is only foreign stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.lookalikes import guarded, plain


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Alpine Paper GmbH", "Alpine Paper GmbH"),
        ("München, Łódź, Ångström", "München, Łódź, Ångström"),
        ("привет мир", "привет мир"),
        ("日本語 한국어 עברית", "日本語 한국어 עברית"),
        ("Alpin\u0435", "Alpin\\u0435"),  # one Cyrillic letter among Latin ones
        ("\u0440\u0430\u0443\u0440\u0430\u04cf", "\\u0440\\u0430\\u0443\\u0440\\u0430\\u04cf"),  # a mask altogether
        ("\u0391\u03b2\u03b3", "\u0391\u03b2\u03b3"),  # Greek with letters of its own
        ("a\u202eb\u2066c\u200bd\u00ade", "a\\u202eb\\u2066c\\u200bd\\xade"),
        ("a\u00a0b\u3000c\u3164d\u2800e", "a\\xa0b\\u3000c\\u3164d\\u2800e"),
        ("\uff21\U0001d400\ufb01", "\\uff21\\U0001d400\\ufb01"),
        ("o\u0335k\ufe0f\u034f", "o\\u0335k\\ufe0f\\u034f"),
        ("\x1b[2J\r\n\t\x7f\x85", "\\x1b[2J\\r\\n\\t\\x7f\\x85"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
    ],
)
def test_what_misleads_is_escaped(text: str, seen: str) -> None:
    """Mixed scripts, whole masks, invisible and reordering characters, odd blanks, forms, marks, controls."""
    assert guarded(text) == seen


@given(st.text())
def test_nothing_that_moves_a_terminal_gets_through(text: str) -> None:
    """Whatever comes in, what comes out is printable; names come out in ASCII."""
    assert guarded(text).isprintable()
    assert plain(text).isascii()
    assert plain(text).isprintable()
