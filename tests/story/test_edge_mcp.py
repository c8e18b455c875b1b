"""Conversations with the MCP endpoints, in both eras, and what bad input gets."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.core.errors import GatewayError, InvalidArguments, NotSent, OutcomeUnknown, Tainted, Unavailable
from gateway.edge.mcp import eras
from tests.edge_world import META, NEWEST, Edge, Raw, modern, rpc, told
from tests.fakes.rules import DENY
from tests.fakes.upstream import STOCK

JSON = {"content-type": "application/json"}


async def opened(client: httpx.AsyncClient, path: str = "/mcp", version: str = "2025-11-25") -> dict[str, str]:
    """Shake hands; returns the headers of the session."""
    answer = await client.post(path, json=rpc("initialize", {"protocolVersion": version, "capabilities": {}}))
    assert answer.status_code == 200
    return {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": version}


async def test_a_handshake_conversation() -> None:
    """initialize, initialized, ping, list and call work; the session id reaches the call."""
    edge = Edge()
    async with edge.client() as client:
        session = await opened(client)
        noted = await client.post(
            "/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session
        )
        assert (noted.status_code, noted.content) == (202, b"")
        assert (await client.post("/mcp", json=rpc("ping"), headers=session)).json()["result"] == {}
        page = (await client.post("/mcp", json=rpc("tools/list"), headers=session)).json()["result"]
        assert [tool["name"] for tool in page["tools"]] == [
            "erp__stock",
            "erp__order",
            "bank__pay",
            "erp__wipe",
            "gateway__wait_approval",
        ]
        assert page.keys() == {"tools"}
        answer = await client.post("/mcp", json=rpc("tools/call", {"name": "erp__stock"}, "a"), headers=session)
        assert answer.json()["id"] == "a"
        assert answer.json()["result"]["content"][0]["text"] == "42 in stock"
        assert answer.headers["ostiary-call-id"]
    call = edge.world.connector.sent[0].intent.call
    assert (call.tool, call.session, call.client["protocol"]) == ("erp.stock", session["mcp-session-id"], "2025-11-25")


async def test_a_stateless_conversation() -> None:
    """discover, list and call work without a session; results have the members the revision requires."""
    edge = Edge()
    async with edge.client() as client:
        found = (await client.post("/mcp", **modern("server/discover"))).json()["result"]
        assert found["supportedVersions"] == [NEWEST]
        assert found["capabilities"] == {
            "logging": {},
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
        }
        page = (await client.post("/mcp", **modern("tools/list"))).json()["result"]
        for result in (found, page):
            assert result["resultType"] == "complete"
            assert result["cacheScope"] == "private"
            assert result["ttlMs"] >= 0
        answer = await client.post("/mcp", **modern("tools/call", {"name": "erp__stock", "arguments": {"sku": "A"}}))
        assert answer.json()["result"]["resultType"] == "complete"
        assert "mcp-session-id" not in answer.headers
    call = edge.world.connector.sent[0].intent.call
    assert (call.session, call.client["name"], call.arguments.value) == (None, "test", {"sku": "A"})


async def test_a_server_of_its_own() -> None:
    """At /servers/NAME/mcp names are the upstream's; a server of which nothing may be seen does not exist."""
    edge = Edge()
    edge.world.policy.words["list", "bank.pay"] = DENY
    async with edge.client() as client:
        page = (await client.post("/servers/erp/mcp", json=rpc("tools/list"))).json()["result"]
        assert [tool["name"] for tool in page["tools"]] == ["stock", "order", "wipe"]
        hidden = [await client.post("/servers/bank/mcp", json=rpc(m)) for m in ("tools/list",)]
        unknown = [await client.post("/servers/nosuch/mcp", json=rpc(m)) for m in ("tools/list",)]
        hello = rpc("initialize", {"protocolVersion": "2025-11-25"})
        hidden.append(await client.post("/servers/bank/mcp", json=hello))
        unknown.append(await client.post("/servers/nosuch/mcp", json=hello))
        for one, other in zip(hidden, unknown, strict=True):
            assert one.status_code == other.status_code == 404
            assert one.json()["error"]["message"] == other.json()["error"]["message"]


