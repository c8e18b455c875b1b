"""Conversations with the REST API: calls, runs, tokens, calls made, the log."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message

from gateway.core.call import RunKind
from gateway.core.desk import LogRecord
from gateway.core.errors import InvalidArguments, Unavailable
from gateway.edge.asgi import Options
from tests.edge_world import PERSON, Edge, Raw
from tests.fakes.callers import AGENT, RUN
from tests.fakes.rules import DENY

JSON = {"content-type": "application/json"}
STOCK = "/v1/tools/erp.stock/call"
OPEN = {"goal": "pay the invoice", "agent": "ap-agent", "scope": ["erp.*"], "budget": {"calls": 3}, "ttl_s": 60}


def code(answer: httpx.Response) -> str:
    """The problem's code; checks that it is a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert {"title", "detail"} <= said.keys()
    kind: str = said["type"].removeprefix("urn:ostiary:problem:")
    return kind


async def test_a_tool_is_called() -> None:
    """The answer holds the call's id, its run, the result's own bytes and the number of redactions."""
    edge = Edge()
    async with edge.client() as client:
        answer = await client.post(STOCK, json={"arguments": {"sku": "A", "price": 1.50}})
        page = (await client.get("/v1/tools")).json()["tools"]
    said = answer.json()
    assert said["call_id"] == answer.headers["ostiary-call-id"]
    assert (said["run_id"], said["redactions"]) == (RUN.id, 0)
    assert said["result"]["content"][0]["text"] == "42 in stock"
    assert edge.world.connector.sent[0].intent.call.arguments.value == {"sku": "A", "price": 1.50}
    assert [(tool["name"], tool["effect"]) for tool in page][:2] == [("erp.stock", "read"), ("erp.order", "write")]


async def test_refusals_are_problems() -> None:
    """A denial has its reasons; a hidden tool and an unknown one are the same 404 without any."""
    edge = Edge()
    edge.world.policy.words["call", "erp.order"] = DENY
    edge.world.policy.words["list", "bank.pay"] = DENY
    async with edge.client() as client:
        denied = await client.post("/v1/tools/erp.order/call", json={})
        hidden = await client.post("/v1/tools/bank.pay/call", json={})
        unknown = await client.post("/v1/tools/bank.nosuch/call", json={})
    assert (denied.status_code, code(denied)) == (403, "denied")
    assert denied.json()["reasons"] == [{"id": "test.deny", "msg": "the test denies it"}]
    assert (hidden.status_code, code(hidden)) == (404, "unknown_tool")
    bodies = [{**answer.json(), "call_id": None} for answer in (hidden, unknown)]
    assert bodies[0] == bodies[1]
    assert "reasons" not in bodies[0]


async def test_waiting_is_said_in_the_header() -> None:
    """``Retry-After`` is whole seconds, rounded up."""
    edge = Edge()
    edge.world.journal.fail("limits.spend", Unavailable("full", retry_after=1.2))
    async with edge.client() as client:
        answer = await client.post(STOCK, json={})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["retry_after"]) == (503, "2", 1.2)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{bad", 400),
        (b"[]", 400),
        (b'{"arguments":{},"extra":1}', 400),
        (b'{"arguments":[]}', 400),
        (b'{"arguments":{"a":1,"a":2}}', 400),
        (b'{"arguments":{"a":NaN}}', 400),
        (b'{"arguments":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}", 413),
        (b'"' + b"x" * (5 * 1024 * 1024) + b'"', 413),
    ],
    ids=["json", "list", "extra", "type", "duplicate", "nan", "depth", "size"],
)
async def test_bad_bodies_are_refused_and_recorded_once(content: bytes, status: int) -> None:
    """Nothing is executed; one record where the caller was authenticated, none and a count where not."""
    edge = Edge()
    async with edge.client() as client:
        answer = await client.post(STOCK, content=content, headers=JSON)
    assert answer.status_code == status
    assert code(answer) in {"malformed_request", "too_large"}
    assert edge.records() == ["call.refused"]
    async with edge.client("forged") as client:
        answer = await client.post(STOCK, content=content, headers=JSON)
    assert (answer.status_code, code(answer)) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="ostiary"')
    assert (len(edge.records()), edge.world.meter.counts["unauthenticated:unauthenticated"]) == (1, 1)


