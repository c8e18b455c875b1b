"""Who may not erase, hold, or look without leaving a trace."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.custody import Seen, Target, View
from gateway.core.desk import LogRecord
from gateway.core.errors import Unavailable
from gateway.core.records import Role
from gateway.edge.auth import SCOPES
from tests.edge_world import ADMIN, Edge
from tests.fakes.callers import AGENT
from tests.fakes.callers import RUN as RUN_OF_AGENT

RUN = {"run": "r-1", "why": "case"}
CALL = "0197a000-0000-7000-8000-00000000c0de"
CHANGES = ("/v1/audit/erasures", "/v1/audit/holds", "/v1/audit/holds/release")
DECISION: dict[str, Any] = {
    "type": "decision",
    "ts": 1,
    "call_id": CALL,
    "run_id": "r-1",
    "body": {
        "code": "denied",
        "decision_id": "d-1",
        "effect": "deny",
        "enforced": True,
        "engine": "fake",
        "phase": "call",
        "reasons": [],
        "requirements": [],
        "revision": "0",
        "took_us": 1,
        "tool": "erp.stock",
    },
}


@pytest.fixture
def edge() -> Edge:
    """A gateway whose log has one decision with its reasons."""
    edge = Edge()
    edge.world.identity.tokens |= {
        "agent-admin": replace(AGENT, scopes=SCOPES, jti="a-1"),
        "run-admin": replace(AGENT, agent=None, run="r-1", scopes=SCOPES, jti="a-2"),
    }
    edge.reader.records = [LogRecord(0, b"", DECISION)]
    edge.reader.payloads[CALL, "reasons"] = {"effect": "deny", "reasons": [{"id": "scope.x", "msg": "because"}]}
    return edge


@pytest.mark.parametrize("token", ["good", "person", "auditor", "agent-admin", "run-admin", "noscope"])
@pytest.mark.parametrize("path", CHANGES)
async def test_only_an_administrator_in_person_erases_or_holds(edge: Edge, token: str, path: str) -> None:
    """An agent's or a run's token with every scope there is, a person without the scope: 403, and nothing is done."""
    async with edge.client(token) as client:
        answer = await client.post(path, json=RUN)
    assert answer.status_code == 403
    assert not edge.custody.erased
    assert not edge.custody.held


async def test_the_holds_are_for_auditors_and_administrators(edge: Edge) -> None:
    """A hold's reason may speak of a case: no agent reads it."""
    for token, status in (("auditor", 200), ("admin", 200), ("good", 403), ("agent-admin", 403), ("person", 403)):
        async with edge.client(token) as client:
            assert (await client.get("/v1/audit/holds")).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"why": "x"},
        {"run": "r", "user": "u", "why": "x"},
        {"run": "r", "issuer": "i", "why": "x"},
        {"issuer": "i", "why": "x"},
        {"run": "r"},
        {"run": "", "why": "x"},
        {"run": "r", "why": ""},
        {"run": "r", "why": "x" * 1001},
        {"run": "r" * 65, "why": "x"},
        {"run": ["r"], "why": "x"},
        {"run": "r", "why": "x", "all": True},
    ],
)
async def test_what_is_meant_must_be_said_exactly(edge: Edge, body: dict[str, Any]) -> None:
    """One run or one user, and a reason; anything else is refused and nothing is done."""
    async with edge.client("admin") as admin:
        for path in CHANGES:
            assert (await admin.post(path, json=body)).status_code in {400, 422}
    assert not edge.custody.erased


async def test_an_administrator_erases_holds_and_releases(edge: Edge) -> None:
    """A user goes with the local issuer unless another is named; what is held is a conflict."""
    user = {"user": "u", "why": "case"}
    async with edge.client("admin") as admin:
        assert (await admin.post(CHANGES[0], json=RUN)).json() == {"runs": 1, "keys": 2, "complete": True}
        assert (await admin.post(CHANGES[0], json=user)).json()["complete"] is False
        assert (await admin.post(CHANGES[0], json=user | {"issuer": "i"})).status_code == 200
        assert (await admin.post(CHANGES[1], json=RUN)).status_code == 201
        assert [hold["why"] for hold in (await admin.get(CHANGES[1])).json()["holds"]] == ["case"]
        assert (await admin.post(CHANGES[0], json=RUN)).status_code == 409
        assert (await admin.post(CHANGES[2], json=RUN)).json() == {"released": True}
    assert edge.custody.erased == [
        Target(run="r-1"),
        Target(subject=("urn:ostiary:local", "u")),
        Target(subject=("i", "u")),
    ]


@pytest.mark.parametrize(
    ("path", "view"), [(f"/v1/calls/{CALL}", View.CALL), (f"/v1/calls/{CALL}/explain", View.EXPLANATION)]
)
async def test_looking_at_a_call_is_recorded(edge: Edge, path: str, view: View) -> None:
    """Once a request: who, which call, which payloads; without any nothing, and nothing is shown unrecorded."""
    async with edge.client("auditor") as auditor:
        assert (await auditor.get(path)).status_code == 200
        assert (await auditor.get(path)).status_code == 200
        assert edge.views.seen == [("eve", Seen(view, ["reasons"], {"call": CALL}))] * 2
        edge.views.trouble = Unavailable("the audit log cannot be written")
        refused = await auditor.get(path)
        assert refused.status_code == 503
        assert "because" not in refused.text
        edge.reader.payloads.clear()
        assert (await auditor.get(path)).status_code == 200
    assert len(edge.views.seen) == 2


