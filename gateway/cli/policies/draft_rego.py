"""A draft as Rego: rules with what they were seen from, and tests. Pure.

Names and values come from callers. Each is written as a quoted string and only where every character of it can be seen
(``drafting.is_plain``), so that an agent whose id is Rego stays a string, and a comment stays one line.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from gateway.cli.policies.drafting import Draft, Rule, Value

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Words that Rego reads as its own even after a dot, in one engine or another.
_KEYWORDS = frozenset(
    "as contains default else every false if import in not null package some true with and or".split()  # noqa: SIM905
)
_HEADER = """\
# METADATA
# title: Draft from observed calls
# description: >-
#   DRAFT, for review: written by `ostiary policy suggest` from calls that observe mode let pass although no package
#   allowed them. Each rule allows what was seen and no more; whether it should have been done at all, nobody has said
#   yet. Values of arguments stand here as they were sent. Other packages still deny, and ask for approval, as before.
package gateway.policies.suggested
"""
_TESTS = """\
package gateway.tests.suggested

import data.gateway.policies.suggested as rules

allowed(request) := {reason.id | some reason in reasons} if {
	reasons := rules.allow with input as request
}
"""


def policy(drafted: Draft) -> str:
    """``suggested.rego``."""
    parts = [_HEADER, *_left_out(drafted), _considered(drafted.rules)]
    for number, rule in enumerate(drafted.rules, 1):
        parts += _rule(number, rule)
    return "\n".join(parts)


def tests(drafted: Draft) -> str:
    """``suggested_test.rego``: what was seen is allowed; another caller, tool, effect or value is not."""
    others = _Others(drafted.rules)
    parts = [_TESTS]
    for number, rule in enumerate(drafted.rules, 1):
        parts += _rule_tests(number, rule, others)
    return "\n".join(parts)


def quoted(value: Value) -> str:
    """A string, number or truth value as Rego writes it, which is as JSON does."""
    return json.dumps(value, ensure_ascii=False)


class _Others:
    """Names that none of the rules has."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        taken = {name for rule in rules for name in (rule.agent or "", rule.tool, *rule.users, *rule.groups)}
        self.name = _free("other.other", taken)

    @staticmethod
    def value(values: Iterable[Value]) -> str:
        return _free("other", {str(value) for value in values})


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "x"
    return name


def _left_out(drafted: Draft) -> Iterator[str]:
    if not drafted.left:
        return
    lines = ["# Left out:"]
    for (why, tool, agent, ids), count in sorted(drafted.left.items()):
        who = f" by {_ascii(agent)}" if agent else ""
        lines.append(f"# - {_ascii(tool)}{who}, {_times(count, 'call')} ({_ascii(ids)[1:-1]}): {why}")
    yield "\n".join(lines) + "\n"


def _ascii(name: str) -> str:
    # Names that were left out may hold anything; in a comment they are shown by their codes.
    return json.dumps(name)


def _considered(rules: Sequence[Rule]) -> str:
    # Each rule begins with this, so that calls of other tools never concern this package.
    tools = sorted({rule.tool for rule in rules})
    return "considered if input.tool.fqn in {\n" + "".join(f"\t{quoted(tool)},\n" for tool in tools) + "}\n"


def _rule(number: int, rule: Rule) -> Iterator[str]:
    whose = f"agent {quoted(rule.agent)} for " if rule.agent else ""
    names = ", ".join(map(quoted, rule.groups or rule.users))
    persons = f"members of {names}" if rule.groups else names
    said = f'{{"id": "suggested.rule_{number}", "msg": "rule {number} of the draft from observed calls"}}'
    body = ["considered", *_caller(rule), f"input.tool.fqn == {quoted(rule.tool)}"]
    body.append(f"input.tool.effect == {quoted(rule.effect)}")
    if rule.arguments:
        body.append(f"arguments_{number}")
    yield "\n".join(
        [
            f"# Rule {number}: {quoted(rule.tool)} ({rule.effect}) by {whose}{persons}",
            f"# {_seen(rule)}",
            f"allow contains {said} if {{",
            *(f"\t{line}" for line in body),
            "}\n",
        ]
    )
    if rule.arguments:
        values = [f"\t{_argument(name)} in {{{', '.join(map(quoted, v))}}}" for name, v in rule.arguments.items()]
        yield f'arguments_{number} if input.phase == "list"\n'
        yield "\n".join([f"arguments_{number} if {{", '\tinput.phase == "call"', *values, "}\n"])


