"""Leaves hold what may stay for ever; pointers find what they name or say so."""

from typing import Any

import msgspec
import pytest

from gateway.core.pointer import PointerError, resolve
from gateway.core.records import SYSTEM, Draft, EventType, Place, RecordError, identifier, leaf


def draft(body: dict[str, Any], kind: EventType = EventType.DECISION) -> Draft:
    """A draft with this body."""
    return Draft("id", kind, 1, bytes(16), SYSTEM, "run", "call", body)


def test_a_leaf_is_canonical_and_holds_its_place() -> None:
    """Keys are sorted, no white space; re-encoding the decoded leaf gives the same bytes."""
    entry = leaf(draft({"b": 1, "a": [True, None, "x"]}), Place(3, "ab"), ())
    decoded = msgspec.json.decode(entry)
    assert msgspec.json.encode(decoded, order="sorted") == entry
    assert (decoded["seq_run"], decoded["prev_run"], decoded["salt"]) == (3, "ab", "00" * 16)


def test_a_value_may_be_in_any_script() -> None:
    """Names in values are not limited to ASCII, keys are."""
    entry = leaf(draft({"tool": "erp.pr\u00fcfen", "n": {"a": 1}}), Place(0, None), ())
    assert msgspec.json.decode(entry)["body"]["tool"] == "erp.pr\u00fcfen"


def test_a_runs_end_counts_its_records() -> None:
    """The writer, who numbers, says how many there are."""
    entry = leaf(draft({"reason": "idle"}, EventType.RUN_ENDED), Place(3, "ab"), ())
    assert msgspec.json.decode(entry)["body"] == {"reason": "idle", "count": 4}


@pytest.mark.parametrize(
    "body",
    [
        {"x": 1.5},
        {"x": 2**53},
        {"x": -(2**53)},
        {"x": "y" * 257},
        {"\u00fc": 1},
        {"x": {"a": {"b": {"c": {"d": 1}}}}},
        {"x": {"\u00fc": 1}},
        {"x": "\ud800"},
        {"x": object()},
        {"x": [[[[[1]]]]]},
        {f"k{n}": "y" * 250 for n in range(300)},
    ],
)
def test_what_may_not_stand_in_a_leaf_is_refused(body: dict[str, Any]) -> None:
    """No floats, no big integers, no long text, no foreign keys, no deep nesting, nothing over 64 KiB."""
    with pytest.raises(RecordError):
        leaf(draft(body), Place(0, None), ())


@pytest.mark.parametrize(
    ("text", "kept"),
    [("scope.not_granted", True), ("a" * 128, True), ("a" * 129, False), ("free text", False), ("", False)],
)
def test_only_identifiers_pass_as_identifiers(text: str, *, kept: bool) -> None:
    """Anything that could carry a message is replaced."""
    assert identifier(text) == (text if kept else "irregular")


DOCUMENT = {"a": [10, {"b/c": 1, "d~e": 2}], "": 3}


@pytest.mark.parametrize(
    ("pointer", "value"), [("", DOCUMENT), ("/a/0", 10), ("/a/1/b~1c", 1), ("/a/1/d~0e", 2), ("/", 3)]
)
def test_a_pointer_finds_what_it_names(pointer: str, value: object) -> None:
    """RFC 6901, with its escapes."""
    assert resolve(DOCUMENT, pointer) == value


@pytest.mark.parametrize("pointer", ["a", "/b", "/a/2", "/a/-", "/a/01", "/a/\u0661", "/a/0/x", "/a/9999999999"])
def test_a_pointer_to_nothing_says_so(pointer: str) -> None:
    """No member, no element, no pointer: one error."""
    with pytest.raises(PointerError):
        resolve(DOCUMENT, pointer)
