"""Output contracts: shape, size, pinned schema."""

import json
from typing import Any

import pytest

from gateway.core.call import Raw
from gateway.core.errors import Tainted
from gateway.core.schema import SchemaRefused
from gateway.core.tool import Tool, ToolLimits
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool

OUTPUT = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def raw(value: Any, tool: Tool | None = None) -> Raw:
    """What a connector brought back for ``tool``."""
    return Raw(lease(tool or make_tool()), json.dumps(value).encode(), value)


def promising(output: Any, name: str = "sum", **other: Any) -> Tool:
    """A tool with an output schema."""
    return make_tool(name, definition={"name": name, "inputSchema": {}, "outputSchema": output}, **other)


def cause(value: Any, tool: Tool | None = None) -> str:
    """The cause code with which the value is withheld."""
    with pytest.raises(Tainted) as caught:
        Verifier().verify(raw(value, tool))
    return caught.value.cause_code


@pytest.mark.parametrize(
    "value",
    [
        {"content": []},
        {"content": [{"type": "text", "text": ""}], "isError": True, "_meta": {}, "resultType": "complete"},
        {"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
        {"content": [{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}]},
        {"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}]},
        {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "x"}}]},
        {"content": [{"type": "resource", "resource": {"uri": "file:///a", "blob": "eA=="}}], "structuredContent": {}},
    ],
)
def test_tool_results_pass(value: Any) -> None:
    """Every kind of content block, and members the contract does not name, pass."""
    found = raw(value)
    assert Verifier().verify(found).raw is found


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"content": {}},
        {"content": None},
        {"content": ["text"]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": 1}]},
        {"content": [{"type": ["text"], "text": "x"}]},
        {"content": [{"type": "video", "text": "x"}]},
        {"content": [{"type": "image", "data": "x"}]},
        {"content": [{"type": "resource", "resource": "x"}]},
        {"content": [{"type": "resource", "resource": {"uri": "x"}}]},
        {"content": [{"type": "resource", "resource": {"text": "x"}}]},
        {"content": [], "isError": 1},
        {"content": [], "isError": None},
        {"content": [], "structuredContent": []},
        {"content": [], "structuredContent": None},
        {"content": [], "_meta": "x"},
    ],
)
def test_what_is_no_tool_result_is_withheld(value: Any) -> None:
    """A result of another shape does not get through."""
    assert cause(value) == "output_shape"


PROMPT = make_tool("prompts/letter")
SAID = {"role": "user", "content": {"type": "text", "text": "x"}}


@pytest.mark.parametrize("value", [{"messages": []}, {"messages": [SAID], "description": "d", "_meta": {}}])
def test_prompts_pass(value: Any) -> None:
    """A prompt's result is messages, each with one content block."""
    found = raw(value, PROMPT)
    assert Verifier().verify(found).raw is found
    assert cause(value) == "output_shape"  # of a tool


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"content": []},
        {"messages": {}},
        {"messages": ["x"]},
        {"messages": [SAID | {"role": "system"}]},
        {"messages": [SAID | {"role": ["user"]}]},
        {"messages": [SAID | {"content": [SAID["content"]]}]},
        {"messages": [], "description": 1},
        {"messages": [], "_meta": "x"},
    ],
)
def test_what_is_no_prompt_is_withheld(value: Any) -> None:
    """Nor is a message of a role that would speak for the system."""
    assert cause(value, PROMPT) == "output_shape"


@pytest.mark.parametrize(
    "value",
    [
        {"contents": []},
        {"contents": [{"uri": "x:a", "text": ""}, {"uri": "x:b", "blob": "eA==", "mimeType": "a/b"}], "_meta": {}},
    ],
)
def test_contents_of_resources_pass(value: Any) -> None:
    """Any number of parts, each a text or a blob under its address."""
    found = raw(value, make_tool("resources/x:a"))
    assert Verifier().verify(found).raw is found


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"contents": {}},
        {"contents": ["x"]},
        {"contents": [{"uri": "x:a"}]},
        {"contents": [{"text": "x"}]},
        {"contents": [], "_meta": 3},
    ],
)
def test_what_is_no_resource_is_withheld(value: Any) -> None:
    """No contents, or a part without address or without text and blob."""
    assert cause(value, make_tool("resources/x:a")) == "output_shape"