async def test_hidden_and_unknown_tools_look_the_same() -> None:
    """Neither gives reasons; in both eras it is the protocol's error for unknown tools."""
    edge = Edge()
    edge.world.policy.words["list", "bank.pay"] = DENY
    async with edge.client() as client:
        for era in (False, True):
            errors = []
            for name in ("bank__pay", "bank__nosuch"):
                params: dict[str, Any] = {"name": name, "arguments": {}}
                post: dict[str, Any] = modern("tools/call", params) if era else {"json": rpc("tools/call", params)}
                answer = await client.post("/mcp", **post)
                assert answer.status_code == (400 if era else 200)
                error = answer.json()["error"]
                del error["data"]["call_id"]
                errors.append(error)
            assert errors[0] == errors[1]
            assert errors[0]["code"] == -32602


async def test_a_denial_teaches() -> None:
    """A denied call of a visible tool is a text-only result with rule id, message and how to ask further."""
    edge = Edge()
    edge.world.policy.words["call", "erp.order"] = DENY
    async with edge.client() as client:
        for post in (modern("tools/call", {"name": "erp__order"}), {"json": rpc("tools/call", {"name": "erp__order"})}):
            answer = await client.post("/mcp", **post)
            said = told(answer)
            assert answer.status_code == 200
            assert said["error"] == "denied"
            assert said["reasons"] == [{"id": "test.deny", "msg": "the test denies it"}]
            assert (
                said["explain"]
                == f"ostiary explain {said['call_id']}"
                == f"ostiary explain {answer.headers['ostiary-call-id']}"
            )
    assert not edge.world.connector.sent


@pytest.mark.parametrize(
    "error",
    [NotSent("down"), Unavailable("closed", retry_after=3), OutcomeUnknown("lost"), Tainted("bad output")],
    ids=lambda error: error.code,
)
async def test_what_a_model_can_act_on_is_a_result(error: GatewayError) -> None:
    """Failures behind the door reach the model as text, with the time to wait where there is one."""
    edge = Edge()
    edge.world.journal.fail("catalog.invoke", error)
    async with edge.client() as client:
        answer = await client.post("/mcp", **modern("tools/call", {"name": "erp__stock"}))
    said = told(answer)
    assert (said["error"], said["message"]) == (error.code, error.detail)
    assert said.get("retry_after") == error.retry_after
    assert answer.json()["result"]["resultType"] == "complete"


async def test_bad_arguments_are_for_the_model() -> None:
    """A schema fault is an ``isError`` result, after policy let the caller see the tool."""
    edge = Edge()
    edge.world.catalog.faults["erp.stock"] = InvalidArguments("sku is missing", cause_code="schema")
    async with edge.client() as client:
        said = told(await client.post("/mcp", json=rpc("tools/call", {"name": "erp__stock"})))
    assert (said["error"], said["cause"], said["message"]) == ("invalid_arguments", "schema", "sku is missing")


def call_with(arguments: bytes) -> bytes:
    """A handshake-era call with these argument bytes."""
    head = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"erp__stock","arguments":'
    return head + arguments + b"}}"