async def test_http_mistakes_are_problems_too() -> None:
    """Unknown path 404, wrong method 405 with Allow, wrong type 415, stray parameters 400."""
    edge = Edge()
    async with edge.client() as client:
        assert code(await client.get("/v1/nosuch")) == "not_found"
        wrong = await client.get(STOCK)
        assert (wrong.status_code, code(wrong), wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
        assert code(await client.post(STOCK, content=b"{}", headers={"content-type": "text/plain"})) == (
            "unsupported_media_type"
        )
        assert (await client.get("/v1/tools?x=1")).status_code == 400
        assert (await client.get("/v1/tools", headers={"ostiary-run": "a b" * 50})).status_code == 400


async def test_a_person_opens_a_run() -> None:
    """The answer holds the run and a token bound to (user, agent, run) with the scope ``tools`` alone."""
    edge = Edge()
    async with edge.client("person") as person:
        answer = await person.post("/v1/runs", json=OPEN)
        said = answer.json()
        assert (answer.status_code, said["run"]["goal"], said["run"]["agent"]) == (201, OPEN["goal"], "ap-agent")
        bound = edge.world.identity.tokens[said["token"]]
        assert (bound.user, bound.agent, bound.run) == ("ada", "ap-agent", said["run"]["id"])
        assert (bound.scopes, bound.groups) == (frozenset({"tools"}), AGENT.groups)
        assert bound.expires_us == said["expires_us"] == said["run"]["expires_us"]
        path = f"/v1/runs/{said['run']['id']}"
        async with edge.client(said["token"]) as agent, edge.client("other") as other, edge.client("admin") as admin:
            assert (await agent.get(path)).json() == said["run"]
            assert (await admin.get(path)).status_code == 200
            assert (await other.get(path)).status_code == 404
            assert (await agent.post(f"{path}/end")).status_code == 403
        assert (await person.post(f"{path}/end")).json() == {"run_id": said["run"]["id"], "ended": True}
        assert (await person.get("/v1/runs/nosuch")).status_code == 404


@pytest.mark.parametrize(
    "change",
    [{"goal": ""}, {"agent": "a|b"}, {"budget": {"calls": 0}}, {"budget": {"money": 1}}, {"ttl_s": "60"}, {"x": 1}],
    ids=str,
)
async def test_a_run_is_described_properly(change: dict[str, Any]) -> None:
    """Missing, wrong and unknown members are refused by name."""
    edge = Edge()
    async with edge.client("person") as person:
        answer = await person.post("/v1/runs", json=OPEN | change)
    assert (answer.status_code, answer.json()["cause"]) == (400, "model")
    assert next(iter(change)) in answer.json()["detail"]
    assert edge.world.runs.opened == {}


@pytest.mark.parametrize("lacking", ["runs", "tools"])
async def test_nobody_hands_on_what_they_do_not_have(lacking: str) -> None:
    """A person opens a run only with a credential that may both open runs and use tools; the refusal is recorded."""
    edge = Edge()
    edge.world.identity.tokens["person"] = replace(PERSON, scopes=frozenset({"runs", "tools", "audit"} - {lacking}))
    async with edge.client("person") as person:
        answer = await person.post("/v1/runs", json=OPEN)
    assert (answer.status_code, answer.json()["cause"]) == (403, "scope")
    assert lacking in answer.json()["detail"]
    assert edge.world.runs.opened == {}
    assert edge.records() == ["call.refused"]


async def test_no_run_lasts_longer_than_the_gateway_lets_it() -> None:
    """Up to the bound its token lasts as long; beyond it the request is refused and says the bound."""
    edge = Edge(options=Options(run_max_s=60))
    async with edge.client("person") as person:
        long = await person.post("/v1/runs", json=OPEN | {"ttl_s": 61})
        assert (long.status_code, long.json()["cause"]) == (422, "ttl")
        assert "60 seconds" in long.json()["detail"]
        assert edge.world.runs.opened == {}
        assert (await person.post("/v1/runs", json=OPEN | {"ttl_s": 60})).status_code == 201


OWN = {"user": "root", "scopes": ["admin"]}
MATRIX = [
    ("POST", "/v1/runs", OPEN, {"person": 201, "admin": 403, "auditor": 403, "good": 403}),
    (
        "POST",
        "/v1/tokens",
        {"user": "root", "scopes": ["admin"]},
        {"admin": 201, "person": 403, "auditor": 403, "good": 403},
    ),
    ("GET", "/v1/audit/records", None, {"auditor": 200, "admin": 403, "person": 403, "good": 403}),
    ("GET", "/v1/audit/runs/r", None, {"auditor": 404, "good": 403}),
    ("GET", "/v1/audit/log/checkpoint", None, {"auditor": 404, "good": 403}),
    ("GET", "/v1/audit/log/tile/0/000.p/1", None, {"auditor": 404, "good": 403}),
    ("GET", "/v1/audit/log/proofs/0", None, {"auditor": 404, "good": 403}),
    ("GET", "/v1/audit/log/consistency?old=0", None, {"auditor": 200, "person": 403, "good": 403}),
    ("GET", "/v1/tools", None, {"good": 200, "auditor": 403, "noscope": 403}),
    ("POST", STOCK, {}, {"good": 200, "auditor": 403, "noscope": 403}),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), MATRIX)
