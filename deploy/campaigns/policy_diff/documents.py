"""Hypothesis strategies: ``gateway.input/v1`` documents as its JSON Schema has them, and the data the packages read.

Names come from small pools, so that lists, limits and documents meet; strings of any kind stand among them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs
from hypothesis import strategies as st

from gateway.core.canonical import MAX_SAFE_INTEGER, encode

Json = Any
SERVERS: Final = ("erp", "crm", "e-r")
NAMES: Final = ("pay", "pay_x", "read.all")
TOOLS: Final = tuple(f"{server}.{name}" for server in SERVERS for name in NAMES)
PEOPLE: Final = ("dora", "clerk", "a")
GROUPS: Final = ("ap", "finance", "crm")
MEASURES: Final = ("amount.EUR", "amount.USD", "items")
LABELS: Final = ("personal", "sox", "internal")
REGIONS: Final = ("eu", "us")
# Arguments that packages of the gallery read, with values that fit and values that do not.
_ARGUMENTS: Final[Mapping[str, Sequence[Any]]] = {
    "environment": ("production", "staging", "production", "staging", "Production", ["production"]),
    "count": (0, 3, 12, 10**6, -1, 2.5, "3", None),
    "ticket": ("CHG-42", "CHG-", "x7", "CHG-1\n", 42),
    "user": ("dora", "Clerk", "ben@example.org", "d\u043era", "a b", ["dora"], ""),
    "role": ("reader", "admin", "Admin", 7),
    "days": (1, 5, 30, 31, 0, "1", 1.5),
}
# Around office hours, a night in which a clock is turned back and one in which it is turned on, and years far off.
_INSTANTS: Final = (
    1770021000000000, 1770015600000000 - 1, 1770015600000000, 1770051600000000 - 1, 1770051600000000, 1770222600000000,
    1774746000000000 - 1, 1774746000000000, 1792890000000000 - 1, 1792890000000000, 1792893600000000, 0,
    1767225600000000, 4102444799999999,
)  # fmt: skip
# What parsers, folds and printers trip over: case mappings, marks, astral characters, formats, huge numbers.
HOSTILE: Final = (
    "", " ", "%s", "%d%%", "*", "{a,b}", "[a", "a.b", "..", "Stra\u00dfe", "\u0130", "\u03c2", "e\u0301", "\U0001f600",
    "\u200b", "\u2028", "\ufffd", "\uffff", "\u202e", "a\nb", "\t", '"', "\\", "${x}", "{{x}}", "null", "true", "1",
    "9007199254740993", "-170141183460469231731687303715884105728", "1e400", "0x10", " 5", "data.gateway", "__proto__",
)  # fmt: skip
_RARE: Final[Mapping[str, Sequence[Json]]] = {
    "context": [{"env": env, "region": region, "channel": "mcp"} for env in ("production", "") for region in REGIONS],
    "vendor": [{"name": "v", "region": "eu"}, {"name": "", "region": "us", "retention_days": 30}],
    "price": [{"micros": 0, "currency": "EUR"}, {"micros": 12, "currency": "EUR"}, {"micros": 2**53, "currency": "%s"}],
    "auth": [{"method": "local", "issuer": "urn:x"}, {"method": "", "issuer": "\U0001f600"}],
    "goal": [{"sha256": "0" * 64, "trusted": trusted} for trusted in (False, True)],
}
_POOLS: Final = {"server": SERVERS, "name": NAMES, "by": PEOPLE, "id": PEOPLE, "tool": TOOLS}
_IN_RUNS_OF_CALLS: Final = ("calls", "sums", "amounts")

word: Final = st.one_of(
    st.sampled_from((*PEOPLE, *GROUPS)), st.sampled_from((*PEOPLE, *SERVERS, *HOSTILE)), st.text(max_size=4)
)
# As the canonical form has them: integers beyond 2^53 are strings.
integer: Final = st.one_of(
    st.integers(-3, 12), st.sampled_from((MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER, 10**15)), st.integers(0, 10**6)
)
_amount: Final = st.one_of(st.sampled_from((0, 1, 4, 11, 12, 501, 10**6)), integer)
fraction: Final = st.sampled_from((0.1, 0.5, 2.5, 1e-7, 1e21, -1.25, 3.0))
scalar: Final = st.one_of(st.none(), st.booleans(), integer, fraction, word)
value: Final = st.recursive(
    scalar, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(word, inner, max_size=3)), max_leaves=6
)


def questioned(name: str) -> tuple[str, ...]:
    """Values of an argument that a package's settings may list."""
    return tuple(item for item in _ARGUMENTS[name][:2] if isinstance(item, str))


