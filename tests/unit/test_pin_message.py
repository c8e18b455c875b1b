"""What a reviewer's key signs to approve a tool."""

import pytest

from gateway.core.pinning import pin_message

MEANT = ("gateway.example/log", "wiki.read", "a" * 64, None)


def test_the_same_word_is_the_same_message() -> None:
    """It begins with what it is for, so that no other signature of the key passes for one."""
    assert pin_message(*MEANT) == pin_message(*MEANT)
    assert pin_message(*MEANT).startswith(b"ostiary.pin/v1\n")


@pytest.mark.parametrize(
    "other",
    [
        ("other.example/log", *MEANT[1:]),
        (MEANT[0], "wiki.write", *MEANT[2:]),
        (*MEANT[:2], "b" * 64, None),
        (*MEANT[:3], "c" * 64),
    ],
)
def test_a_signature_is_for_one_log_tool_wording_and_pin_before_it(other: tuple[str, str, str, str | None]) -> None:
    """Whatever of it is another, the message is."""
    assert pin_message(*other) != pin_message(*MEANT)
