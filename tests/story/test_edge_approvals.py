"""Approvals as agents and reviewers meet them: MCP and REST over real books, with real signatures."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import create_task_group

from gateway.adapters.ledger.books.viewing import ViewLog
from gateway.core.approval import State, Verdict
from gateway.core.call import Answer, Principal
from gateway.core.desk import Desk
from gateway.core.kills import Kind
from gateway.edge.asgi import Options, build
from tests.approval_world import OPERATOR, Door, Person, open_door
from tests.edge_world import modern, rpc
from tests.fakes.callers import AGENT
from tests.fakes.desk import fake_desk

VERA = Person("vera")
URL = "http://gateway.test"
PAY = {"name": "bank__pay", "arguments": {"amount": 7}}


def someone(user: str, agent: str | None, *scopes: str) -> Principal:
    """A principal with a token of the same name as the user."""
    return replace(AGENT, user=user, agent=agent, scopes=frozenset(scopes), expires_us=10**16)


@dataclass(frozen=True, slots=True)
class House:
    """The application over a door with real books."""

    door: Door
    app: Any
    desk: Desk

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client that brings ``token``."""
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as client:
            yield client

    async def agent(self, method: str, params: dict[str, Any], token: str = "good") -> dict[str, Any]:
        """One MCP exchange of an agent on the aggregate."""
        async with self.client(token) as client:
            said: dict[str, Any] = (await client.post("/mcp", json=rpc(method, params))).json()
        return said

    async def pending(self) -> dict[str, Any]:
        """What an agent is told whose payment waits."""
        result = (await self.agent("tools/call", PAY))["result"]
        assert result["isError"]
        said: dict[str, Any] = json.loads(result["content"][0]["text"])
        return said


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Vera may approve; Rita has a reviewer's token, Adam an administrator's, Eve an agent of her own."""
    async with open_door(tmp_path) as door:
        await door.enrol(VERA)
        door.world.identity.tokens |= {
            "rita": someone("rita", None, "review"),
            "adam": someone("adam", None, "admin"),
            "eve": someone("eve", "bot", "tools"),
            "mallory": someone("mallory", "bot", "tools", "review", "admin"),
        }
        books = door.books
        desk = replace(
            fake_desk(), approvals=books.approvals, reviewers=books.reviewers, runs=books.runs, reader=books.reader
        )
        yield House(door, build(door.ports, desk, Options(version="1")), desk)


def signed(action: Any, verdict: Verdict = Verdict.APPROVE, reason: str | None = None) -> dict[str, Any]:
    """Vera's word as the body of a request."""
    ballot = VERA.ballot(action, verdict, reason)
    body = {"verdict": verdict.value, "key_id": ballot.key_id, "signature": ballot.signature.hex()}
    return body if reason is None else body | {"reason": reason}


@pytest.mark.requirement("GATE-1")
async def test_a_payment_from_the_agents_side(house: House) -> None:
    """Pending text a model can read; the wait tool; then the result, marked as told again."""
    said = await house.pending()
    assert (said["status"], said["approval_url"]) == ("pending", f"{URL}/v1/approvals/{said['approval_id']}")
    assert {"retry_after", "instruction", "reasons", "call_id"} <= said.keys()
    waits = {"name": "gateway__wait_approval", "arguments": {"approval_id": said["approval_id"], "timeout_s": 0}}
    still = (await house.agent("tools/call", waits))["result"]
    assert json.loads(still["content"][0]["text"])["status"] == "pending"
    action = (await house.door.books.approvals.dossier(said["approval_id"])).action
    waits["arguments"]["timeout_s"] = 60  # type: ignore[index]
    results: list[dict[str, Any]] = []

    async def wait() -> None:
        results.append((await house.agent("tools/call", waits))["result"])

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        async with house.client("rita") as rita:
            answer = await rita.post(f"/v1/approvals/{action.id}/decision", json=signed(action))
    assert (answer.status_code, answer.json()["state"]) in {(200, state.value) for state in State}
    results.append((await house.agent("tools/call", PAY))["result"])
    assert [result["content"][0]["text"] for result in results] == ["42 in stock"] * 2
    assert [result["_meta"] for result in results] == [{"ostiary/replayed": True}] * 2
    assert house.door.paid() == 1


