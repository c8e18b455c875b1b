"""From what was observed to the narrowest rules that would have let it pass. Pure.

A rule is about one agent (or none), one tool and its effect class, and the persons it was seen with: the groups all of
them share where there were several, otherwise their own names. Nothing is drafted for money or destructive tools, for
what a rule denies outright, and for names that cannot be shown plainly to whoever reviews the draft.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.cli.policies.events import Recorded
from gateway.core.decision import Effect, Phase
from gateway.core.tool import EffectClass

# An argument is taken for an enumeration where so many calls had so few values.
ENUM_CALLS, ENUM_VALUES = 10, 3
_LONGEST_VALUE = 64
_CLOSED = "default.no_allow"
_NEVER = frozenset({EffectClass.MONEY, EffectClass.DESTRUCTIVE})
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
Value = str | int | bool


class Left(StrEnum):
    """Why nothing is drafted for a kind of call."""

    EFFECT = "money and destructive tools are for people to write rules about"
    DENIED = "a rule denies it, which no other package can take back"
    PARKED = "it waits for people, which no other package can take back"
    RARE = "seen fewer times than --min-calls"
    NAME = "a name in it holds characters that cannot be seen"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the draft.

    Attributes:
        agent: the agent, or None where a person called.
        groups: groups a person must be in, all of them; empty where ``users`` are named.
        users: the persons; empty where ``groups`` are named.
        arguments: values each of these arguments must have one of.
        calls, persons: how often it was seen, and with how many persons.
        first_us, last_us: when, microseconds.
        example: one of the calls, as policy saw it: its arguments.
    """

    agent: str | None
    tool: str
    effect: str
    groups: tuple[str, ...]
    users: tuple[str, ...]
    arguments: Mapping[str, tuple[Value, ...]]
    calls: int
    persons: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class Draft:
    """Rules to be reviewed, and how often what was left out for which reason: by (tool, agent, reason ids)."""

    rules: tuple[Rule, ...]
    left: Mapping[tuple[Left, str, str, str], int]


def draft(decisions: Sequence[Recorded], min_calls: int) -> Draft:
    """The draft for what observe mode let pass."""
    left: Counter[tuple[Left, str, str, str]] = Counter()
    kinds: dict[tuple[str, str, str], list[Recorded]] = {}
    for one in decisions:
        why = _left(one)
        if why is not None:
            left[why, one.event.ostiary.tool, one.agent, ", ".join(_ids(one))] += 1
        elif _is_observed(one):
            tool = one.facts["tool"]
            kinds.setdefault((tool["fqn"], one.agent, tool["effect"]), []).append(one)
    rules = []
    for (tool, agent, _), own in sorted(kinds.items()):
        rule = _rule(own)
        why = Left.RARE if rule.calls < min_calls else Left.NAME if not _is_plain(rule) else None
        if why is None:
            rules.append(rule)
        else:
            left[why, tool, agent, _CLOSED] += rule.calls
    return Draft(tuple(rules), dict(left))


def is_plain(text: str) -> bool:
    """Whether every character of a name can be seen, so that a reviewer reads what the engine reads."""
    return bool(text) and not any(unicodedata.category(char) in _UNSEEN for char in text)


def _is_observed(one: Recorded) -> bool:
    # Let pass though policy said no, and only because no package allows it.
    facts = one.event.ostiary
    return bool(one.facts) and facts.phase is Phase.CALL and not facts.enforced and _CLOSED in _ids(one)


def _left(one: Recorded) -> Left | None:
    if not one.facts or one.event.result.effect is Effect.ALLOW:
        return None
    tool = one.facts["tool"]
    if tool["effect"] in _NEVER:
        # A name of no tool has no digest; nobody asks for a rule about it.
        return Left.EFFECT if tool["digest"] and _CLOSED in _ids(one) else None
    if one.event.ostiary.enforced:
        return None
    if one.event.result.effect is Effect.NEEDS_APPROVAL:
        return Left.PARKED
    return None if _CLOSED in _ids(one) else Left.DENIED


def _ids(one: Recorded) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason.id for reason in one.event.result.reasons))


def _rule(own: Sequence[Recorded]) -> Rule:
    first = own[0]
    users = {one.person for one in own}
    shared = frozenset.intersection(*(_groups(one) for one in own))
    by_group = len(users) > 1 and bool(shared)
    moments = [one.at_us for one in own]
    return Rule(
        agent=first.agent or None,
        tool=first.facts["tool"]["fqn"],
        effect=first.facts["tool"]["effect"],
        groups=tuple(sorted(shared)) if by_group else (),
        users=() if by_group else tuple(sorted(users)),
        arguments=_enumerations([one.facts.get("args", {}) for one in own]),
        calls=len(own),
        persons=len(users),
        first_us=min(moments),
        last_us=max(moments),
    )


def _groups(one: Recorded) -> frozenset[str]:
    person = one.facts.get("on_behalf_of") or one.facts["principal"]
    return frozenset(person.get("groups", ()))


def _enumerations(arguments: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Value, ...]]:
    if len(arguments) < ENUM_CALLS:
        return {}
    found: dict[str, tuple[Value, ...]] = {}
    for name in sorted(set.intersection(*(set(given) for given in arguments))):
        values = [given[name] for given in arguments]
        # By type, too: true is no 1.
        distinct = {(type(value), value): value for value in values if _is_value(value)}
        if is_plain(name) and all(map(_is_value, values)) and len(distinct) <= ENUM_VALUES:
            found[name] = tuple(sorted(distinct.values(), key=lambda value: (str(type(value)), value)))
    return found


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_VALUE and is_plain(value)
    return isinstance(value, bool | int)


def _is_plain(rule: Rule) -> bool:
    names: Iterable[str] = (rule.tool, *rule.groups, *rule.users, *([rule.agent] if rule.agent else []))
    return all(map(is_plain, names))
