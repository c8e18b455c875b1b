"""The bridge before a gateway of one line: no line of a client's ends it."""

import io
import json
from typing import Any

import anyio
import httpx
import pytest

from gateway.cli.client import bridge
from gateway.cli.client.door import Door

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": META}}


class Answering(Door):
    """A gateway that answers everything."""

    def client(self) -> httpx.AsyncClient:
        """A client of it."""
        return httpx.AsyncClient(base_url=self.url, transport=httpx.MockTransport(_answer))


def _answer(request: httpx.Request) -> httpx.Response:
    named = json.loads(request.content or b"{}").get("id")
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": named, "result": {"tools": []}})


def heard(*lines: dict[str, Any]) -> dict[Any, Any]:
    """What the client hears, by the id it is an answer to."""
    source, sink = io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)), io.BytesIO()
    anyio.run(bridge.run, Answering("http://gateway", "/mcp", lambda _: "token"), source, sink)
    answers = [json.loads(line) for line in sink.getvalue().splitlines()]
    return {answer["id"]: answer for answer in answers}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"_meta": META, "name": ["x"]}),
        ("tools/call", {"_meta": META, "name": "\ud800"}),
        ("tools/caf\u00e9", {"_meta": META}),
        ("tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": "\u2026"}}),
    ],
)
def test_a_request_that_cannot_be_carried_is_answered_and_the_next_one_is_carried(
    method: str, params: dict[str, Any]
) -> None:
    """Names that are none, and characters that no header field carries."""
    answers = heard({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, LIST)
    assert answers[2]["result"] == {"tools": []}
    assert 1 in answers


def test_a_notification_that_means_nothing_ends_nothing() -> None:
    """A cancellation of what is no request's id."""
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": [1]}}
    assert heard(cancelled, LIST)[2]["result"] == {"tools": []}
