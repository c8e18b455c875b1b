"""The document policy reads: complete, deterministic, and built from verified facts only."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.adapters.rego.probe import PROBES
from gateway.core import policy_input
from gateway.core.call import Channel, Proof, Reported, Resolved, RunKind
from gateway.core.canonical import encode, policy_view
from gateway.core.errors import TooLarge
from gateway.core.measures import amounts
from gateway.core.policy_input import MAX_ARGUMENT_BYTES, MAX_BYTES
from gateway.core.ports import PipelineSettings
from gateway.core.tool import EffectClass, Measure, Vendor
from gateway.core.usage import Usage
from tests.evidence import AT_US, make_arguments, make_call, make_caller, make_principal, make_run, make_tool

SETTINGS = PipelineSettings(environment="production", region="eu")
SCHEMA = json.loads(Path(policy_input.__file__).parents[1].joinpath("schemas/policy-input.v1.json").read_text("utf-8"))
PAY = Measure("amount", "/amount", "/currency")


def resolved(arguments: dict[str, Any] | bytes | None = None, **tool: Any) -> Resolved:
    """A call of ``erp.pay`` by an agent for alice."""
    pinned = make_tool("pay", server="erp", effect=EffectClass.MONEY, **tool)
    principal = make_principal(groups=frozenset({"finance", "ap"}))
    caller = make_caller(make_call("erp.pay", arguments), principal, make_run(principal))
    return Resolved(caller, pinned, None, amounts(pinned, caller.call.arguments.value))


def called(target: Resolved, usage: Usage | None = None) -> dict[str, Any]:
    """The phase=call document, checked against the schema."""
    document = json.loads(policy_input.calling(target, usage or Usage(), SETTINGS, AT_US))
    jsonschema_rs.validate(SCHEMA, document)
    return dict(document)


def listed(target: Resolved) -> dict[str, Any]:
    """The phase=list document, checked against the schema."""
    document = json.loads(policy_input.listing(target, SETTINGS, AT_US))
    jsonschema_rs.validate(SCHEMA, document)
    return dict(document)


def test_who_calls_comes_from_the_credential() -> None:
    """An agent acts on behalf of the person whose groups count."""
    document = called(resolved({"agent": "root", "principal": {"id": "root"}}))
    assert document["principal"] == {
        "kind": "agent",
        "id": "test-agent",
        "auth": {"method": "local", "issuer": "urn:test"},
    }
    assert document["agent"] == {"id": "test-agent"}
    assert document["on_behalf_of"] == {"id": "alice", "groups": ["ap", "finance"]}


def test_a_person_acts_alone() -> None:
    """With their own token a person is the principal and nobody acts for them."""
    principal = make_principal(agent=None, groups=frozenset({"ap"}))
    caller = make_caller(make_call(), principal)
    document = called(Resolved(caller, make_tool(), None))
    assert document["principal"]["kind"] == "person"
    assert document["principal"]["groups"] == ["ap"]
    assert "agent" not in document
    assert "on_behalf_of" not in document


def test_time_tool_and_context() -> None:
    """Time, pin, effect class and vendor terms are there."""
    vendor = Vendor(name="acme", region="eu", retention_days=30, price_micros=1500)
    document = called(resolved(vendor=vendor, labels=("pii", "erp")))
    assert document["schema"] == "gateway.input/v1"
    assert document["time"] == {"us": AT_US, "rfc3339": "2026-02-02T02:40:00.000000Z"}
    assert document["context"] == {"env": "production", "region": "eu", "channel": "mcp"}
    tool = document["tool"]
    assert (tool["fqn"], tool["effect"], tool["labels"]) == ("erp.pay", "money", ["erp", "pii"])
    assert tool["vendor"] == {"name": "acme", "region": "eu", "retention_days": 30}
    assert tool["price"] == {"micros": 1500, "currency": "EUR"}


def test_a_made_address_is_what_is_decided_on() -> None:
    """In both phases the name is that of the very address, with the template beside it; without one there is none."""
    made = structs.replace(resolved(), tool=replace(make_tool("resources/x:{id}"), uri="x:7"))
    for tool in (called(made)["tool"], listed(made)["tool"]):
        assert (tool["name"], tool["fqn"]) == ("resources/x:7", "up.resources/x:7")
        assert tool["template"] == "resources/x:{id}"
    assert called(made)["kind"] == "resource"
    assert "template" not in called(resolved())["tool"]


def test_listing_knows_neither_arguments_nor_the_past() -> None:
    """Whether a tool may be listed cannot depend on what is asked of it."""
    document = listed(resolved({"amount": 5, "currency": "EUR"}, measures=(PAY,)))
    assert document["phase"] == "list"
    assert set(document["run"]) == {"id", "kind", "opened_by"}
    assert not {"args", "args_digest", "budget"} & set(document)


def test_calling_carries_what_is_sent() -> None:
    """Arguments by the lexemes that are forwarded, and their digest."""
    target = resolved(b'{"b": 1.10, "a": [1e2]}')
    raw = policy_input.calling(target, Usage(), SETTINGS, AT_US)
    assert b'"args":{"a":[1e2],"b":1.10}' in raw
    assert called(target)["args_digest"] == target.call.arguments.digest


def test_big_integers_are_strings() -> None:
    """No engine gets an integer it would round."""
    document = called(resolved(b'{"id": 9007199254740993, "n": -9007199254740993, "small": 9007199254740992}'))
    assert document["args"] == {"id": "9007199254740993", "n": "-9007199254740993", "small": 9007199254740992}


def test_ledger_of_the_run() -> None:
    """Calls and sums so far, without what was given back; this call's amounts beside them."""
    usage = Usage()
    usage.reserve("erp.pay", {"amount.EUR": 700})
    usage.reserve("erp.read", {}).release()
    usage.reserve("erp.huge", {"amount.EUR": 2**53 + 1})
    document = called(resolved({"amount": 5, "currency": "EUR"}, measures=(PAY,)), usage)
    assert document["run"]["calls"] == {"erp.pay": 1, "erp.huge": 1}
    assert document["run"]["sums"] == {"erp.pay": {"amount.EUR": 700}, "erp.huge": {"amount.EUR": "9007199254740993"}}
    assert document["run"]["amounts"] == {"amount.EUR": 5}


