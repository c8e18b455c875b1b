"""A known value in spellings that a program understands or a reader does not see: none of them hides it."""

import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Raw, Verified
from gateway.core.known import KnownValues
from gateway.core.needles import Needles, Squeezed
from gateway.core.redact import KNOWN_VALUE, Redactor
from tests.at_once import at_once
from tests.evidence import lease, make_tool

SECRET = "JjKkLl0Zz9OoNnMmPpQqRrSs"
REDACTOR = Redactor(KnownValues([SECRET]))
# Unicode's Default_Ignorable_Code_Point, which the standard library does not have, and two blanks by design.
UNSEEN = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 2800 3164 FE00-FE0F FEFF FFA0 "
    "FFF0-FFFB 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"
)


def spell(*ways: Callable[[str], str]) -> str:
    """The secret, its characters spelt in these ways in turn."""
    return "".join(ways[number % len(ways)](char) for number, char in enumerate(SECRET))


def plain(char: str) -> str:
    """As it is."""
    return char


def unseen() -> list[str]:
    """All white space, controls, and characters that show as nothing."""
    found = {chr(point) for point in range(sys.maxunicode + 1) if chr(point).isspace()}
    found |= {chr(point) for point in range(0x100) if unicodedata.category(chr(point)) == "Cc"}
    for part in UNSEEN.split():
        first, _, last = part.partition("-")
        found |= {chr(point) for point in range(int(first, 16), int(last or first, 16) + 1)}
    return sorted(found)


SPELLINGS = {
    "escapes": spell(lambda char: f"\\u{ord(char):04x}"),
    "escapes in capitals": spell(lambda char: f"\\u{ord(char):04X}"),
    "escapes of escapes": spell(lambda char: f"\\\\u{ord(char):04X}"),
    "one escape": f"\\u{ord(SECRET[0]):04X}{SECRET[1:]}",
    "some escapes": spell(plain, plain, lambda char: f"\\u{ord(char):04X}"),
    "bytes of Python": spell(lambda char: f"\\x{ord(char):02x}", plain),
    "percent": spell(lambda char: f"%{ord(char):02x}"),
    "one percent": f"%{ord(SECRET[0]):02X}{SECRET[1:]}",
    "some percent": spell(plain, lambda char: f"%{ord(char):02X}"),
    "percent and escapes": spell(lambda char: f"%{ord(char):02X}", lambda char: f"\\u{ord(char):04x}", plain),
    "percent and gaps": spell(lambda char: f"%{ord(char):02X}%0a", plain),
    "hex in both cases": "".join(
        f"{byte:02X}" if number % 2 else f"{byte:02x}" for number, byte in enumerate(SECRET.encode())
    ),
    "line ends as letters": "\\n".join(SECRET),
    "line ends as letters, twice": "\\\\r\\\\n".join(SECRET),
    "continued line": f"{SECRET[:10]}\\\n{SECRET[10:]}",
    "JSON in a line": f"said {json.dumps({'a': chr(10).join(SECRET)})[7:-2]}",
}


def redacted(value: Any) -> Any:
    """The structured content after redaction."""
    body = msgspec.json.encode({"content": [], "structuredContent": value})
    raw = Raw(lease(make_tool()), body, msgspec.json.decode(body))
    return at_once(REDACTOR.redact(Verified(raw))).value["structuredContent"]


@pytest.mark.requirement("REDACT-1")
@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_no_spelling_hides_a_value(spelt: str) -> None:
    """In results, in JSON within them, and in log lines; what stands around it stays."""
    assert KNOWN_VALUE in redacted({"a": spelt})["a"]
    assert KNOWN_VALUE in redacted([f"<{spelt}>"])[0]
    assert spelt not in str(redacted({"a": json.dumps({"b": f"is {spelt}"})}))
    assert REDACTOR.text(f"a {spelt} b").endswith(f"{KNOWN_VALUE} b")


@pytest.mark.requirement("REDACT-1")
def test_nothing_unseen_in_between_hides_a_value() -> None:
    """Every character that is white, a control or shows as nothing, in results and in log lines."""
    for char in unseen():
        spelt = char.join(SECRET)
        assert redacted({"a": spelt}) == {"a": KNOWN_VALUE}, hex(ord(char))
        assert REDACTOR.text(f"a{spelt}b") == f"a{KNOWN_VALUE}b", hex(ord(char))