@pytest.mark.parametrize("kind", Kind)
async def test_who_is_stopped_is_told_nothing_of_what_was_approved(house: House, kind: Kind) -> None:
    """Neither what came of it, nor while they wait for that; by the wait tool no more than by the same call."""
    said = await house.pending()
    waits = {"name": "gateway__wait_approval", "arguments": {"approval_id": said["approval_id"], "timeout_s": 60}}
    action = (await house.door.books.approvals.dossier(said["approval_id"])).action
    await house.door.approve(action, VERA)
    assert "42 in stock" in json.dumps(await house.agent("tools/call", waits))
    names = {Kind.AGENT: "ap-agent", Kind.USER: "ada", Kind.TOOL: "bank.pay", Kind.RUN: action.run, Kind.ALL: ""}
    await house.door.world.kills.engage(OPERATOR, kind, names[kind], "under attack")
    for call in (waits, PAY):
        told = json.dumps(await house.agent("tools/call", call))
        assert f"kill.{kind}" in told
        assert "42 in stock" not in told


async def test_a_kill_reaches_who_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of the call is not told any more where they were stopped meanwhile."""
    said = await house.pending()
    books, outcome = house.door.books, house.door.books.approvals.outcome

    async def stopped_meanwhile(approval_id: str, patience_s: float) -> Answer:
        answer = await outcome(approval_id, patience_s)
        await house.door.world.kills.engage(OPERATOR, Kind.ALL, "", "under attack")
        return answer

    monkeypatch.setattr(books.approvals, "outcome", stopped_meanwhile)
    await house.door.approve((await books.approvals.dossier(said["approval_id"])).action, VERA)
    waits = {"name": "gateway__wait_approval", "arguments": {"approval_id": said["approval_id"], "timeout_s": 60}}
    told = json.dumps(await house.agent("tools/call", waits))
    assert "kill.all" in told
    assert "42 in stock" not in told
    assert house.door.paid() == 1


def eager(approval_id: str) -> list[dict[str, Any]]:
    """Everything that a client could say to be done with a question: answers, and calls with a yes in them."""
    yes = {"action": "accept", "content": {"approve": True, "approved": True, "approval_id": approval_id}}
    answers = [{"jsonrpc": "2.0", "id": name, "result": yes} for name in (1, "1", approval_id)]
    given = {"inputResponses": {approval_id: yes}, "_meta": {"approved": True, "ostiary/approval": approval_id}}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", PAY | given),
        ("elicitation/create", yes),
        ("notifications/elicitation/complete", yes),
    ]
    calls = [rpc(method, params) for method, params in asked]
    calls.append(rpc("tools/call", {"name": "gateway__wait_approval", "arguments": {"approval_id": approval_id} | yes}))
    return [*answers, *calls]


@pytest.mark.requirement("GATE-1")
async def test_a_client_that_answers_everything_approves_nothing(house: House) -> None:
    """What a client says is never a person's word, in either era: the payment waits until somebody signs."""
    said = await house.pending()
    answered = {"inputResponses": {said["approval_id"]: {"action": "accept"}}}
    async with house.client("good") as agent:
        for message in eager(said["approval_id"]):
            answer = await agent.post("/mcp", json=message)
            assert answer.status_code in {200, 202}
            assert "42 in stock" not in answer.text
        for state in ({}, {"requestState": said["approval_id"]}):
            answer = await agent.post("/mcp", **modern("tools/call", PAY | answered | state))
            assert "42 in stock" not in answer.text
        place = f"/v1/approvals/{said['approval_id']}/decision"
        assert (await agent.post(place, json={"verdict": "approve"})).status_code == 403
    assert house.door.paid() == 0
    again = await house.pending()
    assert again["approval_id"] == said["approval_id"]
    action = (await house.door.books.approvals.dossier(said["approval_id"])).action
    await house.door.approve(action, VERA)
    await house.door.reaches(action, State.ENDED)
    assert house.door.paid() == 1