BAD = {
    "not json": (b"{bad", 400, -32700, None),
    "empty": (b"", 400, -32700, None),
    "not utf-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', 400, -32700, None),
    "batch": (b"[]", 400, -32600, None),
    "scalar": (b"3", 400, -32600, None),
    "no version": (b'{"id":1,"method":"ping"}', 400, -32600, None),
    "null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600, None),
    "float id": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', 400, -32600, None),
    "half a character for an id": (b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', 400, -32700, None),
    "list params": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 400, -32600, None),
    "duplicate keys": (call_with(b'{"a":1,"a":2}'), 200, -32700, 7),
    "colliding keys": (call_with(b'{"a":1,"A":2}'), 200, -32700, 7),
    "NaN": (call_with(b'{"a":NaN}'), 200, -32700, 7),
    "NUL": (call_with(b'{"a":"\\u0000"}'), 200, -32700, 7),
    "lone surrogate": (call_with(b'{"a":"\\ud800"}'), 200, -32700, 7),
    "huge number": (call_with(b'{"a":1e999}'), 200, -32700, 7),
    "depth bomb": (call_with(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"), 200, -32600, 7),
    "deeper bomb": (call_with(b"[" * 100_000 + b"]" * 100_000), 413, -32600, None),
    "arguments a list": (call_with(b"[]"), 200, -32602, 7),
    "no name": (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}', 200, -32602, 7),
    "cursor": (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"cursor":"x"}}', 200, -32602, 7),
    "too long": (b'"' + b"x" * (5 * 1024 * 1024) + b'"', 413, -32600, None),
}


@pytest.mark.requirement("CLEAN-2")
@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_refused_clearly_and_recorded_once(case: str) -> None:
    """Nothing is executed; an authenticated caller leaves one record, an unauthenticated one none."""
    body, status, code, request_id = BAD[case]
    edge = Edge()
    async with edge.client() as client:
        answer = await client.post("/mcp", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (status, code, request_id)
    assert edge.records() == ["call.refused"]
    async with edge.client(None) as client:
        assert (await client.post("/mcp", content=body, headers=JSON)).status_code == 401
    assert len(edge.records()) == 1
    assert not edge.world.connector.sent
    assert edge.world.meter.counts["unauthenticated:missing"] == 1


@pytest.mark.parametrize(
    ("headers", "meta", "code"),
    [
        ({"mcp-method": "tools/list"}, META, -32020),
        ({"mcp-name": "erp__order"}, META, -32020),
        ({"mcp-name": "=?base64?!!?="}, META, -32020),
        ({"mcp-protocol-version": "2025-11-25"}, META, -32020),
        ({"mcp-protocol-version": "1999-01-01"}, META, -32020),
        (
            {"mcp-protocol-version": "1999-01-01"},
            META | {"io.modelcontextprotocol/protocolVersion": "1999-01-01"},
            -32022,
        ),
        ({}, {}, -32602),
        ({}, {"io.modelcontextprotocol/protocolVersion": NEWEST}, -32602),
    ],
)
async def test_headers_must_repeat_the_body(headers: dict[str, str], meta: dict[str, Any], code: int) -> None:
    """A stateless request whose headers or ``_meta`` do not fit is refused with the revision's own code."""
    edge = Edge()
    post = modern("tools/call", {"name": "erp__stock"}, **headers)
    post["json"]["params"]["_meta"] = meta
    async with edge.client() as client:
        answer = await client.post("/mcp", **post)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    if code == -32022:
        assert answer.json()["error"]["data"]["supported"] == [NEWEST]
    assert edge.records() == ["call.refused"]


async def test_headers_may_not_be_missing_or_doubled() -> None:
    """A missing method header, and one that came twice, are mismatches."""
    edge = Edge()
    post = modern("tools/call", {"name": "erp__stock"})
    async with edge.client() as client:
        doubled = [*post["headers"].items(), ("mcp-method", "tools/call")]
        answer = await client.post("/mcp", json=post["json"], headers=doubled)
        assert answer.json()["error"]["code"] == -32020
        del post["headers"]["mcp-method"]
        assert (await client.post("/mcp", **post)).json()["error"]["code"] == -32020


async def test_parameter_headers_are_checked_for_those_who_see_the_tool() -> None:
    """``Mcp-Param-*`` must equal the argument; about a hidden tool the check says nothing."""
    edge = Edge()
    schema = {"type": "object", "properties": {"sku": {"type": "string", "x-mcp-header": "Sku"}}}
    edge.world.catalog.shelf = (replace(STOCK, definition={"name": "stock", "inputSchema": schema}),)
    params = {"name": "erp__stock", "arguments": {"sku": "A"}}
    async with edge.client() as client:
        good = await client.post("/mcp", **modern("tools/call", params, **{"mcp-param-sku": "A"}))
        assert "result" in good.json()
        for wrong in ({"mcp-param-sku": "B"}, {}):
            answer = await client.post("/mcp", **modern("tools/call", params, **wrong))
            assert answer.json()["error"]["code"] == -32020
        edge.world.policy.words["list", "erp.stock"] = DENY
        answer = await client.post("/mcp", **modern("tools/call", params))
        assert answer.json()["error"]["code"] == -32602


async def test_a_hidden_tool_that_wants_headers_costs_what_a_name_of_no_tool_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were more asked or read because of its headers, the time that takes would tell that there is such a tool."""
    read: list[Any] = []
    monkeypatch.setattr(eras, "param_fields", read.append)
    schema = {"type": "object", "properties": {"sku": {"type": "string", "x-mcp-header": "Sku"}}}
    asked = {}
    for name in ("erp__stock", "erp__nothing"):
        edge = Edge()
        edge.world.catalog.shelf = (replace(STOCK, definition={"name": "stock", "inputSchema": schema}),)
        edge.world.policy.words["list", "erp.stock"] = DENY
        async with edge.client() as client:
            post = modern("tools/call", {"name": name, "arguments": {"sku": "A"}}, **{"mcp-param-sku": "B"})
            assert (await client.post("/mcp", **post)).json()["error"]["code"] == -32602
        asked[name] = (edge.world.policy.questions, edge.records(), edge.world.journal.steps)
    assert asked["erp__stock"] == asked["erp__nothing"]
    assert (asked["erp__stock"][0], read) == (1, [])


async def test_methods_and_media_are_checked() -> None:
    """Other methods are not found with the era's status; GET has no stream; wrong types are 415 and 406."""
    edge = Edge()
    async with edge.client() as client:
        assert (await client.get("/mcp")).status_code == 405
        assert (await client.get("/mcp")).headers["allow"] == "POST"
        old = await client.post("/mcp", json=rpc("resources/none"))
        new = await client.post("/mcp", **modern("resources/none"))
        assert (old.status_code, new.status_code) == (200, 404)
        assert old.json()["error"]["code"] == new.json()["error"]["code"] == -32601
        assert edge.records() == []
        assert (await client.post("/mcp", content=b"{}", headers={"content-type": "text/plain"})).status_code == 415
        wrong = JSON | {"content-encoding": "gzip"}
        assert (await client.post("/mcp", content=b"{}", headers=wrong)).status_code == 415
        no_json = {"accept": "text/html"}
        assert (await client.post("/mcp", json=rpc("ping"), headers=no_json)).status_code == 406


async def test_messages_without_an_answer() -> None:
    """Notifications are accepted and dropped, but no call; a posted answer belongs to no request of ours."""
    edge = Edge()
    answer = {"jsonrpc": "2.0", "id": 1, "result": {}}
    note = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "erp__stock"}}
    async with edge.client() as client:
        assert (await client.post("/mcp", json=answer)).status_code == 202
        refused = await client.post("/mcp", json=note)
        assert (refused.status_code, refused.json()["id"]) == (400, None)
        assert edge.records() == ["call.refused"]
        note["method"] = "notifications/initialized"
        assert (await client.post("/mcp", json=note)).status_code == 202
        newest = {"mcp-protocol-version": NEWEST}
        assert (await client.post("/mcp", json=answer, headers=newest)).status_code == 400
        assert (await client.post("/mcp", json=note, headers=newest)).status_code == 202
        lost = await client.post("/mcp", json=note, headers={"mcp-protocol-version": "1999-01-01"})
        assert lost.json()["error"]["code"] == -32022
    assert not edge.world.connector.sent


