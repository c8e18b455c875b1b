"""Names of tools on the aggregate wire, and what a pin covers."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tool import definition_digest
from tests.evidence import make_tool

NAMES = st.text("abcXYZ019_-./ é", min_size=1, max_size=80)


def test_plain_names_are_joined() -> None:
    """``server__tool``, as clients know it from other aggregators."""
    assert make_tool("find_order", server="erp").wire_name == "erp__find_order"


@given(NAMES, NAMES)
def test_wire_names_fit_every_client_and_stay_apart(one: str, other: str) -> None:
    """At most 64 letters, digits, ``_`` and ``-``; different tools never share one."""
    first, second = (make_tool(name, server="erp").wire_name for name in (one, other))
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first)
    assert (first == second) is (one == other)


def test_a_long_name_ends_in_a_hash() -> None:
    """It stays readable and stays the same."""
    assert re.fullmatch(r"erp__x+_[0-9a-f]{10}", make_tool("x" * 90, server="erp").wire_name)


@pytest.mark.parametrize(
    "other",
    [
        ("b", "mcp", "u", {"name": "x"}),
        ("a", "sql", "u", {"name": "x"}),
        ("a", "mcp", "v", {"name": "x"}),
        ("a", "mcp", "u", {"name": "x", "description": "y"}),
        ("a", "mcp", "u", {"name": "x", "inputSchema": {"minimum": 0.5}}),
    ],
)
def test_a_pin_covers_where_and_what(other: tuple[str, str, str, dict[str, object]]) -> None:
    """Another server, connector, address or word of the definition is another tool."""
    assert definition_digest("a", "mcp", "u", {"name": "x"}) != definition_digest(*other)


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=4), max_leaves=12
)
DEFINITIONS = st.fixed_dictionaries(
    {"name": st.text(max_size=6), "description": st.text(max_size=12), "inputSchema": VALUES},
    optional={"annotations": VALUES, "outputSchema": VALUES, "title": st.text(max_size=5), "_meta": VALUES},
)


def reordered(value: Any) -> Any:
    """The same JSON value, its objects' members in another order."""
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.requirement("TOOL-9")
@given(DEFINITIONS, st.sampled_from(["name", "description", "inputSchema", "annotations", "new"]), VALUES)
def test_any_change_of_a_member_is_another_digest_and_no_order_is(
    definition: dict[str, Any], member: str, value: Any
) -> None:
    """What is quarantined is what differs as JSON, and nothing else."""
    digest = definition_digest("a", "mcp", "u", {"tool": definition, "binding": {}})
    assert digest == definition_digest("a", "mcp", "u", {"binding": {}, "tool": reordered(definition)})
    changed = definition | {member: value}
    is_same = json.dumps(changed, sort_keys=True) == json.dumps(definition, sort_keys=True)
    assert (digest == definition_digest("a", "mcp", "u", {"tool": changed, "binding": {}})) is is_same
