"""``policy replay`` and ``policy try`` on a recorded past, offline: real inputs, real policies, a real engine."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.rego.layers import load, shipped
from gateway.core.tool import EffectClass
from tests.past import Past, asked, called, revision, scoped, told

SCOPE = {"agents": {"test-agent": {"allow": ["erp.*"]}}, "users": {"alice": {"allow": ["erp.find", "erp.pay"]}}}


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """An allowed call, a hidden tool, and a payment that waits for people."""
    found = scoped(tmp_path, SCOPE)
    pay = called("erp.pay", {"amount": 1.50}, effect=EffectClass.MONEY)
    found.happen([called("erp.find", {"n": 1}), called("erp.hide"), pay])
    return found


def candidate(folder: Path, rules: str = "", data: dict[str, Any] | None = None, name: str = "candidate") -> str:
    """A folder with one package ``x`` and data."""
    (folder / name).mkdir()
    (folder / name / "x.rego").write_text(f"package gateway.policies.x\n\n{rules}\n", "utf-8")
    if data is not None:
        (folder / name / "data.json").write_text(json.dumps(data), "utf-8")
    return str(folder / name)


def replayed(past: Past, folder: str, *words: str, code: int = 0) -> dict[str, Any]:
    """The answer of a replay."""
    return told("policy", "replay", "--candidate", folder, *past.written(), *words, code=code)


def test_the_past_comes_out_as_it_was_and_nothing_changes(past: Past) -> None:
    """Fidelity is whole, everything stands on the diagonal, and --fail-on any-change is content."""
    done = replayed(past, candidate(past.folder), "--fail-on", "any-change")
    assert done["ok"]
    assert done["fidelity"] == {"reproduced": 3, "mismatches": []}
    assert {(c["before"], c["after"]): c["count"] for c in done["matrix"]} == {
        ("allow", "allow"): 1,
        ("hidden", "hidden"): 1,
        ("needs_approval", "needs_approval"): 1,
    }


def test_a_hidden_tool_that_would_be_there_is_newly_allowed(past: Past) -> None:
    """It is listed first, with its reasons before and after, and fails a pipeline that asks."""
    rules = 'allow contains {"id": "x.all", "msg": "all"} if input.tool.fqn == "erp.hide"'
    done = replayed(past, candidate(past.folder, rules), "--fail-on", "newly-allowed", code=1)
    (row,) = done["newly_allowed"]
    assert (row["tool"], row["agent"], row["user"]) == ("erp.hide", "test-agent", "alice")
    assert row["before"] == {"effect": "hidden", "reasons": ["default.no_allow", "scope.not_granted"]}
    assert row["after"] == {"effect": "listed", "reasons": ["x.all"]}
    screen = asked("policy", "replay", "--candidate", str(past.folder / "candidate"), *past.written())
    assert screen.exit_code == 0
    assert "fidelity: 3 of 3 come out as they were recorded" in screen.stdout
    assert "newly allowed: 1" in screen.stdout


def test_names_of_no_tool_are_left_out_and_counted(past: Past) -> None:
    """Nobody fills the report with names they made up: no policy lets them pass, whatever a pattern covers."""
    real = called("erp.made_up")
    past.happen([structs.replace(real, tool=replace(real.tool, digest="", listed=False))] * 3)
    rules = 'allow contains {"id": "x.all", "msg": "all"} if startswith(input.tool.fqn, "erp.")'
    done = replayed(past, candidate(past.folder, rules))
    assert [row["tool"] for row in done["newly_allowed"]] == ["erp.hide"]
    assert done["replayed"] == 3
    assert done["not_replayable"] == {"a name of no tool, which no policy lets pass": 3}


def test_decisions_of_another_engine_are_told(past: Past) -> None:
    """A gateway before an OPA server: the replay is the embedded engine's word, and says so."""
    for one in past.events[:2]:
        one["ostiary"]["engine"] = "opa/1.20.2"
    done = replayed(past, candidate(past.folder))
    assert done["decided_by_another_engine"] == {"opa/1.20.2": 2}
    assert done["fidelity"]["reproduced"] == 3
    screen = asked("policy", "replay", "--candidate", str(past.folder / "candidate"), *past.written())
    assert "2 were decided by opa/1.20.2; what follows is the embedded engine's word" in screen.stdout


