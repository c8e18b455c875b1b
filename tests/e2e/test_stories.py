"""Stories through the whole gateway: runs and their bounds, what a refusal teaches, what the log keeps."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.e2e.house import API_KEY, KNOWN_SECRET, House
from tests.gateways import types, until

PROBLEM = "urn:ostiary:problem:"


def problem(answer: httpx.Response) -> str:
    """The kind of a refusal."""
    return str(answer.json()["type"]).removeprefix(PROBLEM)


def opened(house: House, agent: str, **wish: Any) -> tuple[str, str]:
    """A run that dora opens for ``agent``: its id and its token."""
    return house.gateway.run(agent, **wish)


@pytest.mark.requirement("INTAKE-1", "TEST-3")
def test_a_person_opens_a_run_and_the_agent_works_in_it(house: House) -> None:
    """The run says who asked, for whom, scope and budget; each call of its token is recorded under it."""
    scope, budget = ["erp.find_order", "api.*"], {"calls": 9}
    run_id, token = opened(house, "clerk", goal="look orders up", scope=scope, budget=budget)
    assert house.gateway.call(token, "erp.find_order", {"number": "PO-1"}).json()["run_id"] == run_id
    with house.gateway.client(house.gateway.token(scopes=["runs"])) as person:
        shown = person.get(f"/v1/runs/{run_id}").json()
    assert (shown["kind"], shown["agent"], shown["goal"]) == ("opened", "clerk", "look orders up")
    assert (shown["scope"], shown["budget"]) == (scope, budget)
    records = house.gateway.records(run_id=run_id)
    assert [record["type"] for record in records] == ["run.started", "decision", "tool.requested", "tool.completed"]
    assert {(record["actor"]["agent"], record["actor"]["user"]) for record in records} == {
        ("clerk", records[0]["actor"]["user"])
    }
    assert all(record["seq_run"] == place for place, record in enumerate(records))


@pytest.mark.requirement("INTAKE-1")
def test_no_agent_opens_a_run_and_no_call_leaves_its_own(house: House) -> None:
    """An agent's token opens none, whatever its scopes; a run token is good for its run only, and not after its end."""
    sly = house.gateway.token(agent="sly", scopes=["tools", "runs", "admin"])
    run_id, token = opened(house, "clerk")
    other_id, _ = opened(house, "clerk")
    wish = {"goal": "more power", "agent": "sly"}
    for agent in (sly, token):
        with house.gateway.client(agent) as client:
            assert client.post("/v1/runs", json=wish).status_code == 403
    for bearer, name in ((token, other_id), (sly, run_id), (sly, "no-such-run")):
        size = house.gateway.size()
        with house.gateway.client(bearer) as client:
            named = {"ostiary-run": name}
            answer = client.post("/v1/tools/erp.add_note/call", json={"arguments": {"text": "no"}}, headers=named)
        assert (answer.status_code, problem(answer)) == (404, "not_found")
        assert types(house.gateway.records(after=size - 1)) == ["request.refused"]
    with house.gateway.client(house.gateway.token(scopes=["runs"])) as person:
        assert person.post(f"/v1/runs/{run_id}/end", json={}).json() == {"run_id": run_id, "ended": True}
    assert house.gateway.call(token, "erp.find_order", {"number": "PO-1"}).status_code == 404
    assert not house.rows("SELECT * FROM notes WHERE text = 'no'")


@pytest.mark.requirement("INTAKE-1", "SCOPE-1")
def test_a_runs_scope_and_budget_bind(house: House) -> None:
    """Outside its scope no tool exists; past its budget no call is made, whichever tool."""
    _, token = opened(house, "clerk", scope=["erp.add_note", "erp.find_order"], budget={"calls": 2})
    with house.gateway.client(token) as client:
        assert {tool["name"] for tool in client.get("/v1/tools").json()["tools"]} == {"erp.add_note", "erp.find_order"}
    assert problem(house.gateway.call(token, "api.thing", {"id": "1"})) == "unknown_tool"
    for _ in range(2):
        assert house.gateway.call(token, "erp.find_order", {"number": "PO-1"}).status_code == 200
    refused = house.gateway.call(token, "erp.add_note", {"text": "one too many"})
    assert (refused.status_code, problem(refused)) == (429, "budget_exhausted")
    assert not house.rows("SELECT * FROM notes WHERE text = 'one too many'")


