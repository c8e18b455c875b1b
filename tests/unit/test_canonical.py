"""Strict JSON in, canonical JSON out."""

import json
import re
from contextlib import suppress
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.core.errors import InvalidArguments, MalformedRequest, TooLarge

_SAFE = 2**53
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
KEYS = st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-_SAFE, _SAFE) | TEXT
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def arguments(text: bytes | str) -> canonical.Arguments:
    """The arguments object in a body."""
    return canonical.arguments(canonical.parse(text if isinstance(text, bytes) else text.encode()))


@pytest.mark.requirement("CLEAN-1")
@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"a":1,"a":2}', "duplicate_key"),
        (b'{"a":1,"A":2}', "duplicate_key"),
        (b'{"x":{"key":1,"Key":2}}', "duplicate_key"),
        ('{"straße":1,"STRASSE":2}'.encode(), "duplicate_key"),
        (b'{"a":NaN}', "number"),
        (b'{"a":-Infinity}', "number"),
        (b'{"a":1e999}', "number"),
        (b'{"a":"\\u0000"}', "nul"),
        (b'{"\\u0000":1}', "nul"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\uDC00x"}', "surrogate"),
        (b'{"a":"\xed\xa0\x80"}', "json"),
        (b"\xff\xfe{}", "json"),
        (b'{"a":1}{"b":2}', "json"),
        (b"", "json"),
        (b"[1,]", "json"),
        (b"9" * 5000, "json"),
    ],
)
def test_what_parsers_disagree_about_is_refused(body: bytes, cause: str) -> None:
    """Whatever two parsers may read differently is an error with a name, not a value."""
    with pytest.raises(MalformedRequest) as refused:
        canonical.parse(body)
    assert refused.value.cause_code == cause


@pytest.mark.parametrize("body", [b"[" * 30_000, b"[" * 70 + b"]" * 70, b'{"a":' * 70 + b"1" + b"}" * 70])
def test_depth_is_bounded(body: bytes) -> None:
    """A depth bomb is too large, whether or not it is well formed."""
    with pytest.raises(TooLarge):
        canonical.parse(body)


def test_breadth_is_no_depth() -> None:
    """Many small containers side by side are fine."""
    assert len(canonical.parse(b"[" + b"[]," * 5000 + b"[]]").value) == 5001


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"true"])
def test_arguments_are_an_object(body: bytes) -> None:
    """Anything else is invalid; null counts as none."""
    with pytest.raises(InvalidArguments):
        arguments(body)
    assert arguments(b"null").canonical == b"{}"


def test_numbers_keep_their_lexeme() -> None:
    """What is digested and sent is the number as it was written; what is decided on is its value."""
    given_text = '{"b":1.10,"a":[1E5,-0,0.10,12345678901234567890123,0.30000000000000004],"s":"1.10 -0"}'
    found = arguments(given_text)
    assert found.canonical == b'{"a":[1E5,-0,0.10,12345678901234567890123,0.30000000000000004],"b":1.10,"s":"1.10 -0"}'
    assert found.value == json.loads(given_text)
    assert found.big_integers


@pytest.mark.parametrize(("number", "is_big"), [(_SAFE, False), (_SAFE + 1, True), (-_SAFE, False), (-_SAFE - 1, True)])
def test_integers_beyond_doubles_are_noticed(number: int, *, is_big: bool) -> None:
    """And policy reads them as strings, exactly."""
    found = arguments(json.dumps({"n": [{"deep": number}]}))
    assert found.big_integers is is_big
    seen = canonical.encode(canonical.policy_view(found.canonical))
    assert json.loads(seen) == {"n": [{"deep": str(number) if is_big else number}]}


@pytest.mark.parametrize(
    "lexeme",
    [
        "9007199254740993.0",
        "3.141592653589793238",
        "1e-400",
        "1e-99999999999999999999",
        "0." + "1" * 100,
        "0e" + "9" * 20,
    ],
)
def test_a_number_no_double_keeps_is_refused(lexeme: str) -> None:
    """Policy would compare another number than the one that is sent."""
    with pytest.raises(MalformedRequest) as refused:
        arguments(f'{{"n":{lexeme}}}')
    assert refused.value.cause_code == "number"


@pytest.mark.parametrize("lexeme", ["9007199254740994.0", "1e16", "-1E300", "9007199254740993"])
def test_a_big_number_is_big_however_it_is_written(lexeme: str) -> None:
    """And policy reads its lexeme as a string; the numbers beside it keep theirs."""
    found = arguments(f'{{"n":{lexeme},"m":[5e15,-0,1.10,9007199254740992.0]}}')
    assert found.big_integers
    expected = f'{{"m":[5e15,-0,1.10,9007199254740992.0],"n":"{lexeme}"}}'
    assert canonical.encode(canonical.policy_view(found.canonical)) == expected.encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_may_be_sent_in_its_shortest_form(number: float) -> None:
    """What a serialiser writes for a double is accepted as that double."""
    assert arguments(json.dumps({"n": number})).value == {"n": number}


