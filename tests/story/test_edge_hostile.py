"""Hostile clients of the MCP endpoints, case by case as the specifications 2025-11-25 and 2026-07-28 have it."""

import json
from typing import Any

import anyio
import httpx
import pytest

from gateway.core.call import Lease
from gateway.core.call import Raw as RawResult
from tests.edge_world import META, NEWEST, Edge, modern, rpc
from tests.story.test_edge_mcp import BAD, call_with, opened

ENDPOINTS = pytest.mark.parametrize(
    ("path", "name"), [("/mcp", "erp__stock"), ("/servers/erp/mcp", "stock")], ids=["all", "one"]
)
ERAS = pytest.mark.parametrize("stateless", [False, True], ids=["2025", "2026"])
CLEAN = pytest.mark.requirement("CLEAN-2")


def call(name: str, *, stateless: bool, **params: Any) -> dict[str, Any]:
    """Keyword arguments for ``post``: a good call in either era."""
    asked = {"name": name, "arguments": {}, **params}
    return modern("tools/call", asked) if stateless else {"json": rpc("tools/call", asked), "headers": {}}


@CLEAN
@ENDPOINTS
@ERAS
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("origin", "http://evil.test")], 403),
        ([("origin", "null")], 403),
        ([("origin", "http://gateway.test"), ("origin", "http://evil.test")], 403),
        ([("host", "evil.test")], 421),
    ],
)
async def test_pages_of_others_and_rebound_names_call_nothing(
    headers: list[tuple[str, str]], status: int, path: str, name: str, *, stateless: bool
) -> None:
    """A good call with a good token is refused for where it comes from, before it is read; the answer has no id."""
    edge, good = Edge(), call(name, stateless=stateless)
    async with edge.client() as client:
        answer = await client.post(path, json=good["json"], headers=[*good["headers"].items(), *headers])
        assert answer.status_code == status
        assert "id" not in answer.json()
        assert (await client.post(path, **good)).status_code == 200
    assert len(edge.world.connector.sent) == 1


@CLEAN
@ENDPOINTS
@pytest.mark.parametrize("case", BAD)
async def test_bad_bodies_are_told_by_their_status_in_2026(case: str, path: str, name: str) -> None:
    """Oversize, depth, doubled keys, batches and what is no JSON: 400 or 413 with the code, and one record."""
    body, status, code, request_id = BAD[case]
    edge = Edge()
    headers = {"content-type": "application/json", "mcp-protocol-version": NEWEST, "mcp-method": "tools/call"}
    async with edge.client() as client:
        answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code == (400 if status == 200 else status)
    # What can be read is also short of what 2026 demands, and that is found first.
    assert answer.json()["error"]["code"] in {code, -32602}
    assert answer.json().get("id") == request_id
    assert edge.records() == ["call.refused"]
    assert not edge.world.connector.sent


@CLEAN
@ENDPOINTS
@ERAS
async def test_a_request_id_is_its_senders_own_affair(path: str, name: str, *, stateless: bool) -> None:
    """One id for several requests at once, on one connection and on others: each gets its own answer."""
    edge, here, go = Edge(), anyio.Event(), anyio.Event()
    waiting = 0
    answers: dict[str, httpx.Response] = {}

    async def slow(lease: Lease) -> RawResult:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            here.set()
        await go.wait()
        said = {"content": [], "sku": lease.intent.call.arguments.value["sku"]}
        return RawResult(lease, json.dumps(said).encode(), said)

    edge.world.catalog.connector = Slow(slow)  # type: ignore[assignment]

    async def ask(client: httpx.AsyncClient, sku: str) -> None:
        answers[sku] = await client.post(path, **call(name, stateless=stateless, arguments={"sku": sku}))

    async with edge.client() as ada, edge.client() as bob, anyio.create_task_group() as tasks:
        for client, sku in ((ada, "a"), (ada, "b"), (bob, "c")):
            tasks.start_soon(ask, client, sku)
        with anyio.fail_after(30):
            await here.wait()
        go.set()
    assert {sku: answer.json()["result"]["sku"] for sku, answer in answers.items()} == {"a": "a", "b": "b", "c": "c"}
    assert {answer.json()["id"] for answer in answers.values()} == {1}
    assert len({answer.headers["ostiary-call-id"] for answer in answers.values()}) == 3
    assert waiting == 3


class Slow:
    """A connector whose calls are carried out by ``act``."""

    def __init__(self, act: Any) -> None:
        self.invoke = act


