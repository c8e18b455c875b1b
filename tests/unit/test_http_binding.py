"""HTTP bindings: the agent chooses values, never structure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http.binding import check, request, route
from gateway.core.errors import MalformedRequest, NotSent
from tests.evidence import make_arguments, make_tool

ORDER = route({"method": "GET", "path": "/orders/{id}/lines", "query": ["q"]})


def misfit(binding: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Why the arguments are not sent."""
    with pytest.raises(NotSent) as caught:
        request(route(binding), make_arguments(arguments))
    assert caught.value.cause_code == "argument"
    return caught.value.detail


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "../x",
        "%2e%2e",
        "%2E",
        "a%2Fb",
        "a%252fb",
        "%25252525252f",
        "a%5cb",
        "a%00",
        "a\nb",
    ],
)
def test_path_parameters_cannot_move(value: str) -> None:
    """Empty, dots, separators and control characters, also encoded once or more, are refused."""
    assert misfit({"method": "GET", "path": "/o/{id}"}, {"id": value}) == "'id' cannot be a path parameter"


@pytest.mark.parametrize("arguments", [{"id": None}, {"id": [1]}, {"id": {}}, {}])
def test_path_parameters_are_scalars(arguments: dict[str, Any]) -> None:
    """A structure, null or nothing makes no segment."""
    assert "must be a string" in misfit({"method": "GET", "path": "/o/{id}"}, arguments)


@pytest.mark.parametrize("template", ["/o/{a}{b}", "/o/.{a}", "/o/{a}."])
def test_parameters_do_not_make_a_dot_segment_with_their_surroundings(template: str) -> None:
    """A segment cannot become ``..`` by parts, as no part may be a dot; a file name is fine."""
    arguments = {"a": ".", "b": "."} if "{b}" in template else {"a": "."}
    assert misfit({"method": "GET", "path": template}, arguments) == "'a' cannot be a path parameter"
    assert request(route({"method": "GET", "path": "/o/{a}.json"}), make_arguments({"a": "x"})).target == "/o/x.json"


@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_values_stay_values(ident: str, query: str) -> None:
    """Whatever the text: the path keeps its segments, the query its one parameter, and both read back as sent."""
    try:
        target = request(ORDER, make_arguments({"id": ident, "q": query})).target
    except (NotSent, MalformedRequest):  # NUL never gets as far as a binding
        return
    path, _, rest = target.partition("?")
    assert target.isascii()
    assert path.split("/")[1::2] == ["orders", "lines"]
    assert unquote(path.split("/")[2]) == ident
    assert rest.count("=") == 1
    assert unquote(rest.partition("=")[2]) == query


def test_lexemes_are_sent_as_they_came() -> None:
    """Numbers in path and query are the caller's own digits."""
    found = route({"method": "GET", "path": "/o/{id}", "query": ["x", "on"]})
    sent = request(found, make_arguments(b'{"id":12345678901234567890,"x":1.10,"on":true}'))
    assert sent.target == "/o/12345678901234567890?x=1.10&on=true"


def test_a_body_of_everything_is_forwarded_verbatim() -> None:
    """The canonical bytes policy decided on are the bytes sent."""
    arguments = make_arguments(b'{"b":1.10,"a":[1E2,{"z":-0}]}')
    assert request(route({"method": "POST", "path": "/x", "body": "rest"}), arguments).body == arguments.canonical


def test_arguments_that_are_sent_nowhere_are_refused() -> None:
    """Policy decided on all of them, so none is dropped; a named but missing one is left out."""
    binding = {"method": "POST", "path": "/x", "query": ["q"], "body": ["a", "b"]}
    assert misfit(binding, {"a": 1, "c": 2}) == "an argument is sent nowhere"
    sent = request(route(binding), make_arguments({"a": 1}))
    assert (sent.target, sent.body) == ("/x", b'{"a":1}')
    assert misfit({"method": "GET", "path": "/x"}, {"a": 1}) == "an argument is sent nowhere"


@pytest.mark.parametrize("value", [None, {}, [None], [[1]]])
def test_structures_do_not_fit_a_query(value: Any) -> None:
    """Objects, nulls and nested lists have no one spelling in a query string."""
    misfit({"method": "GET", "path": "/x", "query": ["q"]}, {"q": value})


def test_a_target_has_a_longest_length() -> None:
    """Beyond what servers take it is not sent."""
    assert "too long" in misfit({"method": "GET", "path": "/x", "query": ["q"]}, {"q": "x" * 9_000})


@pytest.mark.parametrize(
    "binding",
    [
        {},
        {"method": "TRACE", "path": "/x"},
        {"method": "GET", "path": "x"},
        {"method": "GET", "path": "/x?y=1"},
        {"method": "GET", "path": "/x#y"},
        {"method": "GET", "path": "//evil.example/x"},
        {"method": "GET", "path": "/a//b"},
        {"method": "GET", "path": "/a/../b"},
        {"method": "GET", "path": "/a/%2e%2E/b"},
        {"method": "GET", "path": "/a b"},
        {"method": "GET", "path": "/a\r\nX: y"},
        {"method": "GET", "path": "/a/{b"},
        {"method": "GET", "path": "/x", "body": "rest"},
        {"method": "GET", "path": "/{a}", "query": ["a"]},
        {"method": "POST", "path": "/x", "body": "all"},
        {"method": "POST", "path": "/x", "query": "q"},
        {"method": "POST", "path": "/x", "idempotency_header": "Host"},
        {"method": "POST", "path": "/x", "idempotency_header": "X-A\r\nB"},
        {"method": "POST", "path": "/x", "headers": {}},
        {"method": "POST", "path": "/x", "success": ["ok"]},
        {"method": "POST", "path": "/x", "body": 5},
    ],
)
def test_broken_bindings_are_told_at_load(binding: dict[str, Any]) -> None:
    """``ostiary check`` says what is wrong instead of the first call."""
    assert len(check(make_tool(binding=binding))) == 1


def test_check_holds_the_binding_against_the_schema() -> None:
    """Undeclared names, optional path parameters, arguments sent nowhere, open schemas."""
    schema = {"type": "object", "properties": {"id": {}, "x": {}}}
    found = " ".join(check(make_tool(schema=schema, binding={"method": "GET", "path": "/o/{id}", "query": ["q"]})))
    for words in ("uses 'q'", "'id' is in the path", "'x' is declared", "additionalProperties"):
        assert words in found
    good = schema | {"required": ["id"], "additionalProperties": False}
    assert check(make_tool(schema=good, binding={"method": "GET", "path": "/o/{id}", "query": ["x"]})) == []
    assert check(make_tool(schema=good, binding={"method": "PUT", "path": "/o/{id}", "body": "rest"})) == []
