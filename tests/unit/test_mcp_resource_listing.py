"""What an upstream says of its resources, as the catalogue holds it: untrusted, within bounds, and lasting."""

from typing import Any

import pytest
from anyio import sleep_forever

from connectors.mcp.listing import ListingLimits, all_offered, as_resource, as_template
from gateway.core import schema
from gateway.core.mcpwire.jsonrpc import encode


def test_a_resource_is_held_without_what_changes_with_its_contents() -> None:
    """Its size and the time of its last change say nothing that anybody approves; all else is kept."""
    said = {"uri": "x:a", "name": "a", "size": 3, "annotations": {"lastModified": "now", "priority": 1}, "other": [1]}
    made = as_resource(said)
    assert made is not None
    assert made["name"] == "resources/x:a"
    assert made["resource"] == {"uri": "x:a", "name": "a", "annotations": {"priority": 1}, "other": [1]}
    problems = schema.compile(made["inputSchema"]).problems
    assert not problems({"uri": "x:a"})
    for wrong in ({}, {"uri": 1}, {"uri": "x:a", "more": 1}):
        assert problems(wrong)
    odd = as_resource({"uri": "x:a", "annotations": 3})
    assert odd is not None
    assert odd["resource"]["annotations"] == 3


@pytest.mark.parametrize("uri", ["", "a", "x:{a}", "x:a b", "x:é", "x:" + "a" * 200])
def test_a_resource_without_a_good_address_is_left_out(uri: str) -> None:
    """Also one that could be taken for a template."""
    assert as_resource({"uri": uri, "name": "a"}) is None


def test_a_template_is_held_by_its_text() -> None:
    """What is none, has no variable or is too long is left out."""
    made = as_template({"uriTemplate": "x:{id}", "name": "many"})
    assert made is not None
    assert (made["name"], made["resourceTemplate"]) == ("resources/x:{id}", {"uriTemplate": "x:{id}", "name": "many"})
    for text in ("", "x:a", "x:{", "x:{a b}", "x:{a}" + "b" * 200):
        assert as_template({"uriTemplate": text}) is None


async def test_a_kind_that_takes_too_long_is_left_out() -> None:
    """Nobody waits for a server that looks for all its files, but for the tools beside them."""

    async def ask(method: str, members: bytes, cap: int) -> bytes:
        if method == "resources/list":
            await sleep_forever()
        pages: dict[str, Any] = {
            "tools/list": {"tools": [{"name": "a"}]},
            "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "x:{id}"}]},
        }
        return encode(pages[method])

    found = await all_offered(ask, ListingLimits(others_s=0.01), {"resources"})
    assert [item["name"] for item in found] == ["a", "resources/x:{id}"]
