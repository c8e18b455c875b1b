"""Policy on what a real gateway recorded: observe, draft, try, replay, explain, ask, export."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import Gateway, ostiary, serving

CONFIG = """\
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
mode = "observe"
deadline_ms = 1000 # the machine of a test is busy
bundles = ["policy"]

[policy.data.gateway.scope.agents.keeper]
allow = ["erp.find_order"]
[policy.data.gateway.scope.users.dora]
allow = ["erp.find_order"]

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"
"""
WIDER = """\
package gateway.policies.wider

allow contains {"id": "wider.all", "msg": "everything of the ERP"} if input.tool.server == "erp"
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in observe mode, in which agents have worked."""
    folder = tmp_path_factory.mktemp("observed")
    (folder / "gateway.toml").write_text(CONFIG, "utf-8")
    here = Path(__file__).parent
    shutil.copytree(here / "policy", folder / "policy")
    tools = (here / "catalogue.toml").read_text("utf-8").split("[[tool]]")
    erp = [f"[[tool]]{tool}" for tool in tools if 'server = "erp"' in tool]
    (folder / "catalogue.toml").write_text("".join(erp), "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.executescript(
            "CREATE TABLE orders (number TEXT, vendor TEXT, total INT, currency TEXT);"
            "CREATE TABLE staging (invoice TEXT, amount INT, currency TEXT);"
            "CREATE TABLE notes (text TEXT, number INT, extra TEXT);"
            "CREATE TABLE tickets (who TEXT);"
        )
    with serving(folder) as gateway:
        work(gateway)
        yield gateway
    assert "Traceback" not in gateway.words()


def work(gateway: Gateway) -> None:
    """What agents do: allowed, let pass, denied by a rule, of a tool that destroys, with arguments that do not fit."""
    clerk, keeper = gateway.token(agent="clerk"), gateway.token(agent="keeper")
    assert gateway.call(keeper, "erp.find_order", {"number": "PO-1"}).status_code == 200
    for number in range(10):
        invoice = {"invoice": f"I-{number}", "amount": 100, "currency": "EUR"}
        assert gateway.call(clerk, "erp.stage_invoice", invoice).status_code == 200
    for user in ("dora", "max"):
        note = {"text": "a quiet note", "number": 7}
        assert gateway.call(gateway.token(user, agent="clerk"), "erp.add_note", note).status_code == 200
    with gateway.client(clerk) as client:  # a number that parsers write otherwise, in a call that the database refuses
        headers = {"content-type": "application/json"}
        odd = '{"arguments":{"extra":{"weight":1.50},"text":"odd"}}'
        assert client.post("/v1/tools/erp.add_note/call", content=odd, headers=headers).status_code == 502
    assert gateway.call(clerk, "erp.purge_orders").status_code == 404
    assert gateway.call(clerk, "erp.find_order", {"number": 7}).status_code == 422
    assert gateway.call(clerk, "erp.nothing").status_code == 404


def asked(gateway: Gateway, *words: str, code: int = 0) -> Any:
    """What ``ostiary policy WORDS`` answers in JSON."""
    return gateway.ask("policy", *words, code=code)


def test_from_observing_to_enforcing(observed: Gateway, tmp_path: Path) -> None:
    """The draft passes its check and tests, with it everything observed would pass, and nothing else is new."""
    draft = tmp_path / "draft"
    said = asked(observed, "suggest", "--out", str(draft))
    rules = {(rule["agent"], rule["tool"]): rule for rule in said["rules"]}
    assert set(rules) == {("clerk", "erp.stage_invoice"), ("clerk", "erp.add_note")}
    assert rules["clerk", "erp.stage_invoice"]["arguments"] == {"amount": [100], "currency": ["EUR"]}
    assert rules["clerk", "erp.add_note"]["groups"] == ["desk"]
    assert [left["tool"] for left in said["left"]] == ["erp.purge_orders"]
    assert ostiary("policy", "check", str(draft)).returncode == 0
    assert ostiary("policy", "test", str(draft)).returncode == 0
    tried = asked(observed, "try", str(draft))
    assert tried["ok"]
    assert tried["passed"] == 14
    done = asked(observed, "replay", "--candidate", str(draft), "--fail-on", "newly-allowed", code=1)
    assert done["fidelity"]["mismatches"] == []
    assert {row["tool"] for row in done["newly_allowed"]} == {"erp.stage_invoice", "erp.add_note"}
    assert {(cell["before"], cell["after"]): cell["count"] for cell in done["matrix"]} == {
        ("allow", "allow"): 1,
        ("hidden", "allow"): 13,
        ("hidden", "hidden"): 1,
    }


def test_what_was_in_force_changes_nothing(observed: Gateway) -> None:
    """The very policy that decided, replayed as a candidate, is the same in every case."""
    done = asked(observed, "replay", "--candidate", str(observed.folder / "policy"), "--fail-on", "any-change")
    assert done["ok"]
    assert done["shifts"] == {"same": 15}
    assert done["not_replayable"] == {"a name of no tool, which no policy lets pass": 1}


def test_without_the_draft_what_passed_would_stop(observed: Gateway) -> None:
    """Exit code 1, by tool and agent and reason."""
    done = asked(observed, "try", str(observed.folder / "policy"), code=1)
    held = [(row["tool"], row["who"], row["effect"], row["calls"]) for row in done["held"]]
    assert sorted(held) == [
        ("erp.add_note", "clerk for dora", "hidden", 2),
        ("erp.add_note", "clerk for max", "hidden", 1),
        ("erp.stage_invoice", "clerk for dora", "hidden", 10),
    ]


def test_an_export_needs_no_gateway(observed: Gateway, tmp_path: Path) -> None:
    """Events and revisions in files: a replay of them says the same, and so does OPA's shape."""
    file, store = tmp_path / "decisions.jsonl", tmp_path / "revisions"
    said = asked(observed, "decisions", "--jsonl", str(file), "--with-revisions", str(store))
    assert said == {"decisions": 16, "revisions": 1, "missing": []}
    events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert {"decision_id", "path", "timestamp", "labels", "bundles", "input", "result"} <= events[0].keys()
    assert b'"weight":1.50' in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    (tmp_path / "wider").mkdir()
    (tmp_path / "wider" / "wider.rego").write_text(WIDER, "utf-8")
    words = ("--candidate", str(tmp_path / "wider"), "--from", str(file), "--revisions", str(store), "--json")
    done = ostiary("policy", "replay", *words, OSTIARY_STATE=str(tmp_path / "nowhere"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["replayed"] == 15
    assert {row["tool"] for row in document["newly_allowed"]} == {
        "erp.stage_invoice",
        "erp.add_note",
        "erp.purge_orders",
    }


def test_a_decision_is_made_again_with_its_rules(observed: Gateway) -> None:
    """The rule that spoke, by file and line, and that the decision is the same."""
    (record,) = observed.records(type="decision", agent="keeper")
    said = asked(observed, "explain", record["call_id"])
    assert said["same"]
    assert [(one["part"], one["id"]) for one in said["spoke"]] == [("allow", "scope.granted")]
    assert said["spoke"][0]["file"] == "shipped/authz/scope.rego"
    assert said["spoke"][0]["lines"][0]["text"].startswith("allow contains")
    through = [one["name"] for one in said["spoke"][0]["through"]]
    assert through[0] == "data.gateway.lib.scope.granted"
    assert {"data.gateway.lib.scope.agent_granted", "data.gateway.lib.scope.person_granted"} < set(through)


def test_why_not_names_what_would_have_to_be_true(observed: Gateway) -> None:
    """The list that is missing with its value now, the lines that grant it, and then the effect they have."""
    said = asked(observed, "why-not", "erp.add_note", "--agent", "keeper", "--user", "dora")
    assert said["seen"] == "hidden"
    assert said["facts"][0] == {
        "id": "scope.not_granted",
        "fact": "data.gateway.scope.agents.keeper.allow",
        "there": True,
        "value": ["erp.find_order"],
    }
    assert said["grants"][0] == (
        '[policy.data.gateway.scope.agents.keeper]\nallow = ["erp.find_order", "erp.add_note"]'
    )
    allowed = asked(observed, "why-not", "erp.find_order", "--agent", "keeper", "--user", "dora")
    assert allowed["seen"] == "allow"
    faulty = asked(observed, "why-not", "erp.find_order", "--agent", "keeper", "--user", "dora", "--args", "{}")
    assert faulty["seen"] == "listed"
    assert faulty["faults"]
    assert asked(observed, "why-not", "erp.nothing", code=1)["status"] == 404


def test_agents_may_not_ask(observed: Gateway) -> None:
    """An agent's token learns nothing, whatever scopes it has, and neither does a person's without the scope."""
    question = {"tool": "erp.purge_orders", "user": "dora"}
    for token in (observed.token(agent="clerk", scopes=["audit", "admin"]), observed.token(scopes=["tools"])):
        with observed.client(token) as client:
            assert client.post("/v1/policy/questions", json=question).status_code == 403


def test_an_auditor_replays_from_elsewhere(observed: Gateway) -> None:
    """By URL and token: with the scope audit all of it, without it nothing."""
    words = ("policy", "replay", "--candidate", str(observed.folder / "policy"), "--url", observed.url)
    auditor, other = observed.token(scopes=["audit"]), observed.token(scopes=["tools"])
    assert observed.ask(*words, token=auditor)["replayed"] == 15
    assert observed.ask(*words, token=other, code=1)["status"] == 403