def test_goal_is_told_by_digest_and_trust() -> None:
    """Policy learns whether a person opened the run with this goal, never its words."""
    run = make_run(kind=RunKind.OPENED, goal="pay acme", scope=("erp.*",), plan=("erp.pay",), budget={"calls": 5})
    document = called(Resolved(make_caller(run=run), make_tool(), None))
    assert document["run"]["goal"] == {"sha256": hashlib.sha256(b"pay acme").hexdigest(), "trusted": True}
    assert (document["run"]["scope"], document["run"]["plan"]) == (["erp.*"], ["erp.pay"])
    assert document["budget"] == {"run": {"calls": 5}}
    untrusted = make_run(kind=RunKind.IMPLICIT, goal="pay acme")
    assert not called(Resolved(make_caller(run=untrusted), make_tool(), None))["run"]["goal"]["trusted"]


def test_what_an_agent_says_of_its_call() -> None:
    """Only what it said, and of its evidence what the log bears out; a listing knows nothing of it."""
    proof = Proof("018f0000-0000-7000-8000-0000000000cb", "erp.read")
    cases: list[tuple[Reported, dict[str, Any]]] = [
        (Reported(), {}),
        (Reported(confidence_pct=0), {"risk": {"confidence_pct": 0}}),
        (Reported(90, 100), {"risk": {"confidence_pct": 90, "score_pct": 100}}),
        (
            Reported(evidence=(proof.call_id, "another")),
            {"evidence": [{"call_id": proof.call_id, "tool": "erp.read"}]},
        ),
    ]
    for said, facts in cases:
        caller = structs.replace(make_caller(make_call(reported=said)), proofs=(proof,))
        target = Resolved(caller, make_tool(), None)
        document = called(target)
        assert {name: document[name] for name in ("risk", "evidence") if name in document} == facts
        assert not {"risk", "evidence"} & set(listed(target))
    unproven = make_caller(make_call(reported=Reported(evidence=("another",))))
    assert called(Resolved(unproven, make_tool(), None))["evidence"] == []