async def test_an_agent_with_an_auditors_scope_leaves_a_trace(edge: Edge) -> None:
    """It reads what others did, so it is recorded as a person would be; an agent that reads its own is not."""
    other = replace(AGENT, user="bo", agent="snoop", scopes=frozenset({"audit"}), jti="a-3")
    edge.world.identity.tokens |= {"snoop": other}
    edge.world.runs.opened["r-1"] = replace(RUN_OF_AGENT, id="r-1", goal="a goal")
    async with edge.client("snoop") as snoop:
        for path in (f"/v1/calls/{CALL}", f"/v1/calls/{CALL}/explain", "/v1/runs/r-1"):
            assert (await snoop.get(path)).status_code == 200
    assert [(by, seen.view) for by, seen in edge.views.seen] == [
        ("bo", View.CALL),
        ("bo", View.EXPLANATION),
        ("bo", View.RUN),
    ]
    async with edge.client("good") as agent:
        for path in (f"/v1/calls/{CALL}", f"/v1/calls/{CALL}/explain", "/v1/runs/r-1"):
            assert (await agent.get(path)).status_code == 200
    assert len(edge.views.seen) == 3


async def test_who_somebody_is_in_records_is_told_to_auditors_and_recorded(edge: Edge) -> None:
    """A user of the local issuer or another, or a reviewer's person; agents and others may not ask."""
    path = "/v1/audit/pseudonyms"
    for token in ("good", "person", "agent-admin", "run-admin", "noscope"):
        async with edge.client(token) as client:
            assert (await client.post(path, json={"user": "u"})).status_code == 403
    async with edge.client("auditor") as auditor:
        for body in ({}, {"user": "u", "person": "p"}, {"person": "p", "issuer": "i"}, {"issuer": "i"}, {"user": ""}):
            assert (await auditor.post(path, json=body)).status_code in {400, 422}
        assert edge.changes.recorded == []
        told = [
            (await auditor.post(path, json=body)).json()["pseudonym"][::-1]
            for body in ({"user": "u"}, {"user": "u", "issuer": "i"}, {"person": "p"})
        ]
    assert told == ["urn:ostiary:local|u", "i|u", "p"]
    assert [(by, action, said) for by, action, said in edge.changes.recorded] == [
        ("eve", "log.pseudonym_asked", {"user": "u"}),
        ("eve", "log.pseudonym_asked", {"user": "u", "issuer": "i"}),
        ("eve", "log.pseudonym_asked", {"person": "p"}),
    ]


async def test_reading_why_something_is_held_is_recorded(edge: Edge) -> None:
    """The reasons are sealed: who reads the list of holds is named, or it is not shown."""
    async with edge.client("admin") as admin:
        assert (await admin.get(CHANGES[1])).json() == {"holds": []}
        assert edge.views.seen == []
        await admin.post(CHANGES[1], json=RUN)
    async with edge.client("auditor") as auditor:
        assert (await auditor.get(CHANGES[1])).status_code == 200
        assert edge.views.seen == [("eve", Seen(View.HOLDS, (Role.REASONS,), {"records": [7]}))]
        edge.views.trouble = Unavailable("the audit log cannot be written")
        assert (await auditor.get(CHANGES[1])).status_code == 503


async def test_looking_at_decisions_is_recorded_by_their_places_in_the_log(edge: Edge) -> None:
    """One record for a page, naming those of its decisions that could be opened; none where none could."""
    async with edge.client("auditor") as auditor:
        assert (await auditor.get("/v1/audit/decisions")).status_code == 200
        assert edge.views.seen == []
        edge.reader.said[0] = ({"reasons": []}, b"{}")
        assert (await auditor.get("/v1/audit/decisions")).status_code == 200
        edge.views.trouble = Unavailable("the audit log cannot be written")
        assert (await auditor.get("/v1/audit/decisions")).status_code == 503
    assert edge.views.seen == [("eve", Seen(View.DECISIONS, (Role.REASONS, Role.REQUEST), {"records": [0]}))]


async def test_looking_at_a_run_is_recorded(edge: Edge) -> None:
    """Its goal is what a person wrote; who opened it and who administers leave a trace alike, its agent does not."""
    async with edge.client("person") as person:
        opened = (await person.post("/v1/runs", json={"goal": "count", "agent": "ap-agent"})).json()
        assert (await person.get(f"/v1/runs/{opened['run']['id']}")).json()["goal"] == "count"
    async with edge.client(opened["token"]) as agent:
        assert (await agent.get(f"/v1/runs/{opened['run']['id']}")).status_code == 200
    async with edge.client("admin") as admin:
        assert (await admin.get(f"/v1/runs/{opened['run']['id']}")).status_code == 200
    assert [(who, seen.view) for who, seen in edge.views.seen] == [(AGENT.user, View.RUN), (ADMIN.user, View.RUN)]
