"""The official SDKs in processes of their own, that have a URL and a token, at tools of all kinds."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import venvs
from tests.e2e.house import House
from tests.gateways import by_script

CLIENTS = Path(__file__).parent / "clients"
# Client, virtual environment, further words, and the revision they agree on.
SDKS = {
    "sdk 1": ("sdk1.py", "mcp1", (), "2025-11-25"),
    "sdk 2": ("sdk2.py", "mcp2", (), "2026-07-28"),
    "sdk 2 as legacy": ("sdk2.py", "mcp2", ("legacy",), "2025-11-25"),
}
SERVERS = ("api", "books", "erp", "new", "old", "time")


def spoken(house: House, client: tuple[str, str], agent: str, *words: str) -> Any:
    """What a client of another environment says as ``agent``."""
    script, venv = client
    return by_script(venvs.python(venv), CLIENTS / script, house.gateway, house.gateway.token(agent=agent), *words)


@pytest.mark.requirement("TEST-3", "TOOL-7", "SCOPE-1")
@pytest.mark.parametrize("name", SDKS)
def test_the_official_sdk_works_through_the_door(house: House, name: str) -> None:
    """It lists what it may see and calls all kinds of tools; refusals are text a model can read, or its own errors.

    At one server's endpoint the tools have their own names, and only that server's are to be had.
    """
    script, venv, words, version = SDKS[name]
    everywhere: list[Any] = [
        ["erp__find_order", {"number": "PO-1"}],
        ["time__get_current_time", {"timezone": "Europe/Vienna"}],
        ["books__read_query", {"query": "SELECT title FROM books"}],
        ["old__add", {"a": 1, "b": 2}],
        ["new__add", {"a": 1, "b": 2}],
        ["api__thing", {"id": "seven"}],
        ["api__letter", {"text": "pay"}],
        ["erp__find_order", {"number": 1}],
        ["erp__purge_orders", {}],
        ["erp__no_such_tool", {}],
    ]
    own: list[Any] = [["find_order", {"number": "PO-1"}], ["purge_orders", {}], ["api__thing", {"id": "7"}]]
    talks = json.dumps([["/mcp", everywhere], ["/servers/erp/mcp", own]])
    said, said_there = spoken(house, (script, venv), f"sdk-{name.replace(' ', '-')}", talks, *words)
    assert said["version"] == said_there["version"] == version
    assert {tool.partition("__")[0] for tool in said["tools"]} == {*SERVERS, "gateway"}
    assert "erp__purge_orders" not in said["tools"]
    order, clock, books, old, new, thing, letter, wrong, hidden, missing = said["answers"]
    assert order["structured"]["rows"] == [{"number": "PO-1", "vendor": "V-7", "total": 400000, "currency": "EUR"}]
    assert json.loads(clock["texts"][0])["timezone"] == "Europe/Vienna"
    assert "The Door" in books["texts"][0]
    assert json.loads(old["texts"][0]) == json.loads(new["texts"][0]) == {"sum": 3}
    assert thing["structured"] == {"id": "seven"}
    assert not any(answer["is_error"] for answer in (order, clock, books, old, new, thing))
    for refused, code in ((letter, "denied"), (wrong, "invalid_arguments")):
        assert refused["is_error"]
        assert refused["structured"] is None
        assert json.loads(refused["texts"][0])["error"] == code
    assert json.loads(letter["texts"][0])["reasons"][0]["id"] == "limits.calls_per_run"
    assert hidden == missing == {"code": -32602, "message": "no such tool"}
    assert set(said_there["tools"]) == {"add_note", "find_order", "stage_invoice", "take_ticket"}
    found, hidden, foreign = said_there["answers"]
    assert found["structured"]["row_count"] == 1
    assert hidden["code"] == foreign["code"] == -32602
