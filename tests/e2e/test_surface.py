"""What operators and scripts hold on to: probes, metrics, the API's document, the command line."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.e2e.house import House
from tests.foreign.building import logcheck, refusal
from tests.gateways import ostiary

__all__ = ["logcheck"]


def test_the_probes_need_no_credential(house: House) -> None:
    """Alive and ready; the operator also hears of each part and each upstream."""
    with house.gateway.client(None) as nobody:
        assert nobody.get("/livez").json() == {"status": "alive"}
        ready = nobody.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    parts = house.gateway.http.get("/readyz").json()["parts"]
    assert {"audit", "policy", "upstream:books", "upstream:erp", "upstream:new", "upstream:old"} <= parts.keys()
    assert set(parts.values()) == {"ok"}


def test_metrics_count_calls_for_those_who_may_read_them(house: House) -> None:
    """An agent may not; an auditor sees calls by tool and outcome, decisions, and what was not let in."""
    agent = house.gateway.token(agent="counted")
    assert house.gateway.call(agent, "api.thing", {"id": "1"}).status_code == 200
    for token, status in ((None, 401), (agent, 403)):
        with house.gateway.client(token) as client:
            assert client.get("/metrics").status_code == status
    with house.gateway.client(house.gateway.token("ada", scopes=["audit"])) as auditor:
        page = auditor.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for series in (
        'ostiary_calls_total{outcome="completed",tool="api.thing"}',
        'ostiary_decisions_total{effect="allow",reason="scope.granted"}',
        'ostiary_unauthenticated_total{code="missing"}',
        "ostiary_decision_seconds_bucket",
    ):
        assert series in page.text


def test_answers_are_what_the_document_says(house: House) -> None:
    """Good answers and refusals of the running API fit the schemas of the OpenAPI document it serves."""
    with house.gateway.client(None) as nobody:
        document: dict[str, Any] = nobody.get("/openapi.json").json()
    assert document["servers"] == [{"url": house.gateway.url}]
    run_id, token = house.gateway.run("documented")
    called = house.gateway.call(token, "erp.find_order", {"number": "PO-1"})
    call_id = called.json()["call_id"]
    answers = [
        ("post", "/v1/tools/{tool}/call", called),
        ("post", "/v1/tools/{tool}/call", house.gateway.call(token, "no.such")),
    ]
    with house.gateway.client(house.gateway.token("ada", scopes=["audit", "runs", "tools"])) as ada:
        for path in (
            "/v1/tools",
            "/v1/runs/{run_id}",
            "/v1/calls/{call_id}",
            "/v1/calls/{call_id}/explain",
            "/v1/audit/records",
            "/v1/audit/runs/{run_id}",
        ):
            told = path.replace("{run_id}", "{id}").replace("{call_id}", "{id}")
            answers.append(("get", told, ada.get(path.format(run_id=run_id, call_id=call_id))))
    for method, path, answer in answers:
        operation = document["paths"][path][method]
        (said,) = operation["responses"][str(answer.status_code)]["content"].values()
        schema = said["schema"] | {"components": document["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(answer.json())


@pytest.mark.requirement("TEST-3", "AUDIT-2")
def test_a_day_at_the_command_line(house: House) -> None:
    """A person opens a run, the agent's calls end well and badly, the log tells all of it and is sound meanwhile."""
    gateway = house.gateway
    person = gateway.ask("token", "issue", "--user", "dora", "--group", "desk", "--scope", "runs,tools")["token"]
    wish = (
        "--goal",
        "tidy up",
        "--agent",
        "clerk",
        "--scope",
        "erp.*",
        "--budget",
        "calls=5",
        "--plan",
        "erp.add_note",
    )
    opened = gateway.ask("run", "open", *wish, token=person)
    run_id, token = opened["run_id"], opened["token"]
    done = gateway.ask("tool", "call", "erp.add_note", "--arg", "text=By hand", token=token)
    assert done["result"]["structuredContent"]["changed"] == 1
    refused = ostiary(
        "tool", "call", "erp.add_note", "--arg", "text=LOUD", OSTIARY_STATE=str(gateway.state), OSTIARY_TOKEN=token
    )
    assert refused.returncode == 1
    for words in ("quiet.shouting", "notes are not shouted", "input.args.text", "ostiary explain"):
        assert words in refused.stderr
    denied = gateway.ask("audit", "search", "--run", run_id, "--effect", "deny")["records"]
    assert [record["body"]["tool"] for record in denied] == ["erp.add_note"]
    assert gateway.ask("explain", denied[0]["call_id"])["reasons"][0]["fact"] == "input.args.text"
    line = gateway.ask("audit", "run", run_id)["records"]
    assert [record["type"] for record in line][::4] == ["run.started", "decision"]
    assert gateway.ask("audit", "verify")["ok"] is True
    assert gateway.ask("run", "end", run_id)["ended"] is True
    proof = gateway.folder / "start.tlog-proof"
    gateway.ask("audit", "prove", str(line[0]["index"]), "--output", str(proof))
    vkey = str(gateway.state / "keys/log.vkey")
    proven = json.loads(ostiary("audit", "verify", "--proof", str(proof), "--vkey", vkey, "--json").stdout)
    assert (proven["index"], proven["record"]["run_id"]) == (line[0]["index"], run_id)
    assert gateway.ask("tool", "call", "erp.add_note", "--arg", "text=Late", token=token, code=1)["status"] == 404


@pytest.mark.requirement("AUDIT-1")
def test_foreign_code_checks_the_log_as_it_is_served(house: House, logcheck: Path) -> None:
    """With the URL, an auditor's token and the public key: every record, while the gateway goes on writing."""
    gateway = house.gateway
    token = gateway.token("ada", scopes=["audit"])
    vkey = (gateway.state / "keys/log.vkey").read_text("ascii").strip()
    assert refusal(logcheck, f"{gateway.url}/v1/audit/log", vkey, token) is None
    assert "401" in str(refusal(logcheck, f"{gateway.url}/v1/audit/log", vkey, "none"))