async def test_a_session_belongs_to_its_principal() -> None:
    """Another principal's, another endpoint's, an ended and an idle session do not exist."""
    edge = Edge()
    async with edge.client() as client, edge.client("other") as thief:
        session = await opened(client)
        assert (await thief.post("/mcp", json=rpc("ping"), headers=session)).status_code == 404
        assert (await thief.delete("/mcp", headers=session)).status_code == 404
        assert (await client.post("/servers/erp/mcp", json=rpc("ping"), headers=session)).status_code == 404
        assert (await client.post("/mcp", json=rpc("ping"), headers=session)).status_code == 200
        assert (await client.delete("/mcp", headers=session)).status_code == 204
        assert (await client.post("/mcp", json=rpc("ping"), headers=session)).status_code == 404
        assert (await client.delete("/mcp")).status_code == 405
        session = await opened(client)
        edge.world.clock.advance(1801)
        assert (await client.post("/mcp", json=rpc("ping"), headers=session)).status_code == 404


async def test_a_call_may_name_its_run() -> None:
    """By header or by ``_meta``; two different names are refused, and a run of nobody's is not found."""
    edge = Edge()
    edge.world.runs.opened["run-1"] = edge.world.runs.implicit
    named = rpc("tools/call", {"name": "erp__stock", "_meta": {"ostiary/run": "run-1"}})
    async with edge.client() as client:
        assert "result" in (await client.post("/mcp", json=named)).json()
        by_header = {"ostiary-run": "run-1"}
        assert "result" in (await client.post("/mcp", json=named, headers=by_header)).json()
        assert (await client.post("/mcp", json=named, headers={"ostiary-run": "run-2"})).json()["error"][
            "code"
        ] == -32020
        other = rpc("tools/call", {"name": "erp__stock"})
        lost = await client.post("/mcp", json=other, headers={"ostiary-run": "run-9"})
        assert lost.json()["error"]["data"]["code"] == "not_found"


