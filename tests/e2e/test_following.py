"""A real server's resource is followed through a real gateway by clients of both eras, and by nobody else."""

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


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """The gateway before the conformance suite's server."""
    with http_server(venvs.python("mcp2"), "mcp_suite.py") as url:
        (tmp_path / "gateway.toml").write_text(SETTINGS.read_text("utf-8").replace("@UPSTREAM@", url), "utf-8")
        with serving(tmp_path) as running:
            yield running


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
    assert "Traceback" not in gateway.words()