def test_denials_and_other_quorums_are_told_apart(past: Past) -> None:
    """A deny is newly denied; two persons instead of one is asked otherwise, in words."""
    rules = """deny contains {"id": "x.no", "msg": "no"} if input.args.n == 1

require contains {"id": "x.two", "msg": "two", "quorum": 2, "roles": ["cfo"]} if input.args.amount == 1.5

oblige contains {"id": "x.slow", "kind": "timeout", "timeout_s": 2} if input.args.amount == 1.5"""
    done = replayed(past, candidate(past.folder, rules), "--fail-on", "newly-allowed")
    assert [row["tool"] for row in done["newly_denied"]] == ["erp.find"]
    (changed,) = done["changed"]
    assert changed["differences"] == ["approval x.two: nothing -> 2 of cfo", "timeout: nothing -> 2 s"]
    replayed_again = asked("policy", "replay", "--candidate", str(past.folder / "candidate"), *past.written())
    assert "x.two: nothing -> 2 of cfo" in replayed_again.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effect": "deny"}, "effect: recorded 'deny', now 'allow'"),
        ({"reasons": [{"id": "x.other"}]}, "reasons: recorded ['x.other'], now ['scope.granted']"),
        ({"requirements": [{"id": "x.two", "quorum": 2}]}, "requirements: recorded [('x.two', 2, [])], now []"),
    ],
)
def test_a_past_that_does_not_come_out_says_nothing(past: Past, change: dict[str, Any], words: str) -> None:
    """Exit code 2, and what differs."""
    past.events[0]["result"] |= change
    done = replayed(past, candidate(past.folder), code=2)
    assert not done["ok"]
    assert done["fidelity"]["mismatches"][0]["words"] == [words]
    screen = asked("policy", "try", str(past.folder / "candidate"), *past.written())
    assert screen.exit_code == 2
    assert "do NOT come out" in screen.stdout


def test_an_input_that_is_not_the_recorded_one_is_a_mismatch(past: Past) -> None:
    """Its digest was recorded; whoever changes the file cannot make a replay pass."""
    past.events[0]["input"] = past.events[0]["input"].replace('"n":1', '"n":2')
    done = replayed(past, candidate(past.folder), code=2)
    assert done["fidelity"]["mismatches"][0]["words"] == ["input: not the one whose digest was recorded"]


def test_what_cannot_be_replayed_is_counted_by_why(past: Past) -> None:
    """No input, parts taken out, an engine fault, a policy that is gone, a record without any."""
    past.happen([called("erp.find")] * 4)
    del past.events[0]["input"]
    past.events[0]["erased"] = ["/input"]
    past.events[1]["masked"] = ["/input/args/n"]
    past.events[3]["result"]["reasons"] = [{"id": "engine.timeout"}]
    past.events[4]["bundles"] = {"ostiary": {"revision": "f" * 64}}
    past.events[5]["bundles"] = {}
    done = replayed(past, candidate(past.folder))
    assert done["replayed"] == 2
    assert sorted(done["not_replayable"].values()) == [1, 1, 1, 1, 1]
    assert done["not_replayable"]["the policy of the time is not kept any more"] == 1


def test_an_approval_that_was_given_counts_as_it_did(past: Past) -> None:
    """A resumed call is allowed by the signatures in its input; a candidate that asks for more parks it."""
    pay = past.events[2]
    signed(pay)
    pay["result"]["effect"] = "allow"
    rules = """require contains {"id": "x.two", "msg": "two", "quorum": 2} if input.args.amount"""
    done = replayed(past, candidate(past.folder, rules))
    assert done["fidelity"]["mismatches"] == []
    (changed,) = done["changed"]
    assert (changed["before"]["effect"], changed["after"]["effect"]) == ("allow", "needs_approval")


def test_an_approval_that_was_given_opens_what_a_candidate_only_asks_people_for(past: Past) -> None:
    """Denied at the time in spite of the signatures; without the deny they are enough, so the call is newly allowed."""
    lib = past.folder / "no"
    lib.mkdir()
    (lib / "x.rego").write_text(
        'package gateway.policies.x\n\ndeny contains {"id": "x.no", "msg": "no"} if input.args.amount\n'
    )
    past.bundle = load([shipped(), lib], {"gateway": {"scope": SCOPE}})
    past.events.clear()
    past.happen([called("erp.pay", {"amount": 1.50}, effect=EffectClass.MONEY)])
    signed(past.events[0])
    done = replayed(past, candidate(past.folder, name="no2"), "--fail-on", "newly-allowed", code=1)
    assert done["fidelity"]["mismatches"] == []
    (opened,) = done["newly_allowed"]
    assert (opened["before"]["effect"], opened["after"]["effect"]) == ("deny", "allow")


def test_an_input_without_a_digest_is_not_the_recorded_one(past: Past) -> None:
    """Whoever strikes the digest out of a file could put any input there."""
    del past.events[0]["ostiary"]["input_digest"]
    done = replayed(past, candidate(past.folder), code=2)
    (mismatch,) = done["fidelity"]["mismatches"]
    assert mismatch["words"] == ["input: not the one whose digest was recorded"]


