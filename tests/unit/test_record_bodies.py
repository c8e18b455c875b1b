"""What a record's body may hold, against an oracle in plain Python that shares nothing with the encoder's own check."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.decision import Effect
from gateway.core.records import MAX_LEAF, SYSTEM, Draft, EventType, Place, RecordError, leaf

PLACE = Place(3, "ab" * 32)
MOST, LONGEST = 2**53 - 1, 256


def written(body: Mapping[Any, Any]) -> bytes:
    """The leaf with this body."""
    return leaf(Draft("id", EventType.DECISION, 1, bytes(16), SYSTEM, "run", "call", body), PLACE, ())


def is_scalar(value: object) -> bool:
    """Whether a body may hold it at its deepest."""
    if isinstance(value, str):
        is_sound = not any("\ud800" <= letter <= "\udfff" for letter in value)
        return is_sound and len(value) <= LONGEST
    return value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) <= MOST)


def are_keys(value: Mapping[Any, Any]) -> bool:
    """Whether all its keys are ASCII text."""
    return all(isinstance(key, str) and all(letter <= "\x7f" for letter in key) for key in value)


def may_stand(body: Mapping[Any, Any]) -> bool:
    """The rule in words: scalars, or one level of lists or objects of them, under ASCII keys."""
    for value in body.values():
        inner = list(value.values()) if isinstance(value, dict) else value
        if isinstance(value, dict) and not are_keys(value):
            return False
        if not all(map(is_scalar, inner if isinstance(inner, list) else [inner])):
            return False
    return are_keys(body)


NUMBERS = st.one_of(
    st.integers(), st.sampled_from([MOST, -MOST, MOST + 1, -MOST - 1, 2**63, -(2**63), 2**64]), st.floats()
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(), max_size=4),
    st.sampled_from(
        ["", "\x00", "\ud800", "a\udfffb", "y" * 256, "y" * 257, "\u00fc" * 256, "\U0001f600" * 257, '"\\']
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
@example({})
@example({"x": "\x00"})
@example({"\x7f": 1})
@example({"\x80": 1})
@example({"x": float("nan")})
@example({"x": [1.0]})
@example({"x": {"y": [1]}})
@example({"x": [{"y": 1}]})
@example({"x": [[]]})
def test_a_body_is_written_where_the_rule_allows_it_and_only_there(body: dict[str, Any]) -> None:
    """The encoder's check and the oracle accept the same bodies; what is written says what was given, by RFC 8785."""
    if not may_stand(body):
        with pytest.raises(RecordError):
            written(body)
        return
    entry = written(body)
    decoded = msgspec.json.decode(entry)
    assert decoded["body"] == body
    assert entry == rfc8785.dumps(decoded)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        0.0,
        -0.0,
        1e300,
        MOST + 1,
        -MOST - 1,
        2**64,
        -(2**200),
        "y" * 257,
        "\ud800",
        "a\udfffb",
        object(),
        b"\xff" * 300,
        1j,
        [1.5],
        [float("nan")],
        [MOST + 1],
        ["y" * 257],
        ["\ud800"],
        (float("nan"), 1),
        {float("inf")},
        [[]],
        [{}],
        {"a": 1.5},
        {"a": float("nan")},
        {"a": -(2**53)},
        {"a": "y" * 257},
        {"a": "\udc00"},
        {"a": []},
        {"a": {}},
        {"\u00fc": 1},
        {"\ud800": 1},
        {1: 1},
        {None: 1},
        {(1,): 1},
    ],
    ids=repr,
)
@pytest.mark.parametrize("others", [{}, {"decision_id": "0" * 32, "effect": Effect.ALLOW, "took_us": 4}])
def test_no_such_value_stands_in_a_record(value: object, others: dict[str, Any]) -> None:
    """Alone or among sound ones: nothing that readers may take for another number, text or shape."""
    with pytest.raises(RecordError):
        written({**others, "x": value})


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1,), b"x", "\u00fc", "\ud800", "\x80"], ids=repr)
def test_no_such_key_stands_in_a_record(key: object) -> None:
    """Keys are ASCII text: parsers order and fold others differently."""
    with pytest.raises(RecordError):
        written({"a": 1, key: 1})


def test_a_body_that_holds_itself_is_refused() -> None:
    """Endless nesting is an error like any other."""
    body: dict[str, Any] = {}
    body["x"] = body
    with pytest.raises(RecordError):
        written(body)


def test_a_record_may_be_as_long_as_an_entry_and_no_longer() -> None:
    """65,535 bytes are written, one more is not."""
    texts = {f"k{number:03}": "y" * 200 for number in range(300)}
    rest = MAX_LEAF - len(written({**texts, "z": ""}))
    texts |= {f"m{number:03}": "y" * 200 for number in range(rest // 209)}
    room = MAX_LEAF - len(written({**texts, "z": ""}))
    assert len(written({**texts, "z": "y" * room})) == MAX_LEAF
    with pytest.raises(RecordError, match="too long"):
        written({**texts, "z": "y" * (room + 1)})
