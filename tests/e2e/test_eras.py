"""Clients of one era before real servers of the other: resources that are followed, questions that park a call."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import venvs
from tests.edge_world import META, NEWEST
from tests.gateways import Gateway, serving
from tests.processes import http_server

SETTINGS = Path(__file__).parent / "conformance" / "gateway.toml"
WATCHED, OTHER = "test://watched-resource", "test://static-text"
PATH = "/servers/suite/mcp"
STREAM = {"accept": "application/json, text/event-stream"}
UPDATED, ACKNOWLEDGED = "notifications/resources/updated", "notifications/subscriptions/acknowledged"


OLD = """
[upstreams.old]
kind = "mcp"
url = "{url}"
trust = "first_use"
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway before the conformance suite's server, of both eras, and one of the handshake era only."""
    folder = tmp_path_factory.mktemp("eras")
    with (
        http_server(venvs.python("mcp2"), "mcp_suite.py") as both,
        http_server(venvs.python("mcp1"), "mcp1_http.py") as old,
    ):
        text = SETTINGS.read_text("utf-8").replace("@UPSTREAM@", both) + OLD.format(url=old)
        allowed = text.replace('"suite.*",', '"suite.*", "old.*", "old.sampling/*",')
        (folder / "gateway.toml").write_text(allowed, "utf-8")
        with serving(folder) as running:
            yield running
            assert "Traceback" not in running.words()


def asked(client: httpx.Client, method: str, params: dict[str, Any], session: dict[str, str]) -> httpx.Response:
    """A request of the handshake era."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return client.post(PATH, json=body, headers=STREAM | session)


def opened(client: httpx.Client) -> dict[str, str]:
    """A session's headers."""
    answer = asked(client, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, {})
    return {"mcp-session-id": answer.headers["mcp-session-id"]}


@contextmanager
def listening(client: httpx.Client, uris: list[str]) -> Iterator[Iterator[Any]]:
    """What a client of the stateless era hears of these resources."""
    params = {"notifications": {"resourceSubscriptions": uris}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": "s", "method": "subscriptions/listen", "params": params}
    named = {"mcp-protocol-version": NEWEST, "mcp-method": "subscriptions/listen"}
    with client.stream("POST", PATH, json=body, headers=STREAM | named) as answer:
        yield messages(answer)


def messages(answer: httpx.Response) -> Iterator[Any]:
    """The messages of an event stream, as they come."""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])


@pytest.mark.requirement("TOOL-7")
def test_a_change_upstream_reaches_who_follows_it(gateway: Gateway) -> None:
    """One by a session, one by a listening stream; each subscription is a decided call in the log."""
    with gateway.client(gateway.token(agent="suite")) as old, gateway.client(gateway.token(agent="suite")) as new:
        session, idle = opened(old), opened(old)
        assert asked(old, "resources/subscribe", {"uri": WATCHED}, session).json()["result"] == {}
        refused = asked(old, "resources/subscribe", {"uri": "test://nothing"}, session).json()["error"]
        assert refused["message"] == "no such subscription"
        with (
            listening(new, [WATCHED, "test://nothing"]) as heard,
            old.stream("GET", PATH, headers=STREAM | session) as mine,
            old.stream("GET", PATH, headers=STREAM | idle) as theirs,
        ):
            assert next(heard)["params"]["notifications"] == {"resourceSubscriptions": [WATCHED]}
            told = messages(mine)
            for uri in (OTHER, WATCHED):
                asked(old, "tools/call", {"name": "touch_resource", "arguments": {"uri": uri}}, session)
            for stream in (told, heard):
                message = next(stream)
                assert (message["method"], message["params"]["uri"]) == (UPDATED, WATCHED)
            # The stream of the other session says nothing to the end, which its own DELETE brings.
            assert old.delete(PATH, headers=idle).status_code == 204
            assert list(messages(theirs)) == []
        assert asked(old, "resources/unsubscribe", {"uri": WATCHED}, session).json()["result"] == {}
    name = f"suite.subscriptions/{WATCHED}"
    kinds = [record["type"] for record in gateway.records() if name in json.dumps(record)]
    assert kinds.count("tool.requested") == 3  # two begin, one ends
    assert kinds.count("decision") == 3


@pytest.mark.requirement("TOOL-7", "FLOW-1")
def test_a_question_of_a_handshake_server_waits_for_a_stateless_client(gateway: Gateway) -> None:
    """The answer of one request asks, the next one brings the answer, and the server's call was one and the same."""
    able = META | {"io.modelcontextprotocol/clientCapabilities": {"sampling": {}}}
    named = {"mcp-protocol-version": NEWEST, "mcp-method": "tools/call", "mcp-name": "sample"}
    last = gateway.size() - 1

    def called(client: httpx.Client, **more: Any) -> Any:
        params = {"name": "sample", "arguments": {}, "_meta": able, **more}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return client.post("/servers/old/mcp", json=body, headers=STREAM | named).json()

    said = {"role": "assistant", "model": "scripted", "content": {"type": "text", "text": "hello yourself"}}
    with gateway.client(gateway.token(agent="suite")) as client:
        asked = called(client)["result"]
        ((name, question),) = asked["inputRequests"].items()
        assert (asked["resultType"], question["method"]) == ("input_required", "sampling/createMessage")
        back = {"requestState": asked["requestState"], "inputResponses": {name: said}}
        assert called(client, **back)["result"]["content"] == [{"type": "text", "text": "sampled"}]
        assert called(client, **back)["error"]["data"]["cause"] == "request_state"
        parked = called(client)["result"]
        assert parked["resultType"] == "input_required"
    kinds = [record["type"] for record in gateway.records(after=last)]
    for kind, times in {"tool.requested": 2, "input.asked": 2, "input.answered": 1, "tool.completed": 1}.items():
        assert kinds.count(kind) == times, kinds