def signed(event: dict[str, Any]) -> None:
    """Let a person have signed the call."""
    facts = json.loads(event["input"])
    facts["approvals"] = [{"by": "ann", "roles": ["cfo"], "verdict": "approve", "at_us": 1, "args_digest": ""}]
    event["input"] = json.dumps(facts)
    event["ostiary"]["input_digest"] = hashlib.sha256(event["input"].encode()).hexdigest()


def test_a_revision_must_be_what_its_name_says(past: Past) -> None:
    """A replay on other policy than the recorded one would say nothing."""
    words = past.written()
    path = past.folder / "revisions" / f"{past.bundle.revision}.json"
    other = revision(past.bundle) | {"data": "{}"}
    path.write_text(json.dumps(other), "utf-8")
    done = asked("policy", "replay", "--candidate", candidate(past.folder), *words)
    assert done.exit_code == 2
    assert f"what is given as revision {past.bundle.revision} is " in done.stderr
    path.write_text("[]", "utf-8")
    assert asked("policy", "replay", "--candidate", str(past.folder / "candidate"), *words).exit_code == 2


def test_a_candidate_that_may_not_be_served_is_named_by_file_and_line(past: Past) -> None:
    """Exit code 2, before anything is said of the past."""
    rules = 'deny contains {"id": "x.net", "msg": "m"} if http.send({"url": "x", "method": "get"}).status_code == 200'
    done = asked("policy", "replay", "--candidate", candidate(past.folder, rules), *past.written())
    assert done.exit_code == 2
    assert "candidate/x.rego:3: GW002" in done.stderr


def test_data_of_the_candidate_replaces_what_stands_at_its_path(past: Past) -> None:
    """One list is changed, all other data stay; with --own-data nothing of the past's counts."""
    data = {"gateway": {"scope": {"users": {"alice": {"allow": ["erp.hide"]}}}}}
    folder = candidate(past.folder, data=data)
    done = replayed(past, folder)
    assert [row["tool"] for row in done["newly_allowed"]] == ["erp.hide"]
    assert sorted(row["tool"] for row in done["newly_denied"]) == ["erp.find", "erp.pay"]
    alone = replayed(past, folder, "--own-data")
    assert alone["newly_allowed"] == []


def test_data_that_the_shipped_packages_cannot_read_is_refused(past: Past) -> None:
    """As when it is served."""
    folder = candidate(past.folder, data={"gateway": {"scope": {"users": {"alice": {"alow": []}}}}})
    done = asked("policy", "replay", "--candidate", folder, *past.written())
    assert done.exit_code == 2
    assert "data.gateway.scope.users.alice.alow: there is no such key" in done.stderr


def test_layers_beside_the_candidate_stay_and_its_own_is_replaced_whole(tmp_path: Path) -> None:
    """Another layer's deny still counts; a file the candidate has deleted does not."""
    deny = 'deny contains {"id": "%s.no", "msg": "no"} if input.args.n == "%s"'
    for name in ("candidate", "team"):
        (tmp_path / name).mkdir()
        text = f"package gateway.policies.{name}\n\n{deny % (name, name)}\n"
        (tmp_path / name / "old.rego").write_text(text, "utf-8")
    past = Past(tmp_path, load([shipped(), tmp_path / "candidate", tmp_path / "team"], {"gateway": {"scope": SCOPE}}))
    past.happen([called("erp.find", {"n": "candidate"}), called("erp.find", {"n": "team"})])
    (tmp_path / "candidate" / "old.rego").unlink()
    (tmp_path / "candidate" / "new.rego").write_text("package gateway.policies.new\n", "utf-8")
    done = replayed(past, str(tmp_path / "candidate"))
    assert [row["before"]["reasons"] for row in done["newly_allowed"]] == [["candidate.no"]]
    (tmp_path / "candidate" / "team.rego").write_text("package gateway.policies.team\n", "utf-8")
    assert len(replayed(past, str(tmp_path / "candidate"))["newly_allowed"]) == 2


def test_a_candidate_with_its_own_main_stands_alone(past: Past) -> None:
    """Nothing of the past's packages, not even the shipped ones."""
    folder = candidate(past.folder, 'allow contains {"id": "x.ok", "msg": "ok"}')
    main = (shipped() / "main.rego").read_text("utf-8")
    (past.folder / "candidate" / "main.rego").write_text(main, "utf-8")
    done = replayed(past, folder)
    assert sorted(row["tool"] for row in done["newly_allowed"]) == ["erp.hide", "erp.pay"]


def test_only_what_is_asked_for_is_looked_at(past: Past) -> None:
    """By tool, agent, time and number; what was cut off is said."""
    folder = candidate(past.folder)
    assert replayed(past, folder, "--tool", "erp.f*")["replayed"] == 1
    assert replayed(past, folder, "--agent", "nobody")["replayed"] == 0
    assert replayed(past, folder, "--since", "2026-02-02T02:40:01Z")["replayed"] == 2
    assert replayed(past, folder, "--until", "2026-02-02T02:40:00Z")["replayed"] == 1
    cut = replayed(past, folder, "--limit", "2")
    assert (cut["replayed"], cut["more"]) == (2, True)


