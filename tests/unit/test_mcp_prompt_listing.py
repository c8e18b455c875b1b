"""What an upstream says of its prompts, as the catalogue holds it: untrusted, and within bounds."""

from typing import Any

import pytest

from connectors.mcp.faults import Lost
from connectors.mcp.listing import ListingLimits, all_offered, as_definition
from gateway.core import schema
from gateway.core.mcpwire.jsonrpc import encode


def test_a_prompts_arguments_become_a_schema() -> None:
    """They are texts; what is required must be there, and what was not described may not."""
    prompt = {"name": "letter", "arguments": [{"name": "to", "required": True}, {"name": "tone"}], "title": "Letter"}
    made = as_definition(prompt)
    problems = schema.compile(made["inputSchema"]).problems
    assert (made["name"], made["title"], made["arguments"]) == ("prompts/letter", "Letter", prompt["arguments"])
    assert not problems({"to": "x", "tone": "y"})
    for wrong in ({}, {"to": 1}, {"to": "x", "more": "y"}):
        assert problems(wrong)


@pytest.mark.parametrize("said", [None, 3, "to", ["to"], [{"name": 3}], [{}], {"name": "to"}])
def test_arguments_that_are_none_are_no_arguments(said: Any) -> None:
    """A description that cannot be read opens nothing: the prompt then takes no arguments."""
    made = as_definition({"name": "letter", "arguments": said, "inputSchema": {}})
    problems = schema.compile(made["inputSchema"]).problems
    assert not problems({})
    assert problems({"to": "x"})


async def test_a_tool_is_taken_for_nothing_else() -> None:
    """One that is named like a prompt or a resource has not what these have, and would break the lists of all."""
    names = ("a", "prompts/a", "resources/x:a", "completions/prompts/a", "subscriptions/x:a", "hooks/a")

    async def ask(method: str, members: bytes, cap: int) -> bytes:
        return encode({"tools": [{"name": name, "inputSchema": {}} for name in names]})

    assert [item["name"] for item in await all_offered(ask, ListingLimits(), ())] == ["a"]


async def test_prompts_are_asked_for_only_where_there_are_some() -> None:
    """A server that says nothing of prompts is not asked; where they are no listing, only the tools are there."""
    asked: list[str] = []
    pages: dict[str, Any] = {"tools/list": {"tools": [{"name": "a"}]}, "prompts/list": {"prompts": [{"name": "a"}]}}

    async def ask(method: str, members: bytes, cap: int) -> bytes:
        asked.append(method)
        return encode(pages[method])

    assert [item["name"] for item in await all_offered(ask, ListingLimits(), {"logging"})] == ["a"]
    assert [item["name"] for item in await all_offered(ask, ListingLimits(), {"prompts"})] == ["a", "prompts/a"]
    assert asked == ["tools/list", "tools/list", "prompts/list"]
    pages["prompts/list"] = {"tools": []}
    assert [item["name"] for item in await all_offered(ask, ListingLimits(), {"prompts"})] == ["a"]
    pages["tools/list"] = {"prompts": []}
    with pytest.raises(Lost, match="listing"):
        await all_offered(ask, ListingLimits(), {"prompts"})