async def test_who_may_do_what(method: str, path: str, body: Any, expected: dict[str, int]) -> None:
    """Each operation takes the scopes it says, and nobody without a credential."""
    edge = Edge(options=Options(issuer=PERSON.issuer))
    for token, status in expected.items():
        async with edge.client(token) as client:
            answer = await client.request(method, path, json=body)
        assert answer.status_code == status, token
    async with edge.client(None) as client:
        answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="ostiary"')


async def test_an_agent_cannot_open_runs_or_issue_tokens() -> None:
    """Scopes do not help: an agent's credential is not a person's."""
    edge = Edge()
    edge.world.identity.tokens["sly"] = replace(AGENT, scopes=frozenset({"runs", "admin"}))
    async with edge.client("sly") as client:
        for path, body in (("/v1/runs", OPEN), ("/v1/tokens", {"user": "ada"})):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()["cause"]) == (403, "person")


def record(index: int, kind: str, run_id: str = RUN.id, **body: Any) -> LogRecord:
    """A record of the call ``c-1``."""
    leaf = {"type": kind, "ts": index, "run_id": run_id, "call_id": "c-1", "body": body}
    return LogRecord(index, b"", leaf)


async def test_a_call_is_explained_to_whom_it_concerns() -> None:
    """Its agent and its person get outcome, rule, message and fact; strangers get 404; auditors the records too."""
    edge = Edge()
    edge.world.runs.opened[RUN.id] = replace(RUN, kind=RunKind.OPENED)
    edge.reader.records = [record(0, "decision", effect="deny"), record(1, "request.refused", code="denied")]
    reason = {"id": "scope.x", "package": "authz", "msg": "not granted", "fact": "data.x"}
    edge.reader.payloads["c-1", "reasons"] = {"reasons": [reason]}
    edge.reader.payloads["c-1", "error"] = {"code": "denied", "cause": "denied", "detail": "no", "because": "inner"}
    async with edge.client() as agent, edge.client("person") as person, edge.client("auditor") as auditor:
        for client in (agent, person, auditor):
            said = (await client.get("/v1/calls/c-1/explain")).json()
            assert (said["outcome"], said["message"], said["effect"]) == ("denied", "no", "deny")
            assert said["reasons"] == [reason]
        own, whole = (await agent.get("/v1/calls/c-1")).json(), (await auditor.get("/v1/calls/c-1")).json()
        assert (len(own["events"]), own["records"], len(whole["records"])) == (2, [], 2)
        assert "because" not in own["payloads"]["error"]
        assert whole["payloads"]["error"]["because"] == "inner"
        assert (await agent.get("/v1/calls/c-2")).status_code == 404
    async with edge.client("other") as other:
        for path in ("/v1/calls/c-1", "/v1/calls/c-1/explain"):
            assert (await other.get(path)).status_code == 404


