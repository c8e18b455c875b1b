"""Known secrets are found in every encoding."""

import base64
import json
import time
from urllib.parse import quote, quote_plus, unquote_to_bytes

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import needles as searching
from gateway.core.known import MAX_VALUES, KnownValues
from gateway.core.needles import MAX_LENGTH, VEILS, Needles, Squeezed, UnfitSecret

SECRET = 'tr4nt/n"r+\\ é=Zz9'
SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=8, max_size=40)

FORMS = {
    "raw": SECRET,
    "json": json.dumps(SECRET)[1:-1],
    "json with raw letters": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "json with escaped slashes": json.dumps(SECRET).replace("/", "\\/")[1:-1],
    "url": quote(SECRET),
    "url, everything": quote(SECRET, safe=""),
    "url, lower case": "".join(f"%{byte:02x}" for byte in SECRET.encode()),
    "form": quote_plus(SECRET),
    "hex": SECRET.encode().hex(),
    "hex, upper case": SECRET.encode().hex().upper(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 after one byte": base64.b64encode(b"a" + SECRET.encode()).decode(),
    "base64 after two bytes": base64.b64encode(b"u:" + SECRET.encode() + b"!").decode(),
    "base64 for URLs": base64.urlsafe_b64encode(b"u:" + SECRET.encode()).decode(),
    "reversed": SECRET[::-1],
    "escaped": "".join(f"\\u{ord(char):04x}" for char in SECRET),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("around", ["{}", "before {} after", "x{}x", "{0}{0}"])
def test_each_encoding_is_found(form: str, around: str) -> None:
    """Wherever and however it stands, the squeezed scan suspects it and the exact one places it."""
    needles = Needles([SECRET])
    text = around.format(form).encode()
    assert needles.may_hold(Squeezed(text)) or re2.search(VEILS, text)
    assert needles.spans(text)


@pytest.mark.parametrize("gap", [" ", "\n", "\r\n\t", " \u00a0 ", "\u200b", "\u00ad", "\u3000"])
def test_a_value_split_by_white_space_is_found_whole(gap: str) -> None:
    """White and invisible space inside is part of the place; space around it is not."""
    split = gap.join("hunter2-and-more").encode()
    found = Needles(["hunter2-and-more"]).spans(b" a " + split + b" b ")
    assert found == [(3, 3 + len(split))]


def test_escaped_white_space_does_not_hide_a_value() -> None:
    r"""In JSON text, also JSON inside JSON, the squeezed scan sees through ``\n`` and ``\t``."""
    needles = Needles(["hunter2-and-more"])
    once = json.dumps({"a": "hunter2-\n\t and-\fmore"})
    assert needles.may_hold(Squeezed(once.encode()))
    assert needles.may_hold(Squeezed(json.dumps(once).encode()))


def test_overlapping_values_are_one_place() -> None:
    """No tail of one secret is left where another begins."""
    assert Needles(["ABCDEFGHIJ", "FGHIJKLMNO", "GHIJKLMNOPQR"]).spans(b"..ABCDEFGHIJKLMNOPQR..") == [(2, 20)]


def test_values_that_share_their_middle_are_told_apart() -> None:
    """Only the value that really stands there is found."""
    assert Needles(["aaaa-12345678-aaaa", "bbbb-12345678-bbbb"]).spans(b"bbbb-12345678-bbbb") == [(0, 18)]
    assert Needles(["aaaa-12345678-aaaa"]).spans(b"cccc-12345678-aaaa") == []


@given(SECRETS, st.text(max_size=30), st.text(max_size=30))
def test_any_value_is_found_anywhere(secret: str, before: str, after: str) -> None:
    """Whatever the value and its surroundings."""
    try:
        needles = Needles([secret])
    except UnfitSecret:
        return
    text = f"{before}{secret}{after}".encode()
    assert needles.may_hold(Squeezed(text))
    spans = needles.spans(text)
    start = len(before.encode())
    assert any(first <= start and start + len(secret.encode()) <= last for first, last in spans)


HEXADECIMAL = st.text("0123456789abcdefABCDEF", min_size=16, max_size=40)
FAR = b"\xff" * 2000  # nothing that is searched holds it


@given(st.lists(SECRETS | HEXADECIMAL, min_size=1, max_size=4), st.data())
def test_short_and_long_bodies_are_searched_for_the_same(secrets: list[str], data: st.DataObject) -> None:
    """Whether a body is cleared by a few numbers or by a search: what is found does not depend on it."""
    try:
        needles = Needles(secrets)
    except UnfitSecret:
        return
    secret = data.draw(st.sampled_from(secrets))
    said = data.draw(
        st.sampled_from([secret, secret.encode().hex(), secret.upper(), secret[:11], secret[1:], "b" * 12])
    )
    body = f"{data.draw(st.text(max_size=9))}{said}{data.draw(st.text(max_size=9))}".encode()
    assert needles.may_hold(Squeezed(body)) == needles.may_hold(Squeezed(body + FAR))


@pytest.mark.parametrize("count", [1, 40])
def test_hexadecimal_is_told_from_what_only_folds_to_it(count: int) -> None:
    """Few or many, short or long: small letters that squeezing takes out may be missing, others may not be added."""
    needles = Needles(f"{number:02x}3bbc4d5e6ff7089a1b2c3d4e5f6071" for number in range(count))
    hit = b"003bbc4d5e6ff7089a1b2c3d4e5f6071"
    there = {hit: True, hit.upper(): True, b"x".join([hit[:16], hit[16:]]): False, hit.replace(b"e", b"eB"): False}
    for said, is_there in there.items():
        assert needles.may_hold(Squeezed(said)) is is_there
        assert needles.may_hold(Squeezed(said + FAR)) is is_there


@pytest.mark.parametrize("times", [1, 100, 170, 500])
def test_a_body_is_read_without_its_percent_encoding_once(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, long or in between, and however much is searched in it: that takes longer than all else."""
    read = list[bytes]()

    def unquoted(body: bytes) -> bytes:
        read.append(body)
        return unquote_to_bytes(body)

    monkeypatch.setattr(searching, "unquote_to_bytes", unquoted)
    body = Squeezed(b"%41%42xyz%7e" * times)
    found = [Needles([value]).may_hold(body) for value in ("ABxyz~" * 3, SECRET)]
    assert found == [times > 1, False]
    assert len(read) == 1


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("value", ["Ab3-", "Zz9!Zz9!", "a-value-with-words", "p4" * 40])
def test_a_short_value_is_found_at_every_place(value: str, before: int) -> None:
    """Also where it begins between two of the places at which a short body is looked at, and at its end."""
    value = value.ljust(8, "x")
    for after in range(5):
        assert Needles([value]).may_hold(Squeezed(b"-" * before + value.encode() + b"-" * after))


@given(st.binary(max_size=200))
def test_unrelated_bytes_are_no_hit(data: bytes) -> None:
    """Text in an alphabet the secret does not use holds nothing."""
    text = data.hex().translate(str.maketrans("0123456789abcdef", "ghijklmopqsuvwxy")).encode()
    assert Needles(["N2N2-K7K7-Z9Z9-N2N2"]).spans(text) == []


@pytest.mark.parametrize(
    "value", ["", "short", "a b c d e f", " " * 20, "redacted", "known_value]", "x" * (MAX_LENGTH + 1)]
)
def test_values_that_cannot_be_kept_out_are_refused(value: str) -> None:
    """Too short, too long or part of the placeholder: it must not be used as a secret."""
    with pytest.raises(UnfitSecret):
        KnownValues().add(value)


def test_values_are_counted() -> None:
    """What two leases use is forgotten when both are over; readers keep the set they took."""
    known = KnownValues(["first-value"])
    before = known.needles
    known.add("second-value")
    known.add("second-value")
    known.remove("second-value")
    assert known.needles.values == {"first-value", "second-value"}
    known.remove("second-value")
    known.remove("second-value")
    known.remove("never-known")
    assert known.needles.values == {"first-value"}
    assert before.values == {"first-value"}


def test_an_unfit_value_leaves_the_set_as_it_was() -> None:
    """A refused value neither counts nor breaks the others."""
    known = KnownValues(["first-value"])
    with pytest.raises(UnfitSecret):
        known.add("short")
    assert known.needles.values == {"first-value"}


def test_the_set_is_bounded_and_fast_when_full() -> None:
    """At its bound a scan of 4 KiB costs about what it costs for one value, and one more value is refused."""
    full = KnownValues(f"value-{number:06d}-{number * 7919:08x}" for number in range(MAX_VALUES))
    with pytest.raises(UnfitSecret):
        full.add("one-value-more")
    body = Squeezed(json.dumps([{"id": number, "city": "Bern"} for number in range(150)]).encode())
    full.needles.may_hold(body)
    started = time.process_time()
    for _ in range(100):
        full.needles.may_hold(body)
    assert time.process_time() - started < 0.2
    assert full.needles.spans(b"x value-000511-003dbe51 x") or full.needles.spans(b"x value-000001-00001eef x")


def test_no_values_find_nothing() -> None:
    """Without secrets there is nothing to find."""
    needles = Needles([])
    assert not needles.may_hold(Squeezed(b"anything"))
    assert needles.spans(b"anything at all") == []
