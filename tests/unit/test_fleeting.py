"""Minted secrets known in a bounded way: what is in use is never forgotten, what was revoked is for a while."""

import base64

import pytest

from gateway.core.fleeting import MAX_LATE, MAX_LIVE, Fleeting
from gateway.core.known import KnownValues
from gateway.core.needles import UnfitSecret


def value(number: int) -> str:
    """A made-up password of letters and digits."""
    return f"aB3{number:05}xY9{number * 7919 % 100_000:05}Qw"


def knows(subject: Fleeting | KnownValues, text: str) -> bool:
    """Whether any part finds something in ``text``."""
    return any(part.spans(text.encode()) for part in subject.segments)


def test_a_value_is_found_in_its_encodings_from_its_first_moment() -> None:
    """As it is, reversed, in hexadecimal, in base64."""
    subject = Fleeting()
    subject.add(value(1))
    raw = value(1).encode()
    for form in (value(1), value(1)[::-1], raw.hex(), base64.b64encode(b"ab" + raw).decode(), f"<{value(1)}>"):
        assert knows(subject, form), form
    assert value(1) in subject
    assert not knows(subject, value(2))


def test_the_number_of_parts_stays_small_while_all_are_known() -> None:
    """Seven hundred values in use are found one by one, in at most one part for 64 of them and 14 more."""
    subject = Fleeting()
    for number in range(700):
        subject.add(value(number))
        assert len(subject.segments) <= 14 + number // 64 + 1
    assert all(knows(subject, value(number)) for number in range(0, 700, 41))


@pytest.mark.requirement("CRED-3")
def test_revoked_values_stay_known_until_many_later_ones_were_revoked() -> None:
    """The newest 512 of them; those in use always, however old they are."""
    subject = Fleeting()
    subject.add(value(0))
    total = MAX_LATE + 1200
    for number in range(1, total):
        subject.add(value(number))
        subject.retire(value(number))
    assert knows(subject, value(0))
    assert knows(subject, value(total - MAX_LATE))
    assert value(1) not in subject
    assert not knows(subject, value(1))
    assert len(subject.segments) <= 30


def test_at_the_bound_another_value_must_not_be_used() -> None:
    """1,024 in use: refused, until one is revoked; one that is in use already may be added again."""
    subject = Fleeting()
    for number in range(MAX_LIVE):
        subject.add(value(number))
    with pytest.raises(UnfitSecret, match="more than"):
        subject.add(value(MAX_LIVE))
    subject.add(value(0))
    subject.retire(value(0))
    subject.add(value(MAX_LIVE))
    assert knows(subject, value(0))
    subject.retire("never seen")


def test_a_value_that_comes_back_is_in_use_again() -> None:
    """Retired, then minted again: it is not forgotten with the old ones."""
    subject = Fleeting()
    for number in range(9):
        subject.add(value(number))
        subject.retire(value(number))
    subject.add(value(0))
    for number in range(10, MAX_LATE + 20):
        subject.add(value(number))
        subject.retire(value(number))
    assert knows(subject, value(0))


def test_values_that_cannot_be_found_again_are_refused() -> None:
    """Too short: it must not be used, and nothing is kept of it."""
    subject = Fleeting()
    with pytest.raises(UnfitSecret):
        subject.add("short")
    assert subject.segments == ()


def test_known_values_hold_lasting_and_minted_ones() -> None:
    """Both are found; only the lasting ones are in ``needles``."""
    known = KnownValues(["lasting-value"])
    known.lend(value(1))
    assert knows(known, "lasting-value")
    assert knows(known, value(1))
    assert known.needles.values == {"lasting-value"}
    known.retire(value(1))
    assert knows(known, value(1))