async def test_a_payment_over_rest(house: House) -> None:
    """202 and when to come back; then 200 with the outcome, marked as told again."""
    async with house.client("good") as agent:
        waiting = await agent.post("/v1/tools/bank.pay/call", json={"arguments": {"amount": 7}})
        assert (waiting.status_code, waiting.headers["retry-after"]) == (202, "5")
        place = f"/v1/approvals/{waiting.json()['approval_id']}"
        mine = (await agent.get(place)).json()
        assert (mine.keys(), mine["state"]) == ({"id", "state", "expires_us"}, "pending")
        action = (await house.door.books.approvals.dossier(mine["id"])).action
        await house.door.approve(action, VERA)
        await house.door.reaches(action, State.ENDED)
        done = await agent.post("/v1/tools/bank.pay/call", json={"arguments": {"amount": 7}})
        assert (done.status_code, done.json()["replayed"]) == (200, True)
        assert (await agent.get(place)).json()["call_id"] == done.json()["call_id"]


async def test_a_reviewer_sees_all_of_what_is_signed(house: House) -> None:
    """Whole arguments, who for, why; a rejection's reason reaches the agent."""
    said = await house.pending()
    async with house.client("rita") as rita:
        page = (await rita.get("/v1/approvals")).json()
        assert (page["waiting"], page["approvals"][0]["arguments_head"]) == (1, '{"amount":7}')
        assert page["approvals"][0].keys() <= {"id", "tool", "user", "agent", "arguments_head", "missing"} | {
            "requested_us",
            "expires_us",
        }
        shown = (await rita.get(f"/v1/approvals/{said['approval_id']}")).json()
        assert (shown["tool"], shown["arguments_json"], shown["state"]) == ("bank.pay", '{"amount":7}', "pending")
        assert (shown["statement"]["user"], shown["statement"]["agent"]) == ("ada", "ap-agent")
        assert shown["requirements"][0] | {"msg": ""} == {
            "id": "test.approval",
            "msg": "",
            "quorum": 1,
            "roles": [],
            "missing": 1,
        }
        action = (await house.door.books.approvals.dossier(shown["id"])).action
        reasoned = await rita.post(f"/v1/approvals/{action.id}/decision", json=signed(action, reason="fine"))
        assert (reasoned.status_code, reasoned.json()["cause"]) == (422, "reason")
        body = signed(action, Verdict.REJECT, "not this vendor")
        answer = await rita.post(f"/v1/approvals/{action.id}/decision", json=body)
        assert (answer.json()["state"], answer.json()["signatures"][0]["person"]) == ("rejected", "vera")
        assert (await rita.get("/v1/approvals")).json() == {"approvals": [], "waiting": 0}
        assert (await rita.post(f"/v1/approvals/{action.id}/decision", json=body)).status_code == 409
    result = (await house.agent("tools/call", PAY))["result"]
    denied = json.loads(result["content"][0]["text"])
    assert (denied["error"], denied["cause"]) == ("denied", "approval_rejected")
    assert "not this vendor" in denied["message"]


async def test_no_agent_reviews_and_no_stranger_looks(house: House) -> None:
    """An agent's credential decides nothing, whatever scopes it has; another's approval is none."""
    said = await house.pending()
    place = f"/v1/approvals/{said['approval_id']}"
    action = (await house.door.books.approvals.dossier(said["approval_id"])).action
    async with house.client("mallory") as mallory:
        assert (await mallory.get("/v1/approvals")).status_code == 403
        assert (await mallory.post(f"{place}/decision", json=signed(action))).status_code == 403
        assert (await mallory.get(place)).status_code == 404
        assert (await mallory.post("/v1/reviewers", json={})).status_code == 403
    async with house.client("good") as agent:
        assert (await agent.post(f"{place}/decision", json=signed(action))).status_code == 403
    waits = {"name": "gateway__wait_approval", "arguments": {"approval_id": said["approval_id"]}}
    foreign = (await house.agent("tools/call", waits, "eve"))["result"]
    missing = (await house.agent("tools/call", waits | {"arguments": {"approval_id": "x"}}, "eve"))["result"]
    words = [json.loads(result["content"][0]["text"])["message"] for result in (foreign, missing)]
    assert words == ["no such approval of yours"] * 2
    assert house.door.paid() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"approval_id": 7},
        {"approval_id": "a" * 65},
        {"approval_id": "a", "timeout_s": -1},
        {"approval_id": "a", "timeout_s": 61},
        {"approval_id": "a", "timeout_s": True},
        {"approval_id": "a", "timeout_s": "1"},
        {"approval_id": "a", "more": 1},
    ],
)
async def test_the_wait_tool_is_told_what_it_takes(house: House, arguments: dict[str, Any]) -> None:
    """Arguments it does not know are an answer a model can act on."""
    result = (await house.agent("tools/call", {"name": "gateway__wait_approval", "arguments": arguments}))["result"]
    assert json.loads(result["content"][0]["text"])["error"] == "invalid_arguments"


