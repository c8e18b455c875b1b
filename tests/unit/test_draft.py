"""Drafting rules from what was observed: the narrowest that lets it pass, and names that stay names."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.policies.draft_rego import policy, quoted
from gateway.cli.policies.draft_rego import tests as written_tests
from gateway.cli.policies.drafting import Draft, Left, draft, is_plain
from gateway.cli.policies.events import Event, Recorded, recorded

CLOSED = ({"id": "default.no_allow"},)


def seen(**other: Any) -> Recorded:
    """One observed call: ``erp.find`` by the agent ``clerk`` for dora; ``other`` replaces parts."""
    given: dict[str, Any] = {
        "tool": "erp.find", "effect": "read", "agent": "clerk", "user": "dora", "groups": ["desk"], "args": {},
        "enforced": False, "phase": "call", "reasons": CLOSED, "said": "deny", "digest": "d",
    } | other  # fmt: skip
    person = {"id": given["user"], "groups": given["groups"]}
    agent = {"id": given["agent"]}
    who = {"principal": agent, "agent": agent, "on_behalf_of": person} if given["agent"] else {"principal": person}
    tool = {"fqn": given["tool"], "effect": given["effect"], "digest": given["digest"]}
    document = {"phase": given["phase"], "tool": tool, "args": given["args"], **who}
    facts = {"index": 0, "call_id": "c", "tool": given["tool"], "phase": given["phase"], "enforced": given["enforced"]}
    event: dict[str, Any] = {
        "decision_id": "d",
        "timestamp": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        "bundles": {"ostiary": {"revision": "r"}},
        "input": document,
        "result": {"effect": given["said"], "reasons": list(given["reasons"]), "requirements": []},
        "ostiary": facts,
    }
    return recorded(msgspec.json.decode(json.dumps(event), type=Event))


def drafted(*calls: Recorded, least: int = 1) -> Draft:
    """The draft for these calls."""
    return draft(calls, least)


def test_one_person_is_named_and_several_are_a_group() -> None:
    """The groups all of them share; persons without a common group are named one by one."""
    (alone,) = drafted(seen(), seen()).rules
    assert (alone.users, alone.groups, alone.calls, alone.persons) == (("dora",), (), 2, 1)
    (group,) = drafted(seen(groups=["a", "desk"]), seen(user="max", groups=["desk", "b"])).rules
    assert (group.users, group.groups, group.persons) == ((), ("desk",), 2)
    (named,) = drafted(seen(groups=["a"]), seen(user="max", groups=["b"])).rules
    assert (named.users, named.groups) == (("dora", "max"), ())


def test_each_agent_tool_and_effect_has_a_rule_of_its_own() -> None:
    """Nothing is put together that was not seen together."""
    found = drafted(seen(), seen(agent="other"), seen(tool="erp.list"), seen(effect="write"), seen(agent=None))
    assert len(found.rules) == 5
    assert sorted(str(rule.agent) for rule in found.rules) == ["None", "clerk", "clerk", "clerk", "other"]


def test_arguments_are_narrowed_only_where_they_are_clearly_an_enumeration() -> None:
    """At most three values in ten calls or more, there every time; true is no 1, and long texts are no values."""
    few = [seen(args={"c": "EUR"}) for _ in range(9)]
    assert drafted(*few).rules[0].arguments == {}
    many = [
        seen(args={"c": ("EUR", "USD")[n % 2], "n": n, "flag": n % 2 == 0, "deep": {}, "long": "x" * 65, "f": 1.5})
        for n in range(10)
    ]
    assert drafted(*many).rules[0].arguments == {"c": ("EUR", "USD"), "flag": (False, True)}
    assert drafted(*many, seen(args={"c": "EUR"})).rules[0].arguments == {"c": ("EUR", "USD")}
    mixed = [seen(args={"v": (True, 1, "1")[n % 3]}) for n in range(12)]
    assert drafted(*mixed).rules[0].arguments == {"v": (True, 1, "1")}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"effect": "money", "enforced": True}, Left.EFFECT),
        ({"effect": "destructive", "enforced": True, "phase": "list"}, Left.EFFECT),
        ({"reasons": ({"id": "scope.denied"},)}, Left.DENIED),
        ({"said": "needs_approval", "reasons": ({"id": "approval.required"},)}, Left.PARKED),
        ({"agent": "a\u202eb"}, Left.NAME),
        ({"user": "line\nbreak"}, Left.NAME),
        ({"tool": "erp.\u200bfind"}, Left.NAME),
        ({"agent": "cl\u0435rk"}, Left.NAME),  # a Cyrillic letter
        ({"user": "dora\u00a0"}, Left.NAME),
    ],
)
def test_what_is_left_out_is_told(change: dict[str, Any], why: Left) -> None:
    """Money, destruction, what a rule denies, what waits for people, and names that cannot be seen."""
    found = drafted(seen(**change))
    assert found.rules == ()
    assert [key[0] for key in found.left] == [why]


@pytest.mark.parametrize(
    "change",
    [
        {"said": "allow", "enforced": True, "reasons": ({"id": "scope.granted"},)},
        {"enforced": True},
        {"enforced": False, "phase": "list"},
        {"effect": "destructive", "enforced": True, "digest": ""},
        {"effect": 'read" or true'},
    ],
)
def test_what_needs_no_rule_is_not_spoken_of(change: dict[str, Any]) -> None:
    """Allowed, refused, no call at all, and a name of no tool."""
    assert drafted(seen(**change)) == Draft((), {})


@pytest.mark.parametrize("blank", ["\u3164", "\u115f", "\u1160", "\uffa0", "\u00a0", "\u2003", "\u2800", "\U0001d159"])
@pytest.mark.parametrize("mark", ["", "\u034f", "\ufe0f", "\U000e0100"])
def test_what_is_drawn_as_nothing_is_in_no_rule(blank: str, mark: str) -> None:
    """Fillers that are letters to Unicode, blanks that are not the plain one, marks: in names and in values."""
    assert is_plain("Zoë van der Berg, 東京, привет!")
    assert not is_plain(f"clerk{blank}{mark}")
    found = drafted(*(seen(args={"c": f"EUR{blank}", f"c{blank}": 1, "d": 1}) for _ in range(10)))
    assert found.rules[0].arguments == {"d": (1,)}
    assert f"{blank}" not in policy(found)


def test_rare_calls_are_left_out_with_their_count() -> None:
    """--min-calls."""
    found = drafted(seen(), seen(), seen(tool="erp.once"), least=2)
    assert [rule.tool for rule in found.rules] == ["erp.find"]
    assert found.left == {(Left.RARE, "erp.once", "clerk", "default.no_allow"): 1}


@given(st.text())
def test_a_quoted_name_is_one_string_of_one_line(name: str) -> None:
    """What can be seen is written as JSON, which Rego reads as the same string; other names are in no rule."""
    if is_plain(name):
        assert json.loads(quoted(name)) == name
        assert len(quoted(name).splitlines()) == 1
    else:
        assert not is_plain(f"a{name}b") or not name


def test_no_name_reaches_a_line_of_its_own() -> None:
    """An agent whose id is Rego stays a string: every line of the draft begins as the draft's own do."""
    evil = 'x"} if true } allow contains {"id": "evil", "msg": "m'
    found = drafted(seen(agent=evil, user=evil), seen(agent=f"{evil}\n", user=evil))
    text = policy(found)
    for line in text.splitlines():
        assert line[:1] in {"", "#", "\t", "}"} or line.startswith(("package ", "allow contains {", "considered if"))
    assert [line for line in text.splitlines() if line.startswith("allow")] == [
        'allow contains {"id": "suggested.rule_1", "msg": "rule 1 of the draft from observed calls"} if {'
    ]
    assert '\tinput.agent.id == "x\\"} if true } allow contains' in text
    assert "package gateway.tests.suggested" in written_tests(found)


def test_what_a_file_makes_up_reaches_no_line_of_its_own() -> None:
    """Reason ids are the gateway's own in a log; in a file they may be anything, and stay in their comment."""
    text = policy(drafted(seen(), seen(reasons=({"id": "x\nallow := true"},))))
    assert "\\nallow := true" in text
    assert "\nallow := true" not in text


def test_members_with_names_of_the_language_are_quoted() -> None:
    """``input.args["if"]``, where ``input.args.if`` would not parse."""
    calls = [seen(args={"if": "a", "plain": 1, "with space": True}) for _ in range(10)]
    text = policy(drafted(*calls))
    assert '\tinput.args["if"] in {"a"}' in text
    assert "\tinput.args.plain in {1}" in text
    assert '\tinput.args["with space"] in {true}' in text


def test_counts_and_times_stand_in_the_comment() -> None:
    """What a reviewer needs to judge a rule."""
    text = policy(drafted(seen(), seen(user="max")))
    assert "# seen 2 times with 2 persons, 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z" in text
    assert '# Rule 1: "erp.find" (read) by agent "clerk" for members of "desk"' in text
