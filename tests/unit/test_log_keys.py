"""Which keys may sign which trees of a log, as its ``key`` records say."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.log_keys import KeyHistory, KeyRefused, added_body, first_body, retired_body
from gateway.core.tlog import Checkpoint, NoteError, Signer

NAME = "log.test"
FIRST, SECOND, THIRD = (Signer(NAME, Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
ALONE = KeyHistory.begun(FIRST.key).after(0, 10, first_body(FIRST.key))
# Records 5 and 9: from the tree of 6 on both sign, from the tree of 10 on the second alone.
BOTH = ALONE.after(5, 60, added_body(FIRST.key, FIRST, SECOND.key, 90))
AFTER = BOTH.after(9, 100, retired_body(FIRST.key))


def note(size: int, *signers: Signer, name: str = NAME) -> str:
    """A checkpoint over ``size`` records, signed by each of them."""
    text = Checkpoint(name, size, bytes([size % 256]) * 32).text
    return f"{text}\n{''.join(signer.line(text) for signer in signers)}"


def test_each_stretch_of_the_log_has_its_keys() -> None:
    """One at first, both while they overlap, the newer one afterwards; the times are those of the records."""
    ids = [[key.id for key in AFTER.signing(size)] for size in (0, 5, 6, 9, 10, 1000)]
    one, two = FIRST.key.id, SECOND.key.id
    assert ids == [[one], [one], [one, two], [one, two], [two], [two]]
    assert [(reign.since, reign.since_us, reign.until, reign.until_us) for reign in AFTER.reigns] == [
        (0, 10, 10, 100),
        (6, 60, None, None),
    ]
    assert (AFTER.first.text, AFTER.newest.retires_us) == (FIRST.key.text, 90)
    assert KeyHistory.begun(FIRST.key).after(0, 10, first_body(FIRST.key, "ab" * 16)) == ALONE


@pytest.mark.parametrize(
    ("size", "signers"),
    [(0, [FIRST]), (5, [FIRST]), (6, [FIRST, SECOND]), (9, [SECOND, FIRST]), (10, [SECOND]), (12, [SECOND])],
)
def test_a_checkpoint_by_the_keys_of_its_size_opens(size: int, signers: list[Signer]) -> None:
    """In any order; a stranger's signature beside them does no harm."""
    assert AFTER.open(note(size, *signers, THIRD)).size == size


@pytest.mark.parametrize(
    ("size", "signers", "problem"),
    [
        (10, [FIRST], "retired before"),
        (5, [SECOND], "added later"),
        (12, [SECOND, FIRST], "retired before"),
        (5, [FIRST, SECOND], "added later"),
        (5, [THIRD], "no signature by a known key"),
        (7, [FIRST], f"the signature of key {SECOND.key.id.hex()} is missing"),
        (7, [SECOND], f"the signature of key {FIRST.key.id.hex()} is missing"),
    ],
)
def test_a_checkpoint_by_other_keys_is_refused(size: int, signers: list[Signer], problem: str) -> None:
    """By a retired key after its time, by one before its time, by a stranger, by one of two."""
    with pytest.raises(NoteError, match=problem):
        AFTER.open(note(size, *signers))


def test_a_known_key_that_fails_or_another_log_is_refused() -> None:
    """Also where the key is retired; and a checkpoint of another log, though the keys are these."""
    good, other = note(10, SECOND), note(11, FIRST).rpartition("\n\n")[2]
    with pytest.raises(NoteError, match="wrong"):
        AFTER.open(good + other)
    with pytest.raises(NoteError, match="another log"):
        AFTER.open(note(10, SECOND, name="other.test"))


def _forged(**members: Any) -> dict[str, Any]:
    return added_body(FIRST.key, FIRST, SECOND.key, 90) | members


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (_forged(signature="00" * 64), "not signed for"),
        (_forged(signature=None), "not signed for"),
        (_forged(signed_by=SECOND.key.id.hex()), "not signed for"),
        (added_body(FIRST.key, SECOND, SECOND.key, 90), "not signed for"),
        (added_body(SECOND.key, FIRST, SECOND.key, 90), "not signed for"),
        (_forged(public=THIRD.key.raw.hex()), "id does not fit"),
        (_forged(public=THIRD.key.raw.hex(), key_id=THIRD.key.id.hex()), "not signed for"),
        (_forged(public="zz"), "no Ed25519 key"),
        (_forged(use="payload"), "another kind"),
        (_forged(algorithm="rsa"), "another kind"),
        (_forged(retires_us=None), "until when"),
        (_forged(retires_us=True), "until when"),
        (added_body(FIRST.key, FIRST, FIRST.key, 90), "in use before"),
        (retired_body(FIRST.key), "older of two"),
        (_forged(action="lent"), "older of two"),
    ],
)
def test_a_record_that_may_not_stand_there_is_refused(body: dict[str, Any], problem: str) -> None:
    """A key nobody signed for, or not for this log; of another kind; a key again; the last one retired."""
    with pytest.raises(KeyRefused, match=problem):
        ALONE.after(5, 60, body)


def test_the_order_of_changes_is_fixed() -> None:
    """No third key while two sign, only the older is retired, none comes back, and the first is the first."""
    with pytest.raises(KeyRefused, match="still to be retired"):
        BOTH.after(6, 70, added_body(FIRST.key, SECOND, THIRD.key, 90))
    with pytest.raises(KeyRefused, match="older of two"):
        BOTH.after(6, 70, retired_body(SECOND.key))
    with pytest.raises(KeyRefused, match="in use before"):
        AFTER.after(12, 130, added_body(FIRST.key, SECOND, FIRST.key, 90))
    with pytest.raises(KeyRefused, match="begun with another key"):
        KeyHistory.begun(FIRST.key).after(0, 10, first_body(SECOND.key))
    third = AFTER.after(12, 130, added_body(FIRST.key, SECOND, THIRD.key, 90))
    assert [key.id for key in third.signing(13)] == [SECOND.key.id, THIRD.key.id]
    assert replace(third.reigns[0]) == AFTER.reigns[0]