@pytest.mark.parametrize("line", ["{}", "no json", '{"decision_id": 7}', "[]"])
def test_a_line_that_is_no_event_is_named(past: Past, line: str) -> None:
    """Exit code 2, with file and line."""
    words = past.written()
    with (past.folder / "decisions.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = asked("policy", "replay", "--candidate", candidate(past.folder), *words)
    assert done.exit_code == 2
    assert "decisions.jsonl:5: no recorded decision" in done.stderr


@pytest.mark.parametrize("change", [("phase", "later"), ("run", 7), ("tool", {}), ("principal", None)])
def test_an_input_that_is_none_is_named(past: Past, change: tuple[str, Any]) -> None:
    """Exit code 2, by the decision's id."""
    document = json.loads(past.events[0]["input"])
    past.events[0]["input"] = json.dumps(document | dict([change]))
    done = asked("policy", "replay", "--candidate", candidate(past.folder), *past.written())
    assert done.exit_code == 2
    assert f"decision {past.events[0]['decision_id']} is no policy input" in done.stderr


def test_the_past_is_not_held_to_what_is_refused_today(past: Past) -> None:
    """A policy that was in force is evaluated as it was, though the lint would not let it in any more."""
    body = '{\n\tinput.phase == "call"\n\tnot upper(input.args.name) == "ANN"\n}'
    rules = f'deny contains {{"id": "x.no", "msg": "no"}} if {body}'
    folder = candidate(past.folder, rules, name="old")
    refused = asked("policy", "replay", "--candidate", folder, *past.written())
    assert (refused.exit_code, "GW001" in refused.stderr) == (2, True)
    old = Past(past.folder, load([shipped(), past.folder / "old"], {"gateway": {"scope": SCOPE}}))
    old.happen([called("erp.find", {"name": "ANN"}), called("erp.find", {"name": "bob"})])
    (past.folder / "old" / "x.rego").write_text("package gateway.policies.x\n", "utf-8")
    done = told("policy", "replay", "--candidate", folder, *old.written())
    assert done["fidelity"] == {"reproduced": 2, "mismatches": []}
    assert [row["before"]["reasons"] for row in done["newly_allowed"]] == [["x.no"]]


def test_trying_says_plainly_what_would_stop(past: Past) -> None:
    """What passed and would not, by tool, caller and reason; everything else passes."""
    good = told("policy", "try", candidate(past.folder), *past.written())
    assert (good["passed"], good["held"], good["ok"]) == (1, [], True)
    rules = 'deny contains {"id": "x.no", "msg": "no"} if input.args.n == 1'
    done = told("policy", "try", candidate(past.folder, rules, name="strict"), *past.written(), code=1)
    assert done["held"] == [
        {"tool": "erp.find", "who": "test-agent for alice", "effect": "deny", "reasons": "x.no", "calls": 1}
    ]
    screen = asked("policy", "try", str(past.folder / "candidate"), *past.written())
    assert "everything observed would pass: 1 of 1 calls" in screen.stdout
    nothing = asked("policy", "try", str(past.folder / "candidate"), *past.written(), "--tool", "none.*")
    assert "so this says nothing" in nothing.stdout
    assert nothing.exit_code == 1


def test_a_configuration_file_is_a_candidate_with_all_it_names(past: Past) -> None:
    """Its bundles and its own data, and nothing of the past's: what would be served."""
    lines = ['state = "state"', "[policy.data.gateway.scope.agents.test-agent]", 'allow = ["erp.*"]']
    lines += ["[policy.data.gateway.scope.users.alice]", 'allow = ["erp.hide"]']
    config = past.folder / "gateway.toml"
    config.write_text("\n".join(lines), "utf-8")
    done = replayed(past, str(config), "--fail-on", "newly-allowed", code=1)
    assert [row["tool"] for row in done["newly_allowed"]] == ["erp.hide"]
    assert sorted(row["tool"] for row in done["newly_denied"]) == ["erp.find", "erp.pay"]
    config.write_text('state = "state"\n[policy]\nbundels = []', "utf-8")
    assert asked("policy", "replay", "--candidate", str(config), *past.written()).exit_code == 2


def test_a_pipeline_is_not_content_with_nothing(past: Past) -> None:
    """--fail-on with nothing that could be replayed is a failure."""
    done = replayed(past, candidate(past.folder), "--tool", "none.*", "--fail-on", "newly-allowed", code=1)
    assert (done["replayed"], done["ok"]) == (0, False)
