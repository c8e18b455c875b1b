"""From what was observed to the narrowest rules that would have let it pass. Pure.

A rule is about one agent (or none), one tool and its effect class, and the persons it was seen with: the groups all of
them share where there were several, otherwise their own names. Nothing is drafted for money or destructive tools, for
what a rule denies outright, and for names that cannot be shown plainly to whoever reviews the draft.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.cli.policies.events import Input, Recorded
from gateway.core.decision import Effect, Phase
from gateway.core.lookalikes import guarded
from gateway.core.tool import EffectClass

# An argument is taken for an enumeration where so many calls had so few values.
ENUM_CALLS, ENUM_VALUES = 10, 3
_LONGEST_VALUE = 64
_CLOSED = "default.no_allow"
_NEVER = frozenset({EffectClass.MONEY, EffectClass.DESTRUCTIVE})
_EVER = frozenset({EffectClass.READ, EffectClass.WRITE})
Value = str | int | bool


class Left(StrEnum):
    """Why nothing is drafted for a kind of call."""

    EFFECT = "money and destructive tools are for people to write rules about"
    DENIED = "a rule denies it, which no other package can take back"
    PARKED = "it waits for people, which no other package can take back"
    RARE = "seen fewer times than --min-calls"
    NAME = "a name in it holds characters that cannot be seen, or look like others"


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
    kinds: dict[tuple[str, str, str], list[_Call]] = {}
    for one in decisions:
        why = _left(one)
        if why is not None:
            left[why, one.tool, one.agent, ", ".join(_ids(one))] += 1
        elif (call := _observed(one)) is not None:
            tool = call.input.tool
            kinds.setdefault((tool.fqn, call.agent, tool.effect), []).append(call)
    rules = []
    for (tool_name, agent, _), own in sorted(kinds.items()):
        rule = _rule(own)
        why = Left.RARE if rule.calls < min_calls else Left.NAME if not _is_plain(rule) else None
        if why is None:
            rules.append(rule)
        else:
            left[why, tool_name, agent, _CLOSED] += rule.calls
    return Draft(tuple(rules), dict(left))


def is_plain(text: str) -> bool:
    """Whether every character of a name can be seen and is what it looks like: a reviewer reads what the engine reads.

    No blanks but the plain space, no marks, no letters of another script that pass for those around them.
    """
    return bool(text) and guarded(text) == text


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that was let pass though policy said no."""

    input: Input
    agent: str
    at_us: int


def _observed(one: Recorded) -> _Call | None:
    # Only because no package allows it, and only reads and writes: what the effect is, is not left to who wrote a file.
    facts = one.event.ostiary
    if one.input is None or one.event.masked or one.input.tool.effect not in _EVER:
        return None
    if facts.phase is not Phase.CALL or facts.enforced or _CLOSED not in _ids(one):
        return None
    return _Call(one.input, one.agent, one.at_us)


def _left(one: Recorded) -> Left | None:
    if one.input is None or one.event.result.effect is Effect.ALLOW:
        return None
    if one.input.tool.effect in _NEVER:
        # A name of no tool has no digest; nobody asks for a rule about it.
        return Left.EFFECT if one.input.tool.digest and _CLOSED in _ids(one) else None
    if one.event.ostiary.enforced:
        return None
    if one.event.result.effect is Effect.NEEDS_APPROVAL:
        return Left.PARKED
    return None if _CLOSED in _ids(one) else Left.DENIED


def _ids(one: Recorded) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason.id for reason in one.event.result.reasons))


def _rule(own: Sequence[_Call]) -> Rule:
    first = own[0]
    users = {one.input.person.id for one in own}
    shared = frozenset.intersection(*(frozenset(one.input.person.groups) for one in own))
    by_group = len(users) > 1 and bool(shared)
    moments = [one.at_us for one in own]
    return Rule(
        agent=first.agent or None,
        tool=first.input.tool.fqn,
        effect=first.input.tool.effect,
        groups=tuple(sorted(shared)) if by_group else (),
        users=() if by_group else tuple(sorted(users)),
        arguments=_enumerations([one.input.args for one in own]),
        calls=len(own),
        persons=len(users),
        first_us=min(moments),
        last_us=max(moments),
    )


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