@pytest.mark.requirement("TEST-3", "TEST-5")
async def test_fifty_calls_at_once_share_three_places(house: House) -> None:
    """Of 50 concurrent calls of a run, exactly the three that policy allows are made, and the others are denied."""
    run_id, token = opened(house, "hasty")
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=house.gateway.url, headers=headers, timeout=60) as client:
        body = {"arguments": {"who": run_id}}
        posts = (client.post("/v1/tools/erp.take_ticket/call", json=body) for _ in range(50))
        answers = await asyncio.gather(*posts)
    assert Counter(answer.status_code for answer in answers) == {200: 3, 403: 47}
    assert house.rows("SELECT count(*) FROM tickets WHERE who = ?", run_id) == [(3,)]
    said = Counter(record["type"] for record in house.gateway.records(run_id=run_id))
    assert said == {"run.started": 1, "decision": 50, "tool.requested": 3, "tool.completed": 3}
    denied = next(answer for answer in answers if answer.status_code == 403)
    assert [reason["id"] for reason in denied.json()["reasons"]] == ["limits.calls_per_run"]


def test_the_sums_of_a_run_are_kept(house: House) -> None:
    """Amounts add up over a run, in their currency; what would pass the limit is denied, what still fits is made."""
    _, token = opened(house, "clerk")

    def staged(invoice: str, amount: int, currency: str = "EUR") -> httpx.Response:
        bill = {"invoice": f"SUM-{invoice}", "amount": amount, "currency": currency}
        return house.gateway.call(token, "erp.stage_invoice", bill)

    assert [staged("1", 300_000).status_code, staged("2", 200_001).status_code] == [200, 403]
    over = staged("3", 200_001).json()["reasons"][0]
    assert (over["id"], over["fact"]) == (
        "limits.sum_per_run",
        "data.gateway.limits.erp.stage_invoice.sums_per_run.amount.EUR",
    )
    assert over["msg"] == "500000 of amount.EUR a run is allowed; 300000 is used and this call adds 200001"
    assert staged("4", 1, "USD").json()["reasons"][0]["id"] == "limits.measure_not_listed"
    assert staged("5", 200_000).status_code == 200
    assert house.rows("SELECT invoice FROM staging WHERE invoice LIKE 'SUM-%'") == [("SUM-1",), ("SUM-5",)]


@pytest.mark.requirement("SCOPE-1")
def test_lists_say_which_tools_exist(house: House) -> None:
    """An agent gets what its own list and its person's groups' lists both cover; without either there is nothing."""

    def visible(**whose: Any) -> set[str]:
        with house.gateway.client(house.gateway.token(**whose)) as client:
            return {tool["name"] for tool in client.get("/v1/tools").json()["tools"]}

    own = visible(agent="reader")
    assert own == {"erp.find_order", "time.convert_time", "time.get_current_time"}
    desk = visible(agent="anybody")
    assert own < desk
    assert "erp.purge_orders" not in desk
    assert visible(agent="anybody", groups=[]) == visible(agent="anybody", groups=["strangers"]) == set()
    reader = house.gateway.token(agent="reader")
    assert house.gateway.call(reader, "erp.find_order", {"number": "PO-1"}).status_code == 200
    for tool in ("erp.add_note", "erp.purge_orders", "no.such"):
        assert house.gateway.call(reader, tool, {"text": "x"}).json()["detail"] == "no such tool"
    assert house.rows("SELECT count(*) FROM orders") == [(1,)]


