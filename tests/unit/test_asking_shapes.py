"""What an upstream may ask of a client, and what an answer to it looks like: untrusted bytes, held to their form."""

from typing import Any

import msgspec
import pytest

from gateway.core.call import Raw
from gateway.core.errors import Tainted
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import MAX_BYTES, MOST_QUESTIONS, Question
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool

FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ASKED = {"message": "Who are you?", "requestedSchema": FORM}
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
SAMPLE = {"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}], "maxTokens": 5}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "y"}, "model": "m"}
ROOTED = {"roots": [{"uri": "file:///a", "name": "a"}]}
ALL = asking.declared({"elicitation": {}, "sampling": {}, "roots": {}})
ELICIT, SAMPLING, ROOTS = asking.METHODS


def test_an_upstream_is_told_no_more_than_that_a_client_can_be_asked() -> None:
    """Known capabilities and their known parts; addresses to open are not among them, nor is whatever else is said."""
    said = {
        "elicitation": {"form": {}, "url": {}},
        "sampling": {"tools": {"x": 1}, "context": {}, "odd": {}},
        "roots": {"listChanged": True},
        "experimental": {"x": {}},
    }
    assert asking.declared(said) == {
        "elicitation": {"form": {}},
        "sampling": {"context": {}, "tools": {}},
        "roots": {},
    }
    assert ALL == {"elicitation": {}, "sampling": {}, "roots": {}}
    assert asking.declared({"elicitation": {"url": {}}, "sampling": True, "roots": []}) == {}
    assert asking.declared(None) == asking.declared([1]) == {}


@pytest.mark.parametrize(
    ("method", "params", "fault"),
    [
        (ELICIT, ASKED, None),
        (ELICIT, ASKED | {"mode": "form"}, None),
        (ELICIT, ASKED | {"mode": "url", "url": "http://x"}, "mode"),
        (ELICIT, {"message": "m"}, "shape"),
        (ELICIT, ASKED | {"message": 1}, "shape"),
        (ELICIT, ASKED | {"requestedSchema": {"type": "array"}}, "schema"),
        (ELICIT, ASKED | {"requestedSchema": {"type": "object"}}, "schema"),
        (ELICIT, ASKED | {"requestedSchema": FORM | {"required": 7}}, "schema"),
        (SAMPLING, SAMPLE, None),
        (SAMPLING, SAMPLE | {"maxTokens": 0}, "shape"),
        (SAMPLING, SAMPLE | {"maxTokens": True}, "shape"),
        (SAMPLING, SAMPLE | {"messages": [{"role": "user", "content": "text"}]}, "shape"),
        (SAMPLING, SAMPLE | {"messages": [{"role": "system", "content": []}]}, "shape"),
        (SAMPLING, SAMPLE | {"messages": ["x"]}, "shape"),
        (SAMPLING, SAMPLE | {"tools": []}, "undeclared"),
        (SAMPLING, SAMPLE | {"includeContext": "allServers"}, "undeclared"),
        (SAMPLING, SAMPLE | {"includeContext": "none"}, None),
        (ROOTS, {}, None),
    ],
)
def test_a_question_keeps_its_form(method: str, params: dict[str, Any], fault: str | None) -> None:
    """Of a kind the client declared, in the shape the specification has."""
    assert asking.fault(Question(method, params), ALL) == fault
    assert asking.fault(Question(method, params), {}) == "undeclared"


def test_parts_of_a_capability_count() -> None:
    """A model that takes tools and context is asked with them."""
    able = asking.declared({"sampling": {"tools": {}, "context": {}}})
    assert asking.fault(Question(SAMPLING, SAMPLE | {"tools": [], "includeContext": "thisServer"}), able) is None


@pytest.mark.parametrize(
    ("method", "answer", "good"),
    [
        (ELICIT, ACCEPTED, True),
        (ELICIT, {"action": "decline"}, True),
        (ELICIT, {"action": "cancel", "content": None}, True),
        (ELICIT, {"action": "decline", "content": {}}, False),
        (ELICIT, {"action": "approve"}, False),
        (ELICIT, {"action": "accept"}, False),
        (ELICIT, {"action": "accept", "content": {}}, False),
        (ELICIT, {"action": "accept", "content": {"name": 7}}, False),
        (ELICIT, {"action": "accept", "content": {"name": "a", "more": {"deep": 1}}}, False),
        (ELICIT, {"action": "accept", "content": {"name": "a", "more": ["b"], "n": 1.5, "y": True}}, True),
        (ELICIT, {"action": "accept", "content": {"name": "a", "more": [1]}}, False),
        (ELICIT, [], False),
        (SAMPLING, SAMPLED, True),
        (SAMPLING, SAMPLED | {"content": [{"type": "text"}]}, True),
        (SAMPLING, SAMPLED | {"model": None}, False),
        (SAMPLING, SAMPLED | {"content": "y"}, False),
        (ROOTS, ROOTED, True),
        (ROOTS, {"roots": {}}, False),
        (ROOTS, {"roots": [{"uri": "http://a"}]}, False),
        (ROOTS, {"roots": ["file:///a"]}, False),
        (ROOTS, {"roots": [{"uri": "file:///a", "name": 1}]}, False),
    ],
)
def test_an_answer_keeps_what_was_asked_for(method: str, answer: Any, good: bool) -> None:
    """An elicited form keeps its schema; a sample is a message of a model; roots are files."""
    fault = asking.answer_fault(Question(method, ASKED), answer)
    assert (fault is None) == good


def test_questions_are_read_from_requests() -> None:
    """What is no question of the three is none, nor is one that is too long or ambiguous."""
    assert asking.question(ELICIT, msgspec.json.encode(ASKED)) == Question(ELICIT, ASKED)
    assert asking.question(ROOTS, b"") == Question(ROOTS, {})
    long = b'{"a":"%b"}' % (b"x" * MAX_BYTES)
    for method, text in ((ELICIT, b'{"a":1,"a":2}'), (ELICIT, b"[]"), ("ping", b"{}"), (ROOTS, long)):
        assert asking.question(method, text) is None


def required(**members: Any) -> dict[str, Any]:
    """A result that wants input."""
    return {"resultType": "input_required", **members}


@pytest.mark.parametrize(
    ("members", "good"),
    [
        ({"inputRequests": {"a": {"method": ELICIT, "params": ASKED}}}, True),
        ({"inputRequests": {"a": {"method": ROOTS}}, "requestState": "s"}, True),
        ({"requestState": "s"}, True),
        ({}, False),
        ({"inputRequests": {}}, False),
        ({"inputRequests": []}, False),
        ({"inputRequests": {"a": {"method": "tools/call"}}}, False),
        ({"inputRequests": {"a": {"method": ROOTS, "params": []}}}, False),
        ({"inputRequests": {str(at): {"method": ROOTS} for at in range(MOST_QUESTIONS + 1)}}, False),
        ({"requestState": 7}, False),
        ({"requestState": "x" * (MAX_BYTES + 1)}, False),
    ],
)
def test_a_result_that_asks_has_a_form_of_its_own(members: dict[str, Any], good: bool) -> None:
    """The output schema is that of the result to come; anything that is no such result is withheld."""
    tool = make_tool(schema={"type": "object"})
    value = required(**members)
    raw = Raw(lease(tool), msgspec.json.encode(value), value)
    if good:
        assert Verifier().verify(raw).raw is raw
        return
    with pytest.raises(Tainted) as caught:
        Verifier().verify(raw)
    assert caught.value.cause_code == "output_shape"


def test_what_a_client_lacks_is_told_by_known_names_only() -> None:
    """Whatever else an upstream writes there is not repeated."""
    assert asking.lacking({"requiredCapabilities": {"sampling": {}, "<script>": {}}}) == ("sampling",)
    assert asking.lacking({"requiredCapabilities": ["sampling"]}) == asking.lacking(None) == ()