@cache
def schema() -> dict[str, Json]:
    """The input's JSON Schema."""
    text = files("gateway").joinpath("schemas", "policy-input.v1.json").read_text("utf-8")
    return dict(json.loads(text))


@cache
def _in_calls() -> frozenset[str]:
    """Members that the schema keeps out of phase ``list``."""
    return frozenset(name for part in schema()["else"]["not"]["anyOf"] for name in part["required"])


def deep(levels: int) -> Json:
    """A value nested so many levels."""
    found: Json = "x"
    for level in range(levels):
        found = [found] if level % 2 else {"a": found}
    return found


def questions(words: Sequence[str]) -> st.SearchStrategy[list[bytes]]:
    """Documents that are asked one after the other; some differ only in what may differ between two calls of a run.

    ``words`` are what the packages at hand compare with.
    """
    return st.lists(_family(tuple(words)), min_size=2, max_size=2).map(
        lambda found: [one for all_ in found for one in all_]
    )


@cache
def _family(words: tuple[str, ...]) -> st.SearchStrategy[list[bytes]]:
    known = st.one_of(word, st.sampled_from(words)) if words else word
    whole = _of(schema(), known)
    run = schema()["properties"]["run"]["properties"]
    other = {
        "time": _of(schema()["properties"]["time"], known),
        "args": _arguments(known),
        **{name: _named(name, run[name], known) for name in _IN_RUNS_OF_CALLS},
    }
    return st.builds(_members, whole, st.lists(st.fixed_dictionaries({}, optional=other), min_size=3, max_size=7))


def _members(first: dict[str, Json], others: list[dict[str, Json]]) -> list[bytes]:
    tool = first["tool"]
    named = {**first, "tool": {**tool, "fqn": f"{tool['server']}.{tool['name']}"}}
    # As for every call, both phases are asked about.
    made = [_other(named, facts) for facts in others]
    return [encode(_fitting({**one, "phase": phase})) for one in made for phase in ("list", "call")]


def _other(first: dict[str, Json], facts: dict[str, Json]) -> dict[str, Json]:
    run = {name: item for name, item in facts.items() if name in _IN_RUNS_OF_CALLS}
    own = {name: item for name, item in facts.items() if name not in run}
    return {**first, **own, "run": {**first["run"], **run}}


def _fitting(document: dict[str, Json]) -> dict[str, Json]:
    """What the schema says across members: who calls, and what is there in phase ``call`` only."""
    made = dict(document)
    if made["principal"]["kind"] == "person":
        made.pop("agent", None)
    else:
        made.setdefault("agent", {"id": made["principal"]["id"]})
        made.setdefault("on_behalf_of", {"id": "dora", "groups": []})
    run = dict(made["run"])
    if made["phase"] == "list":
        made = {name: item for name, item in made.items() if name not in _in_calls()}
        run = {name: item for name, item in run.items() if name not in _IN_RUNS_OF_CALLS}
    else:
        made = {"args": {}, "args_digest": "0" * 64, **made}
        run = {"calls": {}, "sums": {}, **run}
    return {**made, "run": run}