def test_a_denial_teaches_whom_it_concerns(house: House) -> None:
    """The agent and its person hear rule, message and fact; of hidden tools and of others' calls they hear nothing."""
    _, token = opened(house, "clerk")
    denied = house.gateway.call(token, "erp.add_note", {"text": "SHOUTING"})
    reason = {"id": "quiet.shouting", "msg": "notes are not shouted", "fact": "input.args.text"}
    assert (denied.status_code, denied.json()["reasons"]) == (403, [reason])
    call_id = denied.json()["call_id"]
    hidden_id = house.gateway.call(token, "erp.purge_orders").json()["call_id"]
    person = house.gateway.token(scopes=["runs"])
    for bearer in (token, person):
        with house.gateway.client(bearer) as client:
            said = client.get(f"/v1/calls/{call_id}/explain").json()
            assert (said["outcome"], said["effect"]) == ("denied", "deny")
            assert said["reasons"][0] == reason | {"package": "quiet"}
            silent = client.get(f"/v1/calls/{hidden_id}/explain").json()
            assert silent.keys() == {"call_id", "run_id", "outcome", "message", "reasons"}
            assert (silent["message"], silent["reasons"]) == ("no such tool", [])
    for stranger in (house.gateway.token(agent="nosy"), house.gateway.token("eve", scopes=["runs"])):
        with house.gateway.client(stranger) as client:
            for path in (f"/v1/calls/{call_id}", f"/v1/calls/{call_id}/explain", "/v1/calls/none/explain"):
                assert client.get(path).status_code == 404
    with house.gateway.client(house.gateway.token("ada", groups=[], scopes=["audit"])) as auditor:
        assert auditor.get(f"/v1/calls/{hidden_id}/explain").json()["reasons"][0]["id"] == "scope.denied"


@pytest.mark.requirement("PROV-3", "PROV-5")
def test_the_log_tells_who_did_what_under_which_rule(house: House) -> None:
    """Of one effect: who asked, rule and revision of the policy that allowed it, when, and what came back."""
    run_id, token = opened(house, "clerk")
    answer = house.gateway.call(token, "api.make", {"text": "a desk"}).json()
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        said = auditor.get(f"/v1/calls/{answer['call_id']}").json()
    assert (said["run_id"], said["outcome"]) == (run_id, "completed")
    decision, intent, end = (row["record"] for row in said["records"])
    assert decision["ts"] <= intent["ts"] <= end["ts"]
    assert {record["actor"]["agent"] for record in (decision, intent, end)} == {"clerk"}
    assert decision["actor"]["user"]
    assert decision["body"]["reasons"] == ["scope.granted"]
    assert decision["body"]["revision"]
    assert intent["body"]["class"] == "write"
    assert 0 < end["body"]["upstream_us"] <= end["body"]["total_us"]
    assert said["payloads"]["request"]["arguments"] == {"text": "a desk"}
    assert said["payloads"]["result"] == answer["result"]
    assert said["payloads"]["reasons"]["reasons"][0]["id"] == "scope.granted"


@pytest.mark.requirement("PROV-3", "TEST-5")
@pytest.mark.parametrize(
    ("tool", "status", "code", "end"),
    [("tardy_read", 502, "tool_failed", "failed"), ("tardy_write", 504, "outcome_unknown", "outcome_unknown")],
)
def test_the_log_tells_how_a_call_failed(house: House, tool: str, status: int, code: str, end: str) -> None:
    """Where an upstream does not answer in time, a read has failed and a write may have happened; the error is kept."""
    answer = house.gateway.call(house.gateway.token(agent="clerk"), f"api.{tool}", {"id": tool})
    assert (answer.status_code, problem(answer), answer.json()["cause"]) == (status, code, "timeout")
    assert house.api.journal(tool)[0]["what"] == "begun"
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        shown = auditor.get(f"/v1/calls/{answer.json()['call_id']}").json()
    last = shown["records"][-1]["record"]
    assert (last["type"], last["body"]["code"], last["body"]["cause"]) == (f"tool.{end}", code, "timeout")
    assert last["body"]["total_us"] >= 200_000
    assert shown["payloads"]["request"]["arguments"] == {"id": tool}
    assert shown["payloads"]["error"]["detail"] == answer.json()["detail"]