async def test_about_a_hidden_tool_nothing_is_explained_to_its_agent() -> None:
    """The agent learns that there is no such tool; the auditor learns why."""
    edge = Edge()
    edge.world.runs.opened[RUN.id] = RUN
    edge.reader.records = [record(0, "decision", effect="deny"), record(1, "request.refused", code="unknown_tool")]
    edge.reader.payloads["c-1", "reasons"] = {"reasons": [{"id": "scope.x", "msg": "secret"}]}
    async with edge.client() as agent, edge.client("auditor") as auditor:
        for path in ("/v1/calls/c-1", "/v1/calls/c-1/explain"):
            text = (await agent.get(path)).text
            assert not [word for word in ("scope.x", "secret", "deny", "decision") if word in text]
            assert "unknown_tool" in text
            assert "scope.x" in (await auditor.get(path)).text


async def test_the_log_is_searched() -> None:
    """Terms become the query; pages go on by cursor; unknown, doubled and wrong terms are 400."""
    edge = Edge()
    edge.reader.records = [record(index, "decision") for index in range(3)]
    async with edge.client("auditor") as auditor:
        page = (await auditor.get("/v1/audit/records?type=decision&limit=2")).json()
        assert ([item["index"] for item in page["records"]], page["next"]) == ([0, 1], 1)
        page = (await auditor.get("/v1/audit/records?limit=2&after=1")).json()
        assert ([item["index"] for item in page["records"]], page.get("next")) == ([2], None)
        assert len((await auditor.get(f"/v1/audit/runs/{RUN.id}")).json()["records"]) == 3
        note = await auditor.get("/v1/audit/log/checkpoint")
        assert (note.text, note.headers["content-type"]) == ("fake log\n3\n", "text/plain; charset=utf-8")
        for query in ("limit=0", "limit=x", "limit=1&limit=2", "colour=red", "effect=maybe", "%ff=1", "limit"):
            assert (await auditor.get(f"/v1/audit/records?{query}")).status_code == 400, query


async def test_the_log_is_searched_in_words() -> None:
    """A query and the parameters mean the same, and all of it must hold; what is wrong is said with its place."""
    edge = Edge()
    kinds = ["decision", "tool.requested", "tool.completed", "decision"]
    edge.reader.records = [record(index, kind) for index, kind in enumerate(kinds)]

    async with edge.client("auditor") as auditor:

        async def found(**params: str | int) -> list[int]:
            page = await auditor.get("/v1/audit/records", params=params)
            assert page.status_code == 200, page.text
            return [item["index"] for item in page.json()["records"]]

        assert await found(q="type:decision") == await found(type="decision") == [0, 3]
        assert await found(q="type:tool.*") == await found(type="tool.*") == [1, 2]
        assert await found(q="-type:tool.*", after=0) == [3]
        assert await found(q="-type:decision", type="tool.requested") == [1]
        assert await found(q="since:1970-01-01 until:1970-01-01", since_us=2, until_us=2) == [2]
        assert await found(q="since:24h", until_us=2) == []
        for params, words in (
            ({"q": "tool:x efect:deny"}, "q, at character 8: efect: is no field; did you mean effect?"),
            ({"type": "decison"}, "type: no record has the type 'decison'; did you mean decision?"),
            ({"run_id": "*"}, "run: run: takes no *; give the whole value"),
            ({"q": "x" * 1025}, "q: String should have at most 1024 characters"),
        ):
            answer = await auditor.get("/v1/audit/records", params=params)
            assert (answer.status_code, answer.json()["detail"]) == (400, words)


async def test_a_search_that_would_look_at_too_much_is_refused_and_recorded() -> None:
    """It says what to name; that somebody tried it is in the log."""
    edge = Edge()
    edge.reader.refusal = InvalidArguments("the search would look at too much of the log: name a run")
    async with edge.client("auditor") as auditor:
        answer = await auditor.get("/v1/audit/records?q=-agent:clerk")
    assert (answer.status_code, "name a run" in answer.json()["detail"]) == (422, True)
    ((by, searched),) = edge.searches.recorded
    assert (by, searched.text, searched.results) == ("eve", "-agent:clerk", 0)


