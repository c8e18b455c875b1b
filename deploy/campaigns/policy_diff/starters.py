"""Hypothesis strategies for the settings of the gallery's packages: mostly such as can be read, so rules are reached.

Their tools, groups, agents and labels are those of the documents; the examples that come with the packages name others.
"""

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from deploy.campaigns.policy_diff.documents import GROUPS, LABELS, PEOPLE, REGIONS, TOOLS, questioned
from gateway.core.tool import EffectClass

Strategy = st.SearchStrategy[Any]
_ODD: Final[tuple[Any, ...]] = (None, False, -1, 1.5, "", "x", 7, [], [None], {}, {"a": 1})
_bound: Final = st.sampled_from((0, 1, 3, 5, 11, 12, 500, 10**6, 2**53))
_pattern: Final = st.sampled_from(("*", "*", "*", "erp.*", "crm.*", "*.pay", "e-r.???", "*.pay_?", *TOOLS))
_patterns: Final = st.lists(_pattern, min_size=1, max_size=3)
_groups: Final = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2)
_agents: Final = st.lists(st.sampled_from((*PEOPLE, "c*")), min_size=1, max_size=2)
_effects: Final = st.lists(st.sampled_from([str(effect) for effect in EffectClass]), min_size=1, max_size=4)
_people: Final = st.fixed_dictionaries(
    {},
    optional={
        "quorum": st.integers(1, 3),
        "roles": st.lists(st.sampled_from(("cfo", "ap")), max_size=2),
        "ttl_s": st.sampled_from((1, 86_400)),
    },
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _some(keys: tuple[str, ...], value: Strategy) -> Strategy:
    return st.dictionaries(st.sampled_from(keys), value, min_size=1, max_size=len(keys))


def _with(needed: Mapping[str, Strategy], **optional: Strategy) -> Strategy:
    return st.fixed_dictionaries(dict(needed), optional=optional)


def _all_or(names: tuple[str, ...], some: Strategy) -> Strategy:
    return st.one_of(st.just(names).map(list), some)


def _rising(names: tuple[str, str], numbers: Strategy) -> Strategy:
    """Two members of which the second is not the smaller one."""
    return st.lists(numbers, min_size=2, max_size=2).map(lambda two: dict(zip(names, sorted(two), strict=True)))


def _joined(*parts: Strategy) -> Strategy:
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


_low: Final = st.sampled_from((0, 1, 3, 5, 11, 500))
_currency: Final = _joined(
    _rising(("autopilot", "second"), _low),
    _with({"per_call": _bound, "per_run": _bound}, alone_per_run=_low),
)
_hours: Final = _joined(
    _rising(("from", "to"), st.integers(0, 24)).filter(lambda two: two["from"] < two["to"]),
    _with(
        {
            "zone": st.sampled_from(("Europe/Zurich", "UTC", "America/New_York", "Asia/Kolkata")),
            "days": st.one_of(st.just(_DAYS).map(list), st.lists(st.sampled_from(_DAYS), max_size=5)),
        }
    ),
)
_freeze: Final = _rising(
    ("from", "until"), st.sampled_from(("2025-12-31", "2026-01-01", "2026-01-02", "2026-07-05", "2026-07-06"))
).filter(lambda two: two["from"] < two["until"])
_BOUNDS: Final[Mapping[str, Strategy]] = {
    "most": _bound,
    "ticket": st.sampled_from(("CHG-", "x")),
    "freezes": st.lists(_freeze, min_size=1, max_size=2),
    "destructive": st.booleans(),
    "people": _people,
}
_environment: Final = st.one_of(_with(_BOUNDS), _with({}, **_BOUNDS))
_area: Final = _with(
    {"labels": st.lists(st.sampled_from(LABELS), min_size=1, max_size=2), "effects": _effects, "people": _people}
)
_percent: Final = st.sampled_from((0, 20, 40, 60, 80, 100))

SETTINGS: Final[Mapping[str, Strategy]] = {
    "payments": _with(
        {"tools": _patterns, "measure": st.sampled_from(("amount", "amount", "amount", "items")),
         "currencies": _some(("EUR", "USD"), _currency)},
        hours=_hours, roles=st.just(["cfo"]),
    ),
    "infrastructure": _with(
        {"tools": _patterns, "environments": _some(questioned("environment"), _environment),
         "arguments": st.just({"environment": "environment", "count": "count", "ticket": "ticket"})},
    ),
    "access": _with(
        {"tools": _patterns, "arguments": st.just({"user": "user", "role": "role", "days": "days"}),
         "roles": _some(questioned("role"), _with({"most_days": st.sampled_from((1, 5, 30))}, people=_people))},
    ),
    "data_guard": _with(
        {"labels": _some(LABELS, _with({"groups": _groups}, most_retention_days=st.sampled_from((0, 30)))),
         "residency": _some(REGIONS, st.lists(st.sampled_from(REGIONS), max_size=2)),
         "egress": _with({"after": _patterns, "allow": st.lists(_pattern, max_size=2)})},
    ),
    "verify_only": _with(
        {"agents": _agents, "checks": st.lists(_pattern, max_size=2), "changes": st.sampled_from(("hide", "ask")),
         "reads": st.sampled_from(("free", "ask")), "people": _people},
    ),
    "confidence": _joined(
        _rising(("deny_below", "ask_below"), _percent), _rising(("ask_above_risk", "deny_above_risk"), _percent),
        _with({"tools": _patterns, "effects": _effects, "silent": st.sampled_from(("ask", "deny")), "people": _people}),
    ),
    "escalation": _with(
        {"cost": _with({"most_micros": _some(("EUR", "USD"), _bound), "people": _people}), "personal": _area,
         "regulatory": _area},
    ),
    "evidence": _with(
        {"rules": _some(("one", "two"), _with({"tools": _patterns, "needs": _some(("this", "that"), _patterns)}))},
    ),
    "phases": _with(
        {"rollouts": _some(("one", "two"), _with(
            {"tools": _patterns, "phase": st.sampled_from(("observe", "small_group", "small_group", "widen")),
             "groups": _groups},
            calls_per_run=_bound, people=_people,
        ))},
    ),
    "team_scope": _with(
        {"teams": _some(("one", "two"), _with(
            {"groups": _all_or(GROUPS, _groups), "agents": _all_or(PEOPLE, _agents),
             "within": _all_or(("*",), _patterns), "allow": _patterns}))},
    ),
}  # fmt: skip
"""Settings that can be read, by package."""


def house(examples: Mapping[str, Any]) -> Strategy:
    """What stands below ``data.house``: settings that can be read, now and then some that cannot.

    A package that is not known here keeps its example.
    """
    usual = st.fixed_dictionaries({name: SETTINGS.get(name, st.just(example)) for name, example in examples.items()})
    # Of one package at a time: were each spoilt as often, hardly a call of many packages would be let pass.
    odd = st.builds(_with_one_spoilt, usual, st.sampled_from(sorted(examples)), st.randoms(use_true_random=False))
    return st.one_of(usual, usual, usual, usual, odd)


def _with_one_spoilt(made: Mapping[str, Any], name: str, chance: Any) -> dict[str, Any]:
    return {**made, name: _spoilt(made[name], chance)}


def _spoilt(settings: Any, chance: Any) -> Any:
    """The settings with something else in the place of one value, at any depth, or without one member."""
    if not settings or not isinstance(settings, dict | list) or chance.random() < 0.2:  # noqa: PLR2004  now and then whole
        return chance.choice(_ODD)
    if isinstance(settings, list):
        return [_spoilt(settings[0], chance), *settings[1:]]
    key = chance.choice(sorted(settings))
    rest = {name: item for name, item in settings.items() if name != key}
    return rest if chance.random() < 0.2 else {**rest, key: _spoilt(settings[key], chance)}  # noqa: PLR2004
