"""The reference servers of MCP behind one gateway: from npm and from PyPI, of both eras, started by command."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.market_house import PAGE, Market

NPM = ("everything", "files", "memory")


@dataclass(frozen=True)
class Stall:
    """What is tried of one server.

    Attributes:
        offers: tools that it has, among others.
        good: a call that is carried out.
        says: what its result must be like, given as the text of its first block.
        denied: a call that policy denies, with what it says must be done instead.
        malformed: a call that the server's own schema forbids.
        untouched: what a denied call that was carried out all the same would have changed.
    """

    offers: frozenset[str]
    good: tuple[str, Mapping[str, Any]]
    says: Callable[[str], bool]
    denied: tuple[str, Mapping[str, Any], str]
    malformed: tuple[str, Mapping[str, Any]]
    untouched: Callable[[Market], bool] = lambda _: True


def staged(market: Market) -> bool:
    """Whether the repository's new file is still staged."""
    folder = str(market.folder / "repository")
    done = subprocess.run(["git", "-C", folder, "status", "--short"], capture_output=True, text=True, check=True)
    return done.stdout == "A  staged.txt\n"


def remembers(market: Market) -> bool:
    """Whether the memory holds what was put into it."""
    return "a gate" in (market.folder / "memory.jsonl").read_text()


# Arguments hold @FOLDER@ and @SITE@, which are filled in.
STALLS = {
    "books": Stall(
        frozenset({"read_query", "write_query", "list_tables", "describe_table"}),
        ("read_query", {"query": "SELECT title FROM books WHERE title LIKE '%Door'"}),
        lambda text: text == "[{'title': 'The Door'}]",
        ("create_table", {"query": "CREATE TABLE more (x)"}, "tables are made by migrations"),
        ("read_query", {"query": ["SELECT 1"]}),
        lambda market: b"more" not in (market.folder / "books.sqlite").read_bytes(),
    ),
    "fetch": Stall(
        frozenset({"fetch"}),
        ("fetch", {"url": "@SITE@/page.txt", "raw": True}),
        lambda text: PAGE.strip() in text,
        ("fetch", {"url": "http://169.254.169.254/latest/meta-data"}, "the cloud's metadata is not fetched"),
        ("fetch", {"url": "@SITE@/page.txt", "max_length": 0}),
    ),
    "git": Stall(
        frozenset({"git_status", "git_log", "git_commit", "git_reset"}),
        ("git_log", {"repo_path": "@FOLDER@/repository"}),
        lambda text: "the first" in text,
        ("git_reset", {"repo_path": "@FOLDER@/repository"}, "what is staged stays staged"),
        ("git_log", {}),
        staged,
    ),
    "time": Stall(
        frozenset({"get_current_time", "convert_time"}),
        ("get_current_time", {"timezone": "Asia/Tokyo"}),
        lambda text: json.loads(text)["datetime"].endswith("+09:00"),
        (
            "convert_time",
            {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "Europe/Vienna"},
            "times are kept in UTC",
        ),
        ("get_current_time", {"timezone": 9}),
    ),
    "everything": Stall(
        frozenset({"echo", "get-sum", "get-env", "get-structured-content"}),
        # The server tells its whole environment: there is nothing of the gateway's in it.
        ("get-env", {}),
        lambda text: set(json.loads(text)) == {"PATH"},
        ("trigger-long-running-operation", {"duration": 60}, "nobody waits here"),
        ("get-sum", {"a": "one", "b": 2}),
    ),
    "files": Stall(
        frozenset({"read_text_file", "write_file", "move_file", "list_directory"}),
        ("read_text_file", {"path": "@FOLDER@/files/prices.txt", "head": 1}),
        lambda text: text == "apples 3",
        (
            "move_file",
            {"source": "@FOLDER@/files/prices.txt", "destination": "@FOLDER@/files/lost.txt"},
            "files stay where they are",
        ),
        ("read_text_file", {"path": "@FOLDER@/files/prices.txt", "head": "one"}),
        lambda market: (market.folder / "files" / "prices.txt").exists(),
    ),
    "memory": Stall(
        frozenset({"create_entities", "read_graph", "delete_entities"}),
        ("create_entities", {"entities": [{"name": "Janus", "entityType": "god", "observations": ["has a gate"]}]}),
        lambda text: json.loads(text)[0]["name"] == "Janus",
        ("delete_entities", {"entityNames": ["Janus"]}, "nothing is forgotten"),
        ("create_entities", {"entities": [{"name": "Janus"}]}),
        remembers,
    ),
}


def filled(arguments: Mapping[str, Any], market: Market) -> dict[str, Any]:
    """The arguments with this test's places in them."""
    text = json.dumps(arguments).replace("@FOLDER@", str(market.folder)).replace("@SITE@", market.site)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.requirement("TOOL-7", "TOOL-8")
@pytest.mark.parametrize("name", STALLS)
def test_a_reference_server_is_governed_as_it_comes(market: Market, name: str) -> None:
    """Its tools are listed; a call gives the server's own result; what is denied or malformed never reaches it.

    The denied agent reads what to do instead; the log holds one intent, that of the call that was carried out.
    """
    if name in NPM and market.modules is None:
        pytest.skip("the npm packages are missing: reference servers from npm are not tried (Debian: apt install npm)")
    stall, gateway = STALLS[name], market.gateway
    run_id, token = gateway.run(f"buyer-at-{name}")
    with gateway.client(token) as agent:
        listed = {tool["name"] for tool in agent.get("/v1/tools").json()["tools"]}
        assert {f"{name}.{tool}" for tool in stall.offers} <= listed
        assert "git.git_checkout" not in listed
        tool, arguments = stall.good
        good = agent.post(f"/v1/tools/{name}.{tool}/call", json={"arguments": filled(arguments, market)})
        tool, arguments, instead = stall.denied
        denied = agent.post(f"/v1/tools/{name}.{tool}/call", json={"arguments": filled(arguments, market)})
        tool, arguments = stall.malformed
        malformed = agent.post(f"/v1/tools/{name}.{tool}/call", json={"arguments": filled(arguments, market)})
    assert good.status_code == 200, good.text
    assert stall.says(good.json()["result"]["content"][0]["text"]), good.text
    assert (denied.status_code, denied.json()["type"]) == (403, "urn:ostiary:problem:denied")
    assert instead in denied.json()["reasons"][0]["msg"]
    assert (malformed.status_code, malformed.json()["type"]) == (422, "urn:ostiary:problem:invalid_arguments")
    assert stall.untouched(market)
    intents = gateway.records(run_id=run_id, type="tool.requested")
    assert [record["body"]["tool"] for record in intents] == [f"{name}.{stall.good[0]}"]