async def test_the_wait_tool_is_on_the_aggregate_only(house: House) -> None:
    """It stands in the list of ``/mcp``; a server's own endpoint has no such tool."""
    async with house.client("good") as client:
        everywhere = (await client.post("/mcp", **modern("tools/list"))).json()["result"]["tools"]
        there = (await client.post("/servers/bank/mcp", **modern("tools/list"))).json()["result"]["tools"]
        call = rpc("tools/call", {"name": "gateway__wait_approval", "arguments": {"approval_id": "x"}})
        refused = (await client.post("/servers/bank/mcp", json=call)).json()
    assert [tool["name"] for tool in everywhere][-1] == "gateway__wait_approval"
    assert [tool["name"] for tool in there] == ["pay"]
    assert refused["error"]["data"]["code"] == "unknown_tool"


async def test_reviewers_are_enrolled_listed_and_revoked(house: House) -> None:
    """By an administrator, with an enrolled key's signature; malformed wishes are told."""
    paul = Person("paul")
    wish = paul.enrolment(
        VERA, origin=house.door.books.reviewers.origin, roles=["treasurer"], accounts=[("urn:test", "p")]
    )
    body = {
        "public": wish.public.hex(),
        "person": "paul",
        "roles": ["treasurer"],
        "accounts": [{"issuer": "urn:test", "user": "p"}],
        "nonce": wish.nonce,
        "signed_by": wish.signed_by,
        "signature": (wish.signature or b"").hex(),
    }
    async with house.client("adam") as adam:
        assert (await adam.post("/v1/reviewers", json=body | {"roles": ["Treasurer!"]})).status_code == 400
        assert (await adam.post("/v1/reviewers", json=body | {"roles": []})).status_code == 403
        made = await adam.post("/v1/reviewers", json=body)
        assert (made.status_code, made.json()["key_id"]) == (201, paul.key_id)
        assert (await adam.post("/v1/reviewers", json=body)).status_code == 409
        assert (await adam.post(f"/v1/reviewers/{paul.key_id}/revoke")).json()["revoked"]
        assert (await adam.post("/v1/reviewers/none/revoke")).status_code == 404
        listed = (await adam.get("/v1/reviewers")).json()["reviewers"]
    assert [(one["person"], one["revoked"]) for one in listed] == [("vera", False), ("paul", True)]


async def test_who_looks_at_what_waits_is_recorded(house: House) -> None:
    """An approval each time; the inbox, which is asked again and again, once for each reviewer and approval."""
    said = await house.pending()
    books = house.door.books
    views = ViewLog(books.ledger, books.keys, books.clock)
    app = build(house.door.ports, replace(house.desk, views=views), Options(version="1"))
    seeing = House(house.door, app, house.desk)
    for name in ("rita", "adam"):
        async with seeing.client(name) as person:
            for _ in range(3):
                assert (await person.get("/v1/approvals")).json()["waiting"] == 1
    async with seeing.client("rita") as rita:
        for _ in range(2):
            assert (await rita.get(f"/v1/approvals/{said['approval_id']}")).status_code == 200
    seen = books.records("payload.viewed")
    assert [record["body"]["view"] for record in seen] == ["approvals", "approvals", "approval", "approval"]
    assert seen[0]["body"]["approvals"] == [said["approval_id"]]
    assert seen[2]["body"].keys() == {"approval", "call", "roles", "run", "view"}
    assert seen[0]["actor"]["user"] == seen[2]["actor"]["user"] != seen[1]["actor"]["user"]
    assert books.verify().ok