async def test_every_page_of_an_export_is_recorded() -> None:
    """Also one that begins behind a record: otherwise it would be a way to search that nobody sees."""
    edge = Edge()
    edge.reader.records = [record(index, "decision") for index in range(3)]
    async with edge.client("auditor") as auditor:
        for query in ("type=decision", "type=decision&after=0", "after=1&payloads=true"):
            assert (await auditor.get(f"/v1/audit/export?{query}")).status_code == 200
    assert [(by, action, said["after"]) for by, action, said in edge.changes.recorded] == [
        ("eve", "log.exported", -1),
        ("eve", "log.exported", 0),
        ("eve", "log.payloads_exported", 1),
    ]


@pytest.mark.requirement("AUDIT-2")
async def test_every_search_is_recorded_before_it_is_answered() -> None:
    """Who searched by what, and how much was found; where that cannot be recorded, nothing is told."""
    edge = Edge()
    edge.reader.records = [record(index, "decision") for index in range(3)]
    doors = {
        "/v1/audit/records?q=-effect:allow&limit=2": ("records", ["effect"], "-effect:allow", 2),
        "/v1/audit/records?limit=2&after=1": ("records", [], None, 1),
        f"/v1/audit/runs/{RUN.id}": ("run", ["run"], None, 3),
        "/v1/audit/runs/none": ("run", ["run"], None, 0),
        "/v1/audit/decisions?since_us=0": ("decisions", ["since", "type"], None, 3),
        "/v1/calls/none": ("call", ["call"], None, 0),
        "/v1/calls/none/explain": ("call", ["call"], None, 0),
        "/v1/audit/log/proofs/1": ("proof", [], None, 1),
    }
    async with edge.client("auditor") as auditor:
        for path, (door, fields, text, results) in doors.items():
            await auditor.get(path)
            by, searched = edge.searches.recorded.pop()
            assert (by, searched.door, list(searched.query.fields)) == ("eve", door, fields)
            assert (searched.text, searched.results) == (text, results)
        for query, text in (("q=colour:red", "colour:red"), ("q=x&type=*a*b*c*d*e*", "x type:*a*b*c*d*e*")):
            assert (await auditor.get(f"/v1/audit/records?{query}")).status_code == 400
            _, searched = edge.searches.recorded.pop()
            assert (searched.text, searched.results, searched.is_malformed) == (text, 0, True)
        for path in ("log/checkpoint", "log/tile/0/000.p/3", "log/consistency?old=3", "log/proofs/300", "export?a=1"):
            await auditor.get(f"/v1/audit/{path}")
        await auditor.get(f"/v1/calls/{'x' * 65}")
        assert edge.searches.recorded == []
        edge.searches.refusal = Unavailable("the audit log cannot be written", retry_after=1)
        for path in doors:
            answer = await auditor.get(path)
            assert answer.status_code == 503
            assert "records" not in answer.json()


async def test_the_local_operator_needs_no_token_but_cannot_call_tools() -> None:
    """By the gateway's own Unix socket, without a credential; by any other one a stranger stays a stranger."""
    socket = {"server": ("/run/ostiary.sock", None), "client": None}
    headers = {"headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}
    for path in ("/run/ostiary.sock", "/run/another.sock", None):
        switched_on = path == "/run/ostiary.sock"
        edge = Edge(Options(version="1", operator_socket=path))
        ask = {**socket, **headers, "method": "GET", "path": "/v1/audit/records"}
        assert await Raw(edge.app, []).run(**ask) == (200 if switched_on else 401)
        assert await Raw(edge.app, []).run(**{**ask, "server": ("127.0.0.1", 80)}) == 401
        body: list[Message] = [{"type": "http.request", "body": b"{}"}]
        assert await Raw(edge.app, list(body)).run(**{**ask, "method": "POST", "path": STOCK}) == 401
        assert await Raw(edge.app, []).run(**{**ask, "method": "POST", "path": "/mcp"}) == 401
        assert not edge.world.connector.sent