@pytest.mark.parametrize(
    "said", [{"values": []}, {"values": ["a"], "total": 150, "hasMore": True}, {"values": ["a"] * 100}]
)
def test_completions_pass(said: Any) -> None:
    """At most a hundred texts, with how many there are."""
    found = raw({"completion": said}, make_tool("completions/prompts/a"))
    assert Verifier().verify(found).raw is found


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"completion": []},
        {"completion": {"values": "a"}},
        {"completion": {"values": [1]}},
        {"completion": {"values": ["a"] * 101}},
        {"completion": {"values": [], "total": "1"}},
        {"completion": {"values": [], "total": True}},
        {"completion": {"values": [], "hasMore": 1}},
    ],
)
def test_what_is_no_completion_is_withheld(value: Any) -> None:
    """Values that are no texts or too many, and counts that are none."""
    assert cause(value, make_tool("completions/prompts/a")) == "output_shape"


def test_a_subscription_brings_an_object() -> None:
    """Whatever is in it; anything else is withheld."""
    follows = make_tool("subscriptions/x:a")
    assert Verifier().verify(raw({}, follows)).raw.value == {}
    assert cause([], follows) == "output_shape"


def test_an_output_over_the_tools_cap_is_withheld() -> None:
    """The cap counts bytes as they would be sent."""
    tool = make_tool(limits=ToolLimits(max_output_bytes=100))
    assert cause({"content": [{"type": "text", "text": "x" * 100}]}, tool) == "output_size"


def test_structured_content_must_keep_the_pinned_schema() -> None:
    """Missing or wrong structured content is withheld; the message names the rule, not the output."""
    tool = promising(OUTPUT)
    Verifier().verify(raw({"content": [], "structuredContent": {"total": 3}}, tool))
    assert cause({"content": []}, tool) == "output_schema"
    with pytest.raises(Tainted) as caught:
        Verifier().verify(raw({"content": [], "structuredContent": {"total": "s3cr3t"}}, tool))
    assert caught.value.cause_code == "output_schema"
    assert caught.value.detail == "the output breaks the tool's outputSchema at /properties/total/type"


def test_an_error_result_needs_no_structured_content() -> None:
    """What it structures all the same keeps the schema, or the flag would be a way around the contract."""
    found = raw({"content": [], "isError": True}, promising(OUTPUT))
    assert Verifier().verify(found).raw is found
    error = {"content": [], "isError": True, "structuredContent": {"any": 1}}
    assert cause(error, promising(OUTPUT)) == "output_schema"


def test_bad_output_schemas_are_refused_at_load_and_never_trusted_later() -> None:
    """``prepare`` names the tool; a call that gets so far all the same is withheld."""
    tool = promising({"$ref": "https://example.com/x"}, "far")
    with pytest.raises(SchemaRefused, match=r"up\.far"):
        Verifier().prepare([make_tool(), tool])
    assert cause({"content": [], "structuredContent": {}}, tool) == "output_schema"


def test_compiled_schemas_are_kept_by_digest_and_bounded() -> None:
    """Two definitions of one name do not share a contract, and old ones make room."""
    verifier = Verifier(capacity=2)
    tools = [promising(OUTPUT | {"maxProperties": n}) for n in range(1, 6)]
    verifier.prepare(tools)
    verifier.prepare(tools[-1:])
    assert len(verifier._checkers) == 2
    with pytest.raises(Tainted):
        verifier.verify(raw({"content": [], "structuredContent": {"total": 1, "more": 2}}, tools[0]))
    verifier.verify(raw({"content": [], "structuredContent": {"total": 1, "more": 2}}, tools[1]))