async def test_results_fit_the_era() -> None:
    """Upstream bytes are kept; structured content that is no object is left out for handshake clients."""
    edge = Edge()
    edge.world.connector.result = {"content": [], "structuredContent": [1], "x": 1.0}
    async with edge.client() as client:
        old = await client.post("/mcp", json=rpc("tools/call", {"name": "erp__stock"}))
        new = await client.post("/mcp", **modern("tools/call", {"name": "erp__stock"}))
        assert old.json()["result"] == {"content": [], "x": 1.0}
        assert b'"result":{"resultType":"complete","content":[],"structuredContent":[1],"x":1.0}' in new.content
        edge.world.connector.result = {"content": [], "resultType": "input_required"}
        sly = await client.post("/mcp", **modern("tools/call", {"name": "erp__stock"}))
        assert sly.json()["result"]["resultType"] == "complete"


async def test_a_body_is_counted_while_it_streams() -> None:
    """A body in chunks, without a length, ends at the limit."""
    edge = Edge()
    chunk = {"type": "http.request", "body": b"x" * 128 * 1024, "more_body": True}
    raw = Raw(edge.app, [dict(chunk) for _ in range(6)])
    assert await raw.run() == 413
    assert len(raw.messages) == 1
    assert edge.records() == ["call.refused"]


async def test_a_client_that_leaves_while_sending_gets_nothing() -> None:
    """No answer is sent to nobody, and nothing is executed."""
    edge = Edge()
    half = {"type": "http.request", "body": b"{", "more_body": True}
    raw = Raw(edge.app, [half, {"type": "http.disconnect"}])
    assert await raw.run() == 0
    assert raw.sent == []


async def test_tokens_without_the_scope_are_refused() -> None:
    """A credential without ``tools`` is told so by HTTP, and the attempt is recorded."""
    edge = Edge()
    async with edge.client("noscope") as client:
        answer = await client.post("/mcp", json=rpc("tools/list"))
    assert answer.status_code == 403
    assert json.loads(answer.content)["error"]["data"]["cause"] == "scope"
    assert edge.records() == ["call.refused"]