@pytest.mark.parametrize(
    "text", ["", "%", "%4", "%zz", "\\", "\\u004", "\\x4", "\\ud83d", "%41%42 \\u0041", "C:\\new\\u1234", "100 % \\n"]
)
def test_texts_that_only_look_spelt_stay_as_they_are(text: str) -> None:
    """No escape is undone in what the agent gets, only in what is searched."""
    assert REDACTOR.text(text) == text
    assert redacted({"a": text}) == {"a": text}


def test_the_place_of_a_spelt_value_is_exact() -> None:
    """From the first to the last byte of its spelling, in between other ones; two together are one place."""
    needles = Needles([SECRET])
    spelt = spell(lambda char: f"%{ord(char):02X}", plain)
    text = f"%41 \\u00e9{spelt}%42{spelt}"
    first, second = text.index(spelt), text.rindex(spelt)
    assert needles.spans(text.encode()) == [(first, first + len(spelt)), (second, second + len(spelt))]


def test_characters_beyond_the_first_plane_are_two_escapes() -> None:
    r"""As JSON writes them; half of one is no character, and no reason to fail."""
    value = "key-\U0001f511\U0001f512-of-it"
    redactor = Redactor(KnownValues([value]))
    spelt = json.dumps(value)[1:-1]
    assert redactor.text(f"it is {spelt}\\ud83d.") == f"it is {KNOWN_VALUE}\\ud83d."
    assert redactor.text(spelt.replace("\\udd11", "")) == spelt.replace("\\udd11", "")


@pytest.mark.parametrize("gap", ["\u00a0", "\u200b", "\u3000", "\U000e0041"])
def test_what_shows_as_nothing_hides_no_value_as_its_numbers_either(gap: str) -> None:
    """A gap that is percent-encoded, of the value itself or put in between."""
    own = Redactor(KnownValues([f"JjKkLl{gap}Zz9OoNn"]))
    for redactor, spelt in ((REDACTOR, f"{SECRET[:9]}{gap}{SECRET[9:]}"), (own, f"JjKkLl{gap}Zz9OoNn")):
        assert redactor.text(f"it is {quote(spelt)}.") == f"it is {KNOWN_VALUE}."


WAYS = st.sampled_from(["{0}", "%{1:02x}", "%{1:02X}", "\\u{1:04x}", "\\u{1:04X}", "\\\\u{1:04X}", "\\x{1:02X}"])
GAPS = st.text(st.sampled_from([" ", "\n", "\v", "\x1f", "\u200b", "\ufe0f", "\U000e0041", "\u3164"]), max_size=2)


@given(st.lists(st.tuples(WAYS, GAPS), min_size=len(SECRET) - 1, max_size=len(SECRET) - 1), WAYS)
def test_any_mixture_of_spellings_is_found(ways: list[tuple[str, str]], last: str) -> None:
    """Character by character, with unseen ones in between."""
    pairs = zip([*ways, (last, "")], SECRET, strict=True)
    spelt = "".join(way.format(char, ord(char)) + gap for (way, gap), char in pairs)
    assert REDACTOR.text(spelt) == KNOWN_VALUE
    assert redacted({"a": spelt}) == {"a": KNOWN_VALUE}


@given(st.binary(min_size=8, max_size=40), st.lists(st.booleans(), min_size=80, max_size=80), st.text(max_size=9))
def test_hexadecimal_is_found_in_any_case(secret: bytes, capitals: list[bool], around: str) -> None:
    """Each digit in either case; also of values that are all letters b and f."""
    value = secret.hex() if len(secret) % 2 else secret.decode("latin-1")
    try:
        redactor = Redactor(KnownValues([value]))
    except ValueError:
        return
    digits = value if len(secret) % 2 else value.encode().hex()
    if len(digits) < 16:
        return
    mixed = (
        "".join(digit.upper() if capital else digit for digit, capital in zip(digits, capitals * 2, strict=False))
        + digits[160:]
    )
    assert mixed not in redactor.text(around + mixed + around).replace(KNOWN_VALUE, "")


@pytest.mark.parametrize("value", ["nrtfbnrtfb", "n\\r\\t\\f\\b\\n", "rrrrrrrrrrrr"])
def test_a_value_of_which_squeezing_leaves_nothing_is_looked_for_everywhere(value: str) -> None:
    """Its letters are those of escaped white space: no scan could tell, so every text is searched for it."""
    assert Needles([value]).may_hold(Squeezed(b""))
    redactor = Redactor(KnownValues([value]))
    assert redactor.text(f"it is {value}.") == f"it is {KNOWN_VALUE}."
    assert redactor.text("it is nothing.") == "it is nothing."