LEXEMES = st.from_regex(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,12})?(?:[eE][+-]?[0-9]{1,2})?", fullmatch=True)
AROUND = (("", ""), ("[", "]"), ("[1, ", " ]"), ('{"v":"1.0.0","n":', "}"), ('["2026-07-28",\n', ',"-0"]'))


@given(LEXEMES, st.sampled_from(AROUND))
def test_no_number_loses_its_lexeme_wherever_it_stands(lexeme: str, around: tuple[str, str]) -> None:
    """Versions and dates in texts beside it neither hide one nor make one."""
    before, after = around
    with suppress(MalformedRequest):  # of those that no double keeps
        sent = canonical.encode(canonical.parse(f"{before}{lexeme}{after}".encode()).exact).decode()
        assert lexeme in re.split(r"[\[\]{}:,]", sent)


def test_the_number_of_values_is_bounded() -> None:
    """Many values are too large before any of them is read; brackets and commas in a text are no values."""
    many = canonical.MAX_PARTS + 1
    for body in (b"[" + b"1," * many + b"1]", b"[" * many, b'["' + b"{" * many + b'"' + b",1" * many + b"]"):
        with pytest.raises(TooLarge) as refused:
            canonical.parse(body)
        assert refused.value.cause_code == "parts"
    text = "{[,\\" * many
    assert canonical.parse(json.dumps([text]).encode()).value == [text]


@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_canonical_form_does_not_depend_on_spelling(document: dict[str, Any]) -> None:
    """White space, key order and escapes change neither bytes nor digest; parsing the canonical form gives it back."""
    plain = arguments(json.dumps(document))
    spelt = arguments(json.dumps(dict(reversed(document.items())), indent=2, ensure_ascii=False))
    assert plain == spelt
    assert arguments(plain.canonical) == plain
    assert plain.value == document


@given(st.dictionaries(st.text("abcXYZ_09", min_size=1, max_size=6), TREES, max_size=5))
def test_own_documents_are_rfc8785(document: dict[str, Any]) -> None:
    """For ASCII keys and no floats, our encoding is the standard's."""
    if not _standard(document):
        return
    assert canonical.encode(document) == rfc8785.dumps(document)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_leak_another_error(body: bytes) -> None:
    """Any bytes are either a value or one of our errors."""
    try:
        found: canonical.Json | None = canonical.parse(body)
    except (MalformedRequest, TooLarge):
        found = None
    assert found is None or found.value == json.loads(body)


def _standard(tree: Any) -> bool:
    # ASCII keys, and integers that are one less than ours at most, as the standard's are.
    if isinstance(tree, dict):
        return all(key.isascii() and _standard(value) for key, value in tree.items())
    return all(map(_standard, tree)) if isinstance(tree, list) else not isinstance(tree, int) or abs(tree) < _SAFE


ESCAPES = (r"\n", r"\u0041", r"\u0001", r"\"", r"\\")
LETTERS = "aAbKksßéÉ\N{KELVIN SIGN}\N{LATIN SMALL LETTER LONG S}\N{LATIN SMALL LIGATURE FI}"
ODD = (*LETTERS, "ss", "SS", "fi", *ESCAPES)
WORDS = st.sampled_from([f'"{word}"' for word in (*ODD, "\\u0000", "\\ud800", "\\u001F", "\\/", "{,}", "\x01", "")])
BIG = ("1e16", "1e400", "9007199254740993", "9007199254740994.0", "18446744073709551615", "18446744073709551616")
NUMBERS = st.sampled_from(
    ("0", "-0", "1", "01", "1.5", "1.50", "1E3", "-0.0", "123456789012345", "0." + "1" * 19, *BIG)
)
NAMES = st.sampled_from([f'"{word}"' for word in ODD])
DOCUMENTS = st.recursive(
    WORDS | NUMBERS | st.sampled_from(["true", "null", "nul", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(NAMES, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
        )
    ),
)


def outcome(body: bytes) -> tuple[Any, ...]:
    """What comes of a body: value, canonical form and arguments, or the refusal."""
    try:
        document = canonical.parse(body)
    except (MalformedRequest, TooLarge) as error:
        return type(error), error.cause_code
    whole = canonical.arguments(document) if isinstance(document.value, dict) else None
    return repr(document.value), canonical.encode(document.exact), whole


@pytest.mark.requirement("CLEAN-1")
@given(DOCUMENTS)
def test_both_readers_say_the_same(text: str) -> None:
    """White space sends a body to the reader in Python, which looks at each object: it finds nothing else."""
    assert outcome(text.encode()) == outcome(f" {text}".encode())


@pytest.mark.requirement("CLEAN-1")
def test_folding_makes_no_structure() -> None:
    """No letter becomes a quote, a bracket or a backslash when case is folded, so keys stay keys."""
    letters = map(chr, (code for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000))
    assert not [letter for letter in letters if re.search(r'["\\{}\[\]:,\x00-\x1f]', letter.casefold())]


def test_each_reader_keeps_lexemes_of_fractions() -> None:
    """A fraction that the writer would write in the same way is still kept as it was written."""
    for body in (b'{"n":1.5}', b'{ "n":1.5}', b'{"n":1e+22}'):
        assert bytes(canonical.parse(body).exact["n"]) == body[body.index(b":") + 1 : -1]