def _arguments(known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    deeply = st.integers(1, 60).map(lambda levels: {"deep": deep(levels)})
    named = {name: st.sampled_from(items) for name, items in _ARGUMENTS.items()}
    whole, read = st.fixed_dictionaries(named), st.fixed_dictionaries({}, optional=named)
    return st.one_of(whole, whole, read, st.dictionaries(known, value, max_size=4), deeply)


def _of(said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    if "$ref" in said:
        return _of(schema()["$defs"][said["$ref"].rpartition("/")[2]], known)
    if "const" in said or "enum" in said:
        return st.sampled_from(said.get("enum", [said.get("const")]))
    if "anyOf" in said:
        return st.one_of([_of(one, known) for one in said["anyOf"]])
    kind = said.get("type")
    if kind == "string":
        return _strings(said.get("pattern", ""), known)
    if kind == "array":
        return st.lists(_of(said["items"], known), min_size=said.get("minItems", 0), max_size=2)
    simple = {"boolean": st.booleans(), "integer": _integers(said), "number": st.one_of(integer, fraction)}
    return simple[kind] if kind in simple else _objects(said, known)


def _objects(said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    if "properties" not in said:
        further = said.get("additionalProperties")
        inner = _of(further, known) if isinstance(further, dict) else value
        return st.dictionaries(_keys(known), inner, min_size=1, max_size=4)
    parts = {name: _named(name, one, known) for name, one in said["properties"].items() if one is not False}
    needed = {name: part for name, part in parts.items() if name in said.get("required", ())}
    found = st.fixed_dictionaries(needed, optional={name: part for name, part in parts.items() if name not in needed})
    return found.filter(bool) if said.get("minProperties") else found


def _named(name: str, said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    # What rules rarely read is drawn in one piece, as every draw takes time; what they match is often a known name.
    if name in _RARE:
        return st.sampled_from([item for item in _RARE[name] if _fits(said, item)])
    if name in _OWN:
        return _OWN[name](said, known)
    if name in _POOLS and said.get("type") == "string":
        return st.sampled_from((*_POOLS[name] * 40, *HOSTILE))
    return _of(said, known)


def _instants(_said: Mapping[str, Json], _known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    # Up to 2099: for how long after it clocks will be turned, the engines' tables of zones do not agree.
    return st.one_of(st.sampled_from(_INSTANTS), st.integers(0, _INSTANTS[-1]))


def _labels(_said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    return st.lists(st.one_of(st.sampled_from(LABELS), known), max_size=2)


def _groups(_said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    some = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3)
    return st.one_of(some, some, st.lists(known, max_size=2))


def _amounts(said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    one, some = st.fixed_dictionaries({"amount.EUR": _amount}), st.dictionaries(st.sampled_from(MEASURES), _amount)
    return st.one_of(one, one, one, some, _of(said, known))


def _sums(said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    # As a rule totals that are numbers: what is beyond 2^53 is text, and cannot be counted.
    totals = st.dictionaries(st.sampled_from(MEASURES), _amount, min_size=1, max_size=2)
    past = st.dictionaries(st.sampled_from(TOOLS), totals, max_size=2)
    return st.one_of(past, past, past, _of(said, known))


def _args(_said: Mapping[str, Json], known: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    return _arguments(known)


_OWN: Final = {
    "us": _instants,
    "args": _args,
    "amounts": _amounts,
    "sums": _sums,
    "labels": _labels,
    "groups": _groups,
}


def _fits(said: Mapping[str, Json], item: Json) -> bool:
    return jsonschema_rs.is_valid({"$defs": schema()["$defs"], **said}, item)


def _keys(known: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from((*TOOLS, *MEASURES) * 4), known)


def _integers(said: Mapping[str, Json]) -> st.SearchStrategy[int]:
    least, most = said.get("minimum", -(2**63)), said.get("maximum", 2**63)
    if most - least <= 100:  # noqa: PLR2004  percentages
        return st.integers(least, most)
    return integer.map(lambda number: min(max(number, least), most))


def _strings(pattern: str, known: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    if "[0-9a-f]{64}" in pattern:
        return st.sampled_from(("0" * 64, "ab" * 32))
    if "T" in pattern:
        return st.sampled_from(("2026-01-01T00:00:00.000000Z", "2026-07-05T13:37:59.999999Z"))
    return st.integers(10**16, 10**30).map(str) if pattern else known
