"""Calls that come with a head that came before, written like the one before: nobody can tell the difference."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.heads import HEAD, LENGTH, Head, head_of
from tests.edge_world import META, URL, Edge, modern, rpc
from tests.fakes.upstream import STOCK, tool

pytestmark = pytest.mark.anyio
_STOCK = {"name": "erp__stock", "arguments": {"sku": "A-1"}}


class Keeping:
    """Hands the head of an earlier request on where nothing in it differs, as the server does."""

    def __init__(self, app: ASGIApp) -> None:
        """None came yet."""
        self._app = app
        self.heads: dict[tuple[Any, ...], Head] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        fields = tuple(field for field in scope["headers"] if field[0] != LENGTH)
        scope[HEAD] = self.heads.setdefault(fields, head_of(scope))
        await self._app(scope, receive, send)

    def client(self) -> httpx.AsyncClient:
        """One client."""
        fields = {"authorization": "Bearer good"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self), base_url=URL, headers=fields)

    @property
    def known(self) -> int:
        """How many heads have calls that are known by how they are written."""
        return sum(head.known is not None for head in self.heads.values())


def plain(params: Mapping[str, Any], request_id: int) -> dict[str, Any]:
    """A call of the handshake era."""
    return {"json": rpc("tools/call", params, request_id), "headers": {"mcp-protocol-version": "2025-11-25"}}


def fresh(params: Mapping[str, Any], request_id: int) -> dict[str, Any]:
    """A call of the stateless era."""
    given = modern("tools/call", params)
    return {"json": given["json"] | {"id": request_id}, "headers": given["headers"]}


@pytest.mark.parametrize("asked", [plain, fresh])
async def test_each_call_is_one_of_its_own(asked: Any) -> None:
    """Id and arguments are each request's own, and so is its record; the rest is what was said before."""
    edge = Edge()
    keeping = Keeping(edge.app)
    async with keeping.client() as client:
        for number in range(5):
            params = {**_STOCK, "arguments": {"sku": f"A-{number}"}}
            answer = (await client.post("/mcp", **asked(params, number))).json()
            assert answer["id"] == number
            assert "result" in answer
            assert keeping.known == (number > 0)
    sent = [lease.intent.call for lease in edge.world.connector.sent]
    assert [call.arguments.value for call in sent] == [{"sku": f"A-{number}"} for number in range(5)]
    assert len({call.id for call in sent}) == 5
    assert len({tuple(call.client.items()) for call in sent}) == 1
    assert edge.records() == ["tool.requested", "tool.completed"] * 5


@pytest.mark.requirement("CLEAN-1")
@pytest.mark.parametrize("asked", [plain, fresh])
async def test_what_is_refused_is_refused_as_ever(asked: Any) -> None:
    """Arguments that say a thing twice, a token that is good no more: nothing is taken as known."""
    edge = Edge()
    keeping = Keeping(edge.app)
    async with keeping.client() as client:
        for number in range(3):
            assert "result" in (await client.post("/mcp", **asked(_STOCK, number))).json()
        given = asked(_STOCK, 4)
        twice = json.dumps(given["json"], separators=(",", ":")).replace('{"sku":"A-1"}', '{"sku":"A-1","sku":"A-2"}')
        fields = given["headers"] | {"content-type": "application/json"}
        answer = await client.post("/mcp", content=twice, headers=fields)
        assert answer.json()["error"]["data"]["cause"] == "duplicate_key"
        assert answer.json()["id"] == 4
        del edge.world.identity.tokens["good"]
        assert (await client.post("/mcp", **asked(_STOCK, 5))).status_code == 401
    assert len(edge.world.connector.sent) == 3


async def test_a_header_is_held_to_each_body() -> None:
    """What was in order with a body says nothing of another body: a header that does not equal it is a fault."""
    edge = Edge()
    keeping = Keeping(edge.app)
    async with keeping.client() as client:
        for number in range(3):
            assert "result" in (await client.post("/mcp", **fresh(_STOCK, number))).json()
        given = fresh(_STOCK, 3)
        for other in (
            rpc("tools/call", {"name": "erp__order", "arguments": {}, "_meta": META}, 3),
            rpc("prompts/get", {**_STOCK, "_meta": META}, 3),
            rpc("tools/call", {**_STOCK, "_meta": META | {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}}, 3),
        ):
            answer = (await client.post("/mcp", json=other, headers=given["headers"])).json()
            assert (answer["id"], answer["error"]["data"]["cause"]) == (3, "header")
    assert len(edge.world.connector.sent) == 3


async def test_a_session_is_asked_for_with_each_call() -> None:
    """A call that is known by its writing is one of a session for as long as that lasts."""
    edge = Edge()
    keeping = Keeping(edge.app)
    async with keeping.client() as client:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        fields = {
            "mcp-session-id": (await client.post("/mcp", json=rpc("initialize", params))).headers["mcp-session-id"]
        }
        for number in range(3):
            answer = await client.post("/mcp", json=rpc("tools/call", _STOCK, number), headers=fields)
            assert "result" in answer.json()
        assert (await client.delete("/mcp", headers=fields)).status_code == 204
        answer = await client.post("/mcp", json=rpc("tools/call", _STOCK, 3), headers=fields)
        assert answer.status_code == 404
    assert {lease.intent.call.client["name"] for lease in edge.world.connector.sent} == {"c"}
    assert len(edge.world.connector.sent) == 3


async def test_a_client_that_writes_each_call_otherwise_is_looked_at_no_more() -> None:
    """Each is read at length; after a while none is learned, and what was is kept."""
    edge = Edge()
    keeping = Keeping(edge.app)
    async with keeping.client() as client:
        for number in range(40):
            params = {**_STOCK, "_meta": {"n": number}}
            assert "result" in (await client.post("/mcp", **plain(params, number))).json()
    (head,) = keeping.heads.values()
    assert head.known is not None
    assert head.known.said.meta == {"n": 31}


@pytest.mark.parametrize("asked", [plain, fresh])
async def test_a_new_generation_of_the_catalogue_is_noticed_at_once(asked: Any) -> None:
    """What a name stands for is asked anew: the tool that has it now is the one that is called."""
    edge = Edge()
    keeping, odd = Keeping(edge.app), tool("erp.stock (today)")
    params = {"name": odd.wire_name, "arguments": {}}
    async with keeping.client() as client:
        early = [(await client.post("/mcp", **asked(params, number))).json() for number in range(3)]
        assert keeping.known == 1
        edge.world.catalog.restock(STOCK, odd)
        there = (await client.post("/mcp", **asked(params, 3))).json()
        edge.world.catalog.restock(STOCK)
        late = (await client.post("/mcp", **asked(params, 4))).json()
    assert ["unknown_tool" in json.dumps(answer) for answer in (*early, there, late)] == [True] * 3 + [False, True]
    assert [lease.intent.call.tool for lease in edge.world.connector.sent] == [odd.fqn]