def test_nothing_is_null() -> None:
    """Absent fields are absent: ``input.x == null`` never decides anything."""
    assert b"null" not in policy_input.calling(resolved({}), Usage(), SETTINGS, AT_US)


def test_same_facts_same_bytes() -> None:
    """A recorded document can be built and evaluated again."""
    one = policy_input.calling(resolved({"b": 1, "a": 2}), Usage(), SETTINGS, AT_US)
    other = policy_input.calling(resolved({"a": 2, "b": 1}), Usage(), SETTINGS, AT_US)
    assert one == other


def test_large_arguments_are_refused_for_any_tool() -> None:
    """The refusal comes with the listing question, so it does not tell whether the tool exists."""
    large = {"text": "x" * MAX_ARGUMENT_BYTES}
    for tool in (make_tool(), make_tool(listed=False)):
        target = Resolved(make_caller(make_call("up.echo", large)), tool, None)
        with pytest.raises(TooLarge) as caught:
            policy_input.listing(target, SETTINGS, AT_US)
        assert caught.value.cause_code == "policy_input"


@pytest.mark.parametrize("reported", [Reported(), Reported(score_pct=1)])
def test_document_over_the_cap_is_refused(reported: Reported) -> None:
    """Not even a run with a huge past makes a document the engine would not take."""
    usage = Usage()
    for number in range(10_000):
        usage.reserve(f"server.tool_with_a_long_name_{number}", {})
    target = resolved({})
    caller = structs.replace(target.caller, call=structs.replace(target.call, reported=reported))
    target = structs.replace(target, caller=caller)
    with pytest.raises(TooLarge):
        policy_input.calling(target, usage, SETTINGS, AT_US)
    assert len(policy_input.calling(resolved({"t": "x" * 100_000}), Usage(), SETTINGS, AT_US)) <= MAX_BYTES


def test_probes_are_real_documents() -> None:
    """What a bundle is tried on has the schema's form."""
    for probe in PROBES:
        assert jsonschema_rs.is_valid(SCHEMA, json.loads(probe))


def test_schema_refuses_what_policy_never_sees() -> None:
    """The schema tells the phases apart."""
    document = listed(resolved({}))
    assert make_arguments({}).canonical == b"{}"
    extras: tuple[dict[str, Any], ...] = (
        {"args": {}},
        {"phase": "call"},
        {"surprise": 1},
        {"risk": {"confidence_pct": 1}},
        {"evidence": []},
    )
    for extra in extras:
        assert not jsonschema_rs.is_valid(SCHEMA, document | extra)


def test_no_tool_and_no_caller_gets_the_facts_of_another() -> None:
    """However many come by, and when one comes again, each document says what it would say if it were the first."""
    subjects = [resolved(labels=(f"label-{number}",)) for number in range(1100)]
    for number, subject in [*enumerate(subjects), (0, subjects[0]), (1099, subjects[1099])]:
        document = listed(subject)
        assert document["tool"]["labels"] == [f"label-{number}"]
        assert document["on_behalf_of"] == {"id": "alice", "groups": ["ap", "finance"]}


def test_what_has_gone_is_not_taken_for_what_comes() -> None:
    """What is known of a tool that is not there any more is not said of another, which comes in its place."""
    target, usage = resolved(), Usage()
    for number in range(3000):
        coming = structs.replace(target, tool=replace(target.tool, labels=(f"label-{number}",)))
        document = json.loads(policy_input.calling(coming, usage, SETTINGS, AT_US))
        assert document["tool"]["labels"] == [f"label-{number}"]


def about(target: Resolved) -> bytes:
    """What the target is known by."""
    return policy_input.meeting(target, SETTINGS).listing


