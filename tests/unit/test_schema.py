"""JSON Schema: compiled once, without network, with messages that tell no values."""

import time

import pytest

from gateway.core import schema

ORDER = {
    "type": "object",
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "currency": {"enum": ["EUR", "CHF"]},
        "lines": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}},
    },
    "required": ["amount", "currency"],
    "additionalProperties": False,
}


def test_a_good_value_has_no_problems() -> None:
    """A value that keeps the schema is accepted without a word."""
    checker = schema.compile(ORDER)
    assert checker.accepts({"amount": 5, "currency": "EUR", "lines": ["a"]})
    assert checker.problems({"amount": 5, "currency": "EUR"}) == []


def test_problems_name_place_and_rule() -> None:
    """Each problem is a pointer and what the schema asks for there."""
    found = schema.compile(ORDER).problems({"amount": 0, "currency": "XXX", "lines": ["a", "B", "c"], "extra": 1})
    assert sorted(found) == [
        "/: has unexpected members 'extra'",
        "/amount: breaks minimum '1'",
        "/currency: must be one of 'EUR', 'CHF'",
        "/lines/1: must match '^[a-z]+$'",
        "/lines: breaks maxItems '2'",
    ]
    assert schema.compile(ORDER).problems([]) == ["/: must be of type 'object'"]
    assert "/: lacks 'amount'" in schema.compile(ORDER).problems({})


def test_problems_never_quote_values() -> None:
    """A secret passed in the wrong place is not repeated in the message."""
    found = schema.compile(ORDER).problems({"amount": "s3cr3t-value", "currency": "s3cr3t-value"})
    assert found
    assert "s3cr3t" not in " ".join(found)


def test_names_in_problems_are_short_and_printable() -> None:
    """A member name of a megabyte, or one with control characters, cannot flood or forge a log line."""
    found = schema.compile(ORDER).problems({"amount": 1, "currency": "EUR", "x" * 1_000_000: 1, "\n\x1b[2J": 2})
    assert max(map(len, found)) < 300
    assert all(problem.isprintable() for problem in found)


def test_rules_hold_nothing_of_the_value() -> None:
    """What may be said of an output is where in the schema it failed."""
    assert schema.compile(ORDER).rules({"amount": 1, "currency": "EUR", "key-of-output": 1}) == [
        "/additionalProperties"
    ]


def test_a_value_with_a_million_faults_costs_one() -> None:
    """Beyond a small value only the first problem is looked for."""
    checker = schema.compile({"type": "array", "items": {"type": "integer"}})
    hostile = ["x"] * 200_000
    started = time.process_time()
    assert checker.problems(hostile) == ["/0: must be of type 'integer'"]
    assert time.process_time() - started < 0.5
    assert len(checker.problems(["x"] * 500)) == schema.MAX_PROBLEMS


def test_backtracking_is_bounded() -> None:
    """A pattern that explodes is a broken rule soon, not a stalled gateway."""
    checker = schema.compile({"pattern": r"^(?=a)(a|a?)+\1$"})
    started = time.process_time()
    assert checker.problems("a" * 5_000 + "!")
    assert time.process_time() - started < 1


def test_draft_2020_12_is_the_default_and_older_drafts_are_honoured() -> None:
    """``prefixItems`` counts without ``$schema``; under draft-07 array ``items`` does."""
    assert not schema.compile({"prefixItems": [{"type": "string"}]}).accepts([1])
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert not schema.compile(draft7).accepts([1])


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "objekt"},
        {"$ref": "https://example.com/x.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$dynamicRef": "http://example.com/y"}}},
        {"$id": "http://example.com/a", "$ref": "b"},
        {"$schema": "https://example.com/my-dialect"},
        {"$ref": "#/nowhere"},
        {"pattern": "("},
        ["object"],
        "object",
        None,
    ],
)
def test_schemas_that_cannot_be_used_are_refused_at_load(bad: object) -> None:
    """Invalid schemas and references that leave the document are refused, and nothing is fetched."""
    with pytest.raises(schema.SchemaRefused):
        schema.compile(bad)


def test_a_value_that_is_no_json_breaks_every_schema() -> None:
    """Keys that are no strings fail closed."""
    checker = schema.compile({})
    assert not checker.accepts({1: 2})
    assert checker.problems({1: 2}) == ["/: cannot be read as JSON"]
    assert checker.rules({1: 2}) == []
    assert checker.accepts({"1": 2})
    assert checker.rules(list(range(5_000))) == []