@pytest.mark.requirement("TOOL-1")
@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("old.fail", {}, "it did not work"),
        ("erp.find_order", {"number": "PO-1' OR '1'='1"}, '"row_count":0'),
        ("erp.stage_invoice", {"invoice": "TAKEN", "amount": 1, "currency": "EUR"}, "UNIQUE constraint failed"),
    ],
)
def test_what_a_tool_says_reaches_the_caller(house: House, tool: str, arguments: dict[str, Any], word: str) -> None:
    """Its errors and its empty answers are results, not failures of the gateway."""
    token = house.gateway.token(agent="clerk")
    answers = [house.gateway.call(token, tool, arguments) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert word in answers[1].json()["result"]["content"][0]["text"]
    last = house.gateway.records(call_id=answers[1].json()["call_id"])[-1]
    assert (last["type"], last["body"]["is_error"]) == ("tool.completed", '"row_count"' not in word)


@pytest.mark.requirement("TOOL-8", "PROV-3")
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("erp.find_order", {"number": "PO-1"}),
        ("api.make", {"text": "the same", "number": 7}),
        ("time.convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Europe/Vienna"}),
        ("books.list_tables", {}),
        ("old.add", {"a": 1, "b": 2}),
        ("new.add", {"a": 1, "b": 2}),
    ],
)
def test_each_call_is_timed_whatever_carries_it_out(house: House, tool: str, arguments: dict[str, Any]) -> None:
    """The log has the time at the upstream and the whole time; the same input is recorded, and sent, the same."""
    token = house.gateway.token(agent="clerk")
    digests = set()
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        for _ in range(2):
            answer = house.gateway.call(token, tool, arguments).json()
            said = auditor.get(f"/v1/calls/{answer['call_id']}").json()
            end = said["records"][-1]["record"]["body"]
            assert not end["is_error"]
            assert 0 < end["upstream_us"] <= end["total_us"]
            digests.add(said["payloads"]["request"]["digest"])
    assert len(digests) == 1
    if tool == "api.make":
        first, second = house.api.journal("the same")
        assert first == second


@pytest.mark.requirement("TOOL-2")
@pytest.mark.parametrize(
    "name", ["../leak", "..%2fleak", "..", "x?y=1#z", "//127.0.0.1:1/", "http://127.0.0.1:1/", "a\r\nb: c"]
)
def test_an_argument_does_not_move_the_request(house: House, name: str) -> None:
    """Whatever stands in a path parameter, the request stays below its declared path, or is not sent at all."""
    before = house.api.journal()
    answer = house.gateway.call(house.gateway.token(agent="clerk"), "api.thing", {"id": name})
    assert answer.status_code in {200, 422, 502}
    reached = house.api.journal()[len(before) :]
    assert all(line["what"] == "read" and line["path"] == f"/tools/things/{name}" for line in reached)


@pytest.mark.requirement("AUDIT-2")
def test_records_are_found(house: House) -> None:
    """By run, call, tool, effect, agent and time, each alone and together, page by page."""
    run_id, token = opened(house, "finder")
    good = house.gateway.call(token, "erp.find_order", {"number": "PO-1"}).json()["call_id"]
    bad = house.gateway.call(token, "api.letter", {"text": "pay"}).json()["call_id"]
    whole = house.gateway.records(run_id=run_id)
    assert len(whole) == 5
    assert whole == [record for record in house.gateway.records() if record["run_id"] == run_id]
    assert {record["call_id"] for record in house.gateway.records(call_id=good)} == {good}
    denied = house.gateway.records(run_id=run_id, effect="deny")
    assert [(record["call_id"], record["body"]["tool"]) for record in denied] == [(bad, "api.letter")]
    assert house.gateway.records(run_id=run_id, tool="erp.*") == house.gateway.records(call_id=good)
    assert house.gateway.records(agent="finder") == whole
    assert house.gateway.records(run_id=run_id, type="tool.completed") == whole[3:4]
    since = house.gateway.records(run_id=run_id, since_us=whole[2]["ts"], until_us=whole[3]["ts"])
    assert {record["id"] for record in whole[2:4]} <= {record["id"] for record in since}
    assert whole[0] not in since
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        page = auditor.get("/v1/audit/records", params={"run_id": run_id, "limit": 2}).json()
        assert [row["record"] for row in page["records"]] == whole[:2]
        page = auditor.get("/v1/audit/records", params={"run_id": run_id, "limit": 9, "after": page["next"]}).json()
        assert [row["record"] for row in page["records"]] == whole[2:]