def test_what_calls_are_known_by_is_their_listing_question() -> None:
    """But for the time, it is the very document; the arguments play no part."""
    one, other = resolved({"amount": 1, "currency": "EUR"}), resolved({"amount": 2, "currency": "EUR"})
    assert about(one) == about(one) == about(other)
    untimed = [json.loads(each) | {"time": None} for each in (about(one), policy_input.listing(one, SETTINGS, AT_US))]
    assert untimed[0] == untimed[1]
    jsonschema_rs.validate(SCHEMA, json.loads(about(one)))


def test_what_calls_are_known_by_tells_whatever_may_matter() -> None:
    """Another tool, caller, run, surface or deployment is another; so are long ones, which are not kept."""
    plain = resolved()
    caller = plain.caller
    others = [
        structs.replace(plain, tool=replace(plain.tool, digest="another")),
        structs.replace(plain, caller=structs.replace(caller, principal=replace(caller.principal, agent="another"))),
        structs.replace(plain, caller=structs.replace(caller, run=replace(caller.run, id="another"))),
        structs.replace(plain, caller=structs.replace(caller, call=structs.replace(caller.call, channel=Channel.REST))),
        structs.replace(plain, caller=structs.replace(caller, run=replace(caller.run, scope=("x" * 9000,)))),
        structs.replace(plain, caller=structs.replace(caller, run=replace(caller.run, scope=("y" * 9000,)))),
    ]
    found = {about(plain), *map(about, others), policy_input.meeting(plain, replace(SETTINGS, region="us")).listing}
    assert len(found) == len(others) + 2
    with pytest.raises(TooLarge):
        about(resolved({"text": "x" * MAX_ARGUMENT_BYTES}))


def test_what_meets_again_is_told_as_before() -> None:
    """More callers than are kept, each with an object of its own: every document is its own caller's."""
    target = resolved()
    for number in range(policy_input._MET + 2):
        caller = structs.replace(target.caller, run=replace(target.caller.run, id=f"run-{number}"))
        about(structs.replace(target, caller=caller))
    assert len(policy_input._MEETINGS.known) <= policy_input._MET
    assert called(target)["run"]["id"] == target.caller.run.id


def test_what_nobody_meets_again_is_not_kept() -> None:
    """A long name is another object with each call; and facts that many have in common are kept once."""
    target = resolved()
    known = policy_input._MEETINGS.known
    known.clear()
    for name in ("x" * 300, "y" * 300, "short"):
        about(structs.replace(target, tool=replace(target.tool, name=name)))
    about(target)
    assert len(known) == 2
    (one, two) = known.values()
    assert one.facts["principal"] is two.facts["principal"]


COUNTS = st.dictionaries(st.text(max_size=8), st.integers(0, 2**60), max_size=3)


@given(
    st.dictionaries(st.text('a\u20ac"'), st.text('a\u20ac"\\') | st.integers(-(2**54), 2**54), max_size=3),
    COUNTS,
    st.dictionaries(st.text(max_size=8), COUNTS, max_size=3),
    st.integers(0, 2**52),
    st.booleans(),
)
def test_a_document_from_pieces_is_the_one_that_is_written_whole(
    said: dict[str, Any], calls: dict[str, int], sums: dict[str, dict[str, int]], at_us: int, is_paid: bool
) -> None:
    """Whatever stands where calls of one caller, tool and run differ."""
    target = resolved(said | ({"amount": 5, "currency": "EUR"} if is_paid else {}), measures=(PAY,) if is_paid else ())
    usage = Usage(Counter(calls), {tool: Counter(totals) for tool, totals in sums.items()})
    counted = {tool: {n: t if t < 2**53 else str(t) for n, t in totals.items() if t} for tool, totals in sums.items()}
    listing = json.loads(policy_input.listing(target, SETTINGS, at_us))
    arguments = target.call.arguments
    run = {
        "calls": {tool: count for tool, count in calls.items() if count},
        "sums": {tool: totals for tool, totals in counted.items() if totals},
        "amounts": dict(target.amounts),
    }
    whole = {"phase": "call", "args": policy_view(arguments.canonical), "args_digest": arguments.digest}
    document = policy_input.calling(target, usage, SETTINGS, at_us)
    assert document == encode(listing | whole | {"run": listing["run"] | run})
