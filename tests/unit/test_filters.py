"""The query language: what it reads, and that whatever it does not read gets a clear error with its place."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.filters import MAX_QUERY, MAX_TERMS, Field, Filter, FilterError, Term, holds, moment, parse, term

NOW = 1_790_000_000_000_000
DAY = 86_400_000_000


def micros(text: str) -> int:
    """Microseconds of an ISO 8601 time."""
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


def test_every_field_is_read() -> None:
    """Each term becomes a condition in the order it is written; the two times become bounds."""
    read = parse(
        "tool:pay.* effect:deny -agent:clerk type:decision run:r-1 call:c-1 since:24h until:2026-11-01 "
        "reason:scope.granted",
        NOW,
    )
    assert read.terms == (
        Term(Field.TOOL, "pay.*"),
        Term(Field.EFFECT, "deny"),
        Term(Field.AGENT, "clerk", negated=True),
        Term(Field.TYPE, "decision"),
        Term(Field.RUN, "r-1"),
        Term(Field.CALL, "c-1"),
        Term(Field.REASON, "scope.granted"),
    )
    assert read.since_us == NOW - DAY
    assert read.until_us == micros("2026-11-02T00:00:00+00:00") - 1


def test_nothing_asks_for_nothing() -> None:
    """Without terms there are no conditions."""
    assert parse("", NOW) == parse(" \t\n", NOW) == Filter()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('agent:"big clerk"', "big clerk"),
        (r'agent:"a \"b\" \\ c"', r'a "b" \ c'),
        ("agent:a:b", "a:b"),
        ("agent:-x", "-x"),
        ("agent:it's;--", "it's;--"),
        ('agent:"*"', "*"),
    ],
)
def test_values_are_taken_as_they_are(text: str, value: str) -> None:
    """Quotes hold spaces, a backslash in them makes the next character literal, and all else stands for itself."""
    assert parse(text, NOW).terms == (Term(Field.AGENT, value),)


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("refund", 0, "no term"),
        ("tool:x refund", 7, "no term"),
        ("-", 1, "no term"),
        ("--tool:x", 1, "no term"),
        (":x", 0, "no term"),
        ("efect:deny", 0, "did you mean effect?"),
        ("Tool:x", 0, "did you mean tool?"),
        ("zzz:x", 0, "there are agent, call"),
        ('text:"refund"', 0, "sealed"),
        ("effect:denied", 7, "did you mean deny?"),
        ("type:xx*", 5, "there are key"),
        ("tool:", 5, "the term has no value"),
        ('tool:""', 5, "tool: has no value"),
        ("tool: x", 5, "the term has no value"),
        ("tool:a effect:deny tool:b", 19, "tool: is there twice"),
        ("since:1h since:2h", 9, "since: is there twice"),
        ("run:a*b", 5, "run: takes no *"),
        ("call:*", 5, "call: takes no *"),
        ("effect:d*", 8, "effect: takes no *"),
        ("tool:*a*b*c*d*", 5, "too many *"),
        ("since:yesterday", 6, "a time is 90s"),
        ("until:2026-13-01", 6, "a time is 90s"),
        ("since:", 6, "the term has no value"),
        ('since:""', 6, "a time is 90s"),
        ("-since:1h", 0, "write until:"),
        ('tool:"x', 5, "not closed"),
        (r'tool:"x\"', 5, "not closed"),
        ('tool:"x"y', 8, "space between"),
        ('tool:x"y"', 6, "whole value in quotes"),
        ('tool:"a\nb"', 5, "printable"),
        ("agent:" + "x" * 257, 6, "at most 256"),
        ("x" * (MAX_QUERY + 1), MAX_QUERY, "too long"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, at: int, words: str) -> None:
    """The error names the character, what is wrong there, and what would be right."""
    with pytest.raises(FilterError) as caught:
        parse(text, NOW)
    assert caught.value.at == at
    assert words in str(caught.value)
    assert str(caught.value) == f"at character {at + 1}: {caught.value.problem}; {caught.value.remedy}"


def test_the_number_of_terms_is_bounded() -> None:
    """So that no query is slow by its length alone; what is left out may be named more than once."""
    assert len(parse(" ".join(["-run:x"] * MAX_TERMS), NOW).terms) == MAX_TERMS
    with pytest.raises(FilterError, match="too many terms"):
        parse(" ".join(["-run:x"] * (MAX_TERMS + 1)), NOW)


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("90s", NOW - 90_000_000),
        ("15m", NOW - 900_000_000),
        ("7d", NOW - 7 * DAY),
        ("999999d", 0),
        ("2026-11-01", micros("2026-11-01T00:00:00+00:00")),
        ("2026-11-01T10:00:00", micros("2026-11-01T10:00:00+00:00")),
        ("2026-11-01T10:00:00Z", micros("2026-11-01T10:00:00+00:00")),
        ("2026-11-01T10:00:00+02:00", micros("2026-11-01T08:00:00+00:00")),
        ("1969-01-01", 0),
        ("0001-01-01T00:00:00+23:00", 0),
        ("1h30m", None),
        ("\u0661h", None),
        ("", None),
    ],
)
def test_times_are_utc_or_ago(text: str, at_us: int | None) -> None:
    """Without an offset a time is UTC, wherever the reader sits; nothing is before the epoch."""
    assert moment(text, NOW) == at_us


def test_a_date_as_the_end_is_the_whole_day() -> None:
    """``since:2026-11-01 until:2026-11-01`` is that day; also the last day there is has an end."""
    day = parse("since:2026-11-01 until:2026-11-01", NOW)
    assert day.since_us is not None
    assert day.until_us == day.since_us + DAY - 1
    assert moment("9999-12-31", NOW, last=True) == micros("9999-12-31T00:00:00+00:00") + DAY - 1


@pytest.mark.parametrize(
    ("pattern", "said", "answer"),
    [
        ("pay.*", "pay.refund", True),
        ("pay.*", "xpay.refund", False),
        ("*.refund", "pay.refund", True),
        ("p?y.*", "pay.refund", False),
        ("[p]ay.*", "pay.refund", False),
        ("[p]ay.*", "[p]ay.x", True),
        ("pay.refund", "pay.refund", True),
        ("pay.Refund", "pay.refund", False),
    ],
)
def test_the_star_is_the_only_wildcard(pattern: str, said: str, answer: bool) -> None:
    """Question marks and brackets stand for themselves, and case counts."""
    assert holds(Term(Field.TOOL, pattern), said) is answer


def test_a_star_is_a_character_where_no_pattern_is_taken() -> None:
    """An id is compared as it is."""
    assert not holds(Term(Field.RUN, "*"), "r-1")
    with pytest.raises(FilterError, match="takes no"):
        term(Field.RUN, "*")


_PIECES = st.sampled_from(
    [
        *(f"{name}:" for name in Field),
        "-",
        '"',
        "\\",
        " ",
        "*",
        "24h",
        "2026-11-01",
        "deny",
        "tool.*",
        "[",
        "?",
        "'",
        ";",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3))).map("".join)))
def test_any_text_is_read_or_refused_clearly(text: str) -> None:
    """Whatever is typed either is a query or gets an error whose place lies in it; nothing else is ever raised."""
    error = refusal(text)
    assert error is None or (0 <= error.at <= len(text) and error.problem and error.remedy)


def refusal(text: str) -> FilterError | None:
    """What is wrong with a query, or None."""
    try:
        parse(text, NOW)
    except FilterError as error:
        return error
    return None


_VALUES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="*"), min_size=1, max_size=256)


@given(_VALUES, st.booleans())
def test_a_quoted_value_comes_back_as_it_was(value: str, negated: bool) -> None:
    """Quoting loses nothing."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse(f'{"-" if negated else ""}agent:"{quoted}"', NOW).terms == (Term(Field.AGENT, value, negated),)