@pytest.mark.requirement("RATE-1")
def test_a_limit_of_a_tool_is_each_callers_own(house: House) -> None:
    """Past it a caller hears how long to wait, nothing is sent, and others are served."""
    hasty, calm = house.gateway.token(agent="hasty"), house.gateway.token(agent="calm")
    assert [house.gateway.call(hasty, "api.rare", {"id": "rare"}).status_code for _ in range(2)] == [200, 200]
    refused = house.gateway.call(hasty, "api.rare", {"id": "rare"})
    assert (refused.status_code, problem(refused), refused.json()["cause"]) == (429, "throttled", "rate_tool")
    assert 0 < refused.json()["retry_after"] <= 30
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert house.gateway.call(hasty, "api.thing", {"id": "other"}).status_code == 200
    assert house.gateway.call(calm, "api.rare", {"id": "rare"}).status_code == 200
    assert len(house.api.journal("/tools/things/rare")) == 3


def test_configured_secrets_do_not_come_back(house: House) -> None:
    """The upstream got its key; nothing known comes back, is in the payload or the operator's words, or is sent on."""
    token = house.gateway.token(agent="clerk")
    answer = house.gateway.call(token, "api.leak")
    said = answer.json()["result"]["structuredContent"]
    assert said["knew_the_key"] is True
    assert answer.json()["redactions"] >= 4
    noted = house.gateway.call(
        token, "books.read_query", {"query": "SELECT title FROM books WHERE title LIKE 'a note%'"}
    )
    assert noted.json()["redactions"] >= 1
    sent = house.gateway.call(token, "old.echo", {"text": f"it is {KNOWN_SECRET}!"})
    assert (sent.status_code, sent.json()["cause"]) == (422, "known_secret")
    assert house.gateway.call(token, f"elsewhere.{KNOWN_SECRET}").status_code == 404
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        kept = json.dumps(auditor.get(f"/v1/calls/{answer.json()['call_id']}").json()["payloads"]["result"])
        decided = auditor.get("/v1/audit/decisions", params={"effect": "deny", "limit": 200}).text
    assert "unknown_tool" in decided
    for secret in (API_KEY, KNOWN_SECRET):
        spellings = (secret, secret.encode().hex())
        for text in (answer.text, noted.text, sent.text, kept, decided, house.gateway.words()):
            assert not [spelling for spelling in spellings if spelling in text]
    types_of = types(house.gateway.records(call_id=answer.json()["call_id"]))
    assert types_of == ["decision", "tool.requested", "redaction", "tool.completed"]


@pytest.mark.parametrize(
    ("tool", "api", "end"), [("slow_read", "gone", "tool.failed"), ("slow_write", "done", "tool.completed")]
)
async def test_when_the_client_leaves(house: House, tool: str, api: str, end: str) -> None:
    """A read is cancelled at its upstream; a write that was begun finishes, and its end is recorded."""
    name = f"leaver-{tool}"
    run_id, token = opened(house, name)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=house.gateway.url, headers=headers) as client:
        body = {"arguments": {"id": name}}
        going = asyncio.create_task(client.post(f"/v1/tools/api.{tool}/call", json=body, timeout=60))
        await asyncio.to_thread(until, lambda: house.api.journal(name))
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    if api == "done":
        house.api.release()
    until(lambda: [line for line in house.api.journal(name) if line["what"] == api])
    records = until(lambda: house.gateway.records(run_id=run_id, type=end))
    assert types(house.gateway.records(run_id=run_id)) == ["decision", "tool.requested", end]
    assert records[0]["body"].get("code") == ("cancelled" if end == "tool.failed" else None)