def _caller(rule: Rule) -> Iterator[str]:
    person = "input.principal" if rule.agent is None else "input.on_behalf_of"
    yield f"input.principal.kind == {quoted('person' if rule.agent is None else 'agent')}"
    if rule.agent is not None:
        yield f"input.agent.id == {quoted(rule.agent)}"
    for group in rule.groups:
        yield f"{quoted(group)} in {person}.groups"
    if len(rule.users) == 1:
        yield f"{person}.id == {quoted(rule.users[0])}"
    elif rule.users:
        yield f"{person}.id in {{{', '.join(map(quoted, rule.users))}}}"


def _argument(name: str) -> str:
    is_name = _PLAIN.fullmatch(name) and name not in _KEYWORDS
    return f"input.args.{name}" if is_name else f"input.args[{quoted(name)}]"


def _seen(rule: Rule) -> str:
    when = f"{_moment(rule.first_us)} to {_moment(rule.last_us)}"
    return f"seen {_times(rule.calls, 'time')} with {_times(rule.persons, 'person')}, {when}"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _moment(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def _rule_tests(number: int, rule: Rule, others: _Others) -> Iterator[str]:
    other = quoted(others.name)
    yield f"seen_{number} := {_request(rule)}\n"
    yield f'test_rule_{number}_allows_what_was_seen if "suggested.rule_{number}" in allowed(seen_{number})\n'
    listed = f'object.union(object.remove(seen_{number}, ["args"]), {{"phase": "list"}})'
    yield f'test_rule_{number}_lists_it if "suggested.rule_{number}" in allowed({listed})\n'
    changes = {
        "tool": f'{{"tool": {{"fqn": {other}}}}}',
        "effect": '{"tool": {"effect": "destructive"}}',
        "person": f'{{{_person_key(rule)}: {{"id": {other}, "groups": []}}}}',
    }
    if rule.agent is not None:
        changes["agent"] = f'{{"agent": {{"id": {other}}}}}'
        changes["kind"] = '{"principal": {"kind": "person"}}'
    for name, values in rule.arguments.items():
        changes.setdefault("value", f'{{"args": {{{quoted(name)}: {quoted(others.value(values))}}}}}')
    for what, change in changes.items():
        name = f"test_rule_{number}_is_not_for_another_{what}"
        yield f"{name} if allowed(object.union(seen_{number}, {change})) == set()\n"


def _person_key(rule: Rule) -> str:
    return quoted("principal" if rule.agent is None else "on_behalf_of")


def _request(rule: Rule) -> str:
    name, groups = (rule.users or ("somebody",))[0], ", ".join(map(quoted, rule.groups))
    person = f'"id": {quoted(name)}, "groups": [{groups}]'
    arguments = ", ".join(f"{quoted(key)}: {quoted(values[0])}" for key, values in rule.arguments.items())
    if rule.agent is None:
        who = [f'"principal": {{"kind": "person", {person}}}']
    else:
        who = [
            f'"principal": {{"kind": "agent", "id": {quoted(rule.agent)}}}',
            f'"agent": {{"id": {quoted(rule.agent)}}}',
            f'"on_behalf_of": {{{person}}}',
        ]
    tool = f'"tool": {{"fqn": {quoted(rule.tool)}, "effect": {quoted(rule.effect)}}}'
    members = ['"phase": "call"', *who, tool, f'"args": {{{arguments}}}']
    return "{\n" + "".join(f"\t{member},\n" for member in members) + "}"