async def test_a_session_of_another_takes_no_message_at_all() -> None:
    """Requests, notifications and answers in a foreign, ended or doubled session are refused; nothing tells which."""
    edge = Edge()
    request, note = rpc("tools/call", {"name": "erp__stock"}), {"jsonrpc": "2.0", "method": "notifications/initialized"}
    messages: list[dict[str, Any]] = [request, note, {"jsonrpc": "2.0", "id": 1, "result": {}}]
    messages.append({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}})
    async with edge.client() as ada, edge.client("other") as bob:
        session = await opened(ada)
        never = session | {"mcp-session-id": "0" * 48}
        for message in messages:
            foreign, unknown = [await bob.post("/mcp", json=message, headers=named) for named in (session, never)]
            assert (foreign.status_code, unknown.status_code) == (404, 404)
            assert foreign.json()["error"]["message"] == unknown.json()["error"]["message"]
            assert (await ada.post("/servers/erp/mcp", json=message, headers=session)).status_code == 404
            twice = [*session.items(), ("mcp-session-id", session["mcp-session-id"])]
            doubled = await ada.post("/mcp", json=message, headers=twice)
            assert doubled.status_code == (200 if message is request else 400)
            assert doubled.json()["error"]["data"]["cause"] == "session"
        assert not edge.world.connector.sent
        assert (await ada.post("/mcp", json=note, headers=session)).status_code == 202
        assert (await ada.delete("/mcp", headers=session)).status_code == 204
        for message in messages:
            assert (await ada.post("/mcp", json=message, headers=session)).status_code == 404
    assert not edge.world.connector.sent


async def test_sessions_mean_nothing_in_2026() -> None:
    """A session header of anybody's is ignored, and none is given: the request says all there is by itself."""
    edge = Edge()
    async with edge.client() as ada, edge.client("other") as bob:
        session = await opened(bob)
        good = call("erp__stock", stateless=True)
        named = good["headers"] | {"mcp-session-id": session["mcp-session-id"]}
        answer = await ada.post("/mcp", json=good["json"], headers=named)
    assert answer.status_code == 200
    assert "mcp-session-id" not in answer.headers
    assert edge.world.connector.sent[0].intent.call.session is None


@ENDPOINTS
@pytest.mark.parametrize("token", ["good", "other", None])
async def test_no_stream_is_resumed(token: str | None, path: str, name: str) -> None:
    """Whoever asks for what comes after an event gets no event: neither with the session's own token nor another's."""
    edge = Edge()
    async with edge.client() as ada, edge.client(token) as asking:
        session = await opened(ada, path)
        await ada.post(path, json=rpc("tools/call", {"name": name}), headers=session)
        asked = session | {"last-event-id": "1", "accept": "text/event-stream"}
        answer = await asking.get(path, headers=asked)
    assert answer.status_code == {"good": 400, "other": 404, None: 401}[token]
    assert "42 in stock" not in answer.text


@ENDPOINTS
@pytest.mark.parametrize("state", ["", "AEAD-protected", "e30=", 5, None])
async def test_a_state_that_was_not_sealed_here_is_refused(state: Any, path: str, name: str) -> None:
    """Nothing was asked, so nothing can be answered: the call is not carried out as if the state were not there."""
    edge = Edge()
    answered = {"inputResponses": {"q": {"action": "accept", "content": {}}}, "requestState": state}
    async with edge.client() as client:
        answer = await client.post(path, **call(name, stateless=True, **answered))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
        assert edge.records() == ["call.refused"]
        assert not edge.world.connector.sent
        assert "result" in (await client.post(path, **call(name, stateless=False, **answered))).json()


@CLEAN
@pytest.mark.parametrize(
    ("name", "said", "good"),
    [
        ("\xe9", b"=?base64?w6k=?=", True),
        ("\xe9", b"\xe9", False),
        ("\xe9", b"\xc3\xa9", False),
        ("=?base64?YQ==?=", b"=?base64?YQ==?=", False),
        ("a", b"=?base64?YQ==?=", True),
    ],
)
async def test_what_is_not_ascii_is_wrapped(name: str, said: bytes, *, good: bool) -> None:
    """A header's byte beyond ASCII is one letter to one reader and another to the next: it equals no body."""
    edge = Edge()
    body = rpc("tools/call", {"name": name, "_meta": META})
    headers = [(b"mcp-protocol-version", NEWEST.encode()), (b"mcp-method", b"tools/call"), (b"mcp-name", said)]
    async with edge.client() as client:
        answer = await client.post("/mcp", json=body, headers=headers)
    # A name that is good on the wire is that of no tool here.
    assert answer.json()["error"]["code"] == (-32602 if good else -32020)


async def test_a_result_without_members_is_one_in_both_eras() -> None:
    """An upstream that says nothing at all still gives its caller well-formed JSON."""
    edge = Edge()
    edge.world.connector.result = {}
    async with edge.client() as client:
        for stateless in (False, True):
            answer = await client.post("/mcp", **call("erp__stock", stateless=stateless))
            assert json.loads(answer.content)["result"] == ({"resultType": "complete"} if stateless else {})


def test_the_bad_bodies_are_calls_of_a_tool_that_is_there() -> None:
    """Were they not, their refusal would say nothing."""
    assert json.loads(call_with(b"{}"))["params"]["name"] == "erp__stock"
