"""A layer that is held to restrict can only restrict, whatever its author tries: asked of the real engine."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.campaigns.policy_diff.embedded import Embedded
from deploy.campaigns.policy_diff.oracle import Oracle
from gateway.adapters.rego import lint, lint_layers
from gateway.adapters.rego.layers import Layer, gallery, joined, read, shipped
from gateway.adapters.rego.preflight import examine
from gateway.adapters.rego.probe import PROBES
from gateway.adapters.rego.routing import NOWHERE
from gateway.adapters.rego.trees import Source, source
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Decision, Effect, Evaluation, fold
from tests.oracles import oracle
from tests.tiers import tiered

__all__ = ["oracle"]

WORD = '{"id": "x.y", "msg": "m"}'
SHIPPED = read(shipped())
MAIN_ALONE = Layer("house", {"main.rego": SHIPPED.files["main.rego"]})
# What the other layers hold. Each package reads what a hostile layer would like to set for it.
GRANTS = "package gateway.policies.grants\n\n"
READERS = (
    f"allow contains {WORD} if data.house.vip[input.agent.id]\n",
    f"allow contains {WORD} if data.house.lib.fine\n",
    f'import data.house\n\nallow contains {WORD} if input.agent.id in object.get(house, ["more", "vip"], [])\n',
    f"import data.house.vip as very\n\nallow contains {WORD} if very[input.agent.id]\n",
    f'allow contains {WORD} if input.phase == "list"\n\ndeny contains {WORD} if not data.house.off\n',
    f"allow contains {WORD} if input\n\ndeny contains {WORD} if data.house.lib.blocked\n",
    f"allow contains {WORD} if input\n\nrequire contains {WORD} if not data.house.off\n",
    f'allow contains {WORD} if input\n\noblige contains {{"id": "x.t", "kind": "timeout", "timeout_s": 5}} if input\n',
    f"allow contains {WORD} if data.gateway.policies.org.seen\n",
    f"allow contains {WORD} if walk(data, [_, true])\n",
)
LIB = """package house.lib

fine if regex.match("^never$", input.agent.id)

fine if startswith(input.agent.id, "never")

default blocked := false

blocked if input.agent.id == "probe"
"""
GIVEN: tuple[dict[str, Any], ...] = ({}, {"house": {"vip": {"other": True}}}, {"house": {"off": False}})
# What a layer may hold: packages, rules and data, loosening or not, put together in every way.
PACKAGES = (
    "gateway.policies.org",
    "gateway.policies.late",
    "gateway.policies.grants.org",
    "gateway.lib.org",
    "gateway.lib.scope.regex",
    "gateway.main",
    "house",
    "house.lib",
    "house.lib.regex",
    "house.off",
    "house.vip",
    "house.more",
    "org.lib",
    "system.authz",
)
ACCEPTS = '"accept_missing": ["memory", "pids"]'
LOOSENING = {
    "allow contains": f"allow contains {WORD} if true",
    "allow contains, computed": f"allow contains word if word := {WORD}",
    "allow :=": f"allow := [{WORD}]",
    "allow, a set": f"allow := {{{WORD}}} if true",
    "default allow": f"default allow := [{WORD}]",
    "allow, else": f"allow := [] if {{\n\tinput.args.x == 1\n}} else := [{WORD}]",
    "oblige, accepting": f'oblige contains {{"id": "x.s", "kind": "sandbox", {ACCEPTS}}} if true',
    "oblige, computed": f'oblige contains it if it := {{"id": "x.s", "kind": "sandbox", {ACCEPTS}}}',
    "oblige, computed kind": f'oblige contains {{"id": "x.s", "kind": kind, {ACCEPTS}}} if kind := "sandbox"',
    "oblige, computed member": f'oblige contains {{"id": "x.s", key: "sandbox", {ACCEPTS}}} if key := "kind"',
    "oblige, twice": f'oblige contains {{"id": "x.s", "kind": "timeout", "k\\u0069nd": "sandbox", {ACCEPTS}}} if true',
    "oblige, spelt": f'oblige contains {{"id": "x.s", `kind`: `sandbox`, {ACCEPTS}}} if true',
    "default oblige": f'default oblige := [{{"id": "x.s", "kind": "sandbox", {ACCEPTS}}}]',
}
RESTRICTING = {
    "deny": f'deny contains {WORD} if input.agent.id == "probe"',
    "require": f"require contains {WORD} if true",
    "require of the shipped name": 'require contains {"id": "approval.required", "msg": "m", "quorum": 1} if true',
    "timeout": 'oblige contains {"id": "x.t", "kind": "timeout", "timeout_s": 9} if true',
    "rate": 'oblige contains {"id": "x.r", "kind": "rate_limit", "per_minute": 900} if true',
    "nothing may lack": 'oblige contains {"id": "x.s", "kind": "sandbox", "accept_missing": []} if true',
    "nothing said of lacking": 'oblige contains {"id": "x.s", "kind": "sandbox"} if true',
    "hint": f"hint contains {WORD} if true",
    "deny under other data": f'deny contains {WORD} if data.house.lib.fine with data.house.vip as {{"probe": true}}',
}
NAMED = ("match(_, _) := true", "fine := true", "blocked := false", "off := true", "seen := true", "probe := true")
NAMED_BELOW = ("lib.fine := true", "lib.startswith(_, _) := true", 'vip["probe"] := true', "regex.match(_, _) := true")
DATA: tuple[dict[str, Any], ...] = (
    {},
    {"org": {"vip": {"probe": True}}},
    {"house": {"vip": {"probe": True}}},
    {"house": {"off": True}},
    {"house": {"more": {"vip": ["probe"]}}},
    {"house": {"lib": {"fine": True, "blocked": False}}},
    {"house": {"other": True}},
    {"gateway": {"scope": {side: {"probe": {"allow": ["probe.*", "code.*"]}} for side in ("agents", "users")}}},
    {"gateway": {"sandbox": {"accept_missing": ["memory"]}}},
    {"gateway": {"approval": {"unattended": ["probe.probe"]}}},
    {"gateway": {"policies": {"org": {"allow": [json.loads(WORD)]}}}},
)
RULES = (*LOOSENING.values(), *RESTRICTING.values(), *NAMED, *NAMED_BELOW)


def documents() -> Iterator[bytes]:
    """Listing, calls of effects and connectors that rules treat otherwise, by two agents."""
    yield from PROBES
    call = json.loads(PROBES[1])
    for effect, connector, agent in (("money", "mcp", "probe"), ("read", "code", "probe"), ("read", "mcp", "other")):
        tool = call["tool"] | {"effect": effect, "connector": connector}
        yield json.dumps(call | {"tool": tool, "agent": {"id": agent}}).encode()


DOCUMENTS = tuple(documents())


def said(bundle: Bundle) -> list[Decision] | None:
    """What the engine says to each document, asked without any lint; None where it does not even load the bundle."""
    engine = Embedded(NOWHERE)
    try:
        engine.load(bundle)
    except Exception:  # noqa: BLE001  a worker's own refusals, and whatever the engine says
        return None
    return asked_of(engine, bundle)


def asked(oracle: Oracle, bundle: Bundle) -> list[Decision]:
    """What OPA says to each document."""
    oracle.load(bundle)
    return asked_of(oracle, bundle)


def asked_of(engine: Embedded | Oracle, bundle: Bundle) -> list[Decision]:
    """The word of an engine that has loaded the bundle."""
    answers = [engine.ask(document) for document in DOCUMENTS]
    results, faults = tuple(one.result for one in answers), tuple(one.fault for one in answers)
    return fold("d", DOCUMENTS, Evaluation(results, faults, bundle.revision, "engine"))


_ORDER = (Effect.ALLOW, Effect.NEEDS_APPROVAL, Effect.DENY)


def is_looser(after: Decision, before: Decision) -> bool:
    """Whether a call gets further, is asked of fewer people, or is bound less."""
    if _ORDER.index(after.effect) != _ORDER.index(before.effect):
        return _ORDER.index(after.effect) < _ORDER.index(before.effect)
    if after.effect is Effect.DENY:
        return False
    now, then = after.obligations, before.obligations
    return (
        not set(before.requirements) <= set(after.requirements)
        or (then.timeout_s is not None and (now.timeout_s is None or now.timeout_s > then.timeout_s))
        or (then.per_minute is not None and (now.per_minute is None or now.per_minute > then.per_minute))
        or not set(now.accept_missing) <= set(then.accept_missing)
    )


def loosens(without: Bundle, whole: Bundle) -> bool:
    """Whether any document gets a looser word with the layer than without it."""
    before, after = said(without), said(whole)
    if after is None:
        return False  # it never comes into force
    # Others that nobody can ask decide nothing.
    return any(
        is_looser(now, then) for now, then in zip(after, before or said(bundle_of(MAIN_ALONE)) or (), strict=True)
    )


def bundle_of(*layers: Layer) -> Bundle:
    """The layers together."""
    return joined(layers)


def parsed(bundle: Bundle) -> tuple[list[Source], frozenset[str]]:
    """The syntax trees, made in this process, where thousands of bundles are looked at."""
    found = []
    for module in bundle.modules:
        engine = regorus.Engine()
        engine.add_policy(module.name, module.text)
        found.append(source(module.name, module.text, json.loads(engine.get_ast_as_json())[0]["ast"]))
    builtins = json.loads(regorus.Engine().eval_query_as_json("opa.runtime()"))
    return found, frozenset(builtins["result"][0]["expressions"][0]["value"]["builtins"])


def findings(bundle: Bundle) -> list[str]:
    """What the lint says of it, in this process; as ``examine`` does, which the table below asks itself."""
    sources, builtins = parsed(bundle)
    plain = [module.name for module in bundle.modules if module.text.encode() == SHIPPED.files["main.rego"]]
    return [str(one) for one in (*lint.lint(sources, builtins), *lint_layers.lint(sources, bundle.deny_only, plain))]


def layer(packages: Sequence[tuple[str, Sequence[str]]], data: dict[str, Any]) -> Layer:
    """A layer that is held to restrict."""
    files = {f"{number}.rego": _module(name, rules) for number, (name, rules) in enumerate(packages)}
    return Layer("org", files | {"data.json": json.dumps(data).encode()}).restricted("gateway.toml")


def _module(name: str, rules: Sequence[str]) -> bytes:
    return ("\n\n".join([f"package {name}", *rules]) + "\n").encode()


def others(reader: str, lists: int, *, ships: bool, lib: bool) -> list[Layer]:
    """The layers that decide without it."""
    files = {"grants.rego": (GRANTS + reader).encode(), "data.json": json.dumps(GIVEN[lists]).encode()}
    files |= {"lib.rego": LIB.encode()} if lib else {}
    return [SHIPPED if ships else MAIN_ALONE, Layer("team", files)]


MADE_PACKAGES = st.lists(
    st.tuples(st.sampled_from(PACKAGES), st.lists(st.sampled_from(RULES), max_size=3, unique=True)),
    min_size=1,
    max_size=2,
    unique_by=lambda made: made[0],
)
OTHERS = st.builds(
    others, st.sampled_from(READERS), st.integers(0, len(GIVEN) - 1), ships=st.booleans(), lib=st.booleans()
)


@pytest.mark.parametrize("layers_made", tiered([40], deep=[400]))
def test_what_passes_never_loosens(layers_made: int) -> None:
    """No made-up layer that the lint lets through loosens a word of the engine; many that it refuses would."""
    count: Counter[str] = Counter(passed=0, refused=0, loosening=0)

    @settings(max_examples=layers_made, deadline=None, database=None)
    @given(OTHERS, MADE_PACKAGES, st.sampled_from(DATA))
    def ask(rest: list[Layer], packages: list[tuple[str, list[str]]], data: dict[str, Any]) -> None:
        try:
            without, whole = bundle_of(*rest), bundle_of(*rest, layer(packages, data))
        except BundleError:
            return  # refused before any lint
        looser, refused = loosens(without, whole), findings(whole)
        count.update(["refused" if refused else "passed", *(["loosening"] if looser else [])])
        assert refused or not looser, "it loosens, and the lint lets it through"

    ask()
    assert min(count.values()) >= 3, count


def test_nor_does_it_on_opa(oracle: Oracle) -> None:
    """All that may stand there at once, beside each of the others: OPA says nothing looser either."""
    own = layer([("gateway.policies.org", list(RESTRICTING.values()))], {"org": {"x": 1}})
    beside = [others(reader, 2, ships=True, lib=True) for reader in READERS]
    sound = [rest for rest in beside if not findings(bundle_of(*rest, own))]
    # The two that read the layer's own package, and everything, must do without it.
    assert len(sound) == len(beside) - 2
    for rest in sound:
        whole = bundle_of(*rest, own)
        before, after = asked(oracle, bundle_of(*rest)), asked(oracle, whole)
        assert not any(is_looser(now, then) for now, then in zip(after, before, strict=True))
        assert {one.effect for one in after} <= {Effect.DENY, Effect.NEEDS_APPROVAL}


@pytest.mark.parametrize("case", LOOSENING)
async def test_each_way_to_loosen_is_named_by_file_and_line(case: str) -> None:
    """The engine would take it and loosen; the lint refuses it where it stands."""
    own = layer([("gateway.policies.org", [RESTRICTING["deny"].replace("probe", "nobody"), LOOSENING[case]])], {})
    rest = [MAIN_ALONE, Layer("team", {"a.rego": f"{GRANTS}allow contains {WORD} if input.args.x\n".encode()})]
    if "oblige" in case:
        rest[1] = Layer("team", {"a.rego": f"{GRANTS}allow contains {WORD} if input\n".encode()})
    whole = bundle_of(*rest, own)
    assert loosens(bundle_of(*rest), whole), "the engine does not do this: the case shows nothing"
    found = [one for one in (await examine(whole.modules, whole.deny_only)).findings if one.rule == "GW006"]
    assert [(one.file, one.line) for one in found] == [("org/0.rego", 5)]
    assert found[0].message.endswith("(org is deny-only, says gateway.toml)")


@pytest.mark.parametrize("case", RESTRICTING)
async def test_what_only_restricts_may_stand_there(case: str) -> None:
    """No finding, and it comes into force."""
    whole = bundle_of(SHIPPED, layer([("gateway.policies.org", [RESTRICTING[case]])], {"org": {"x": 1}}))
    assert (await examine(whole.modules, whole.deny_only)).findings == []
    assert said(whole) is not None


def test_starter_packages_may_stand_there_unless_they_allow() -> None:
    """With their libraries and data, as ``policy new`` writes them."""
    for folder in sorted(path for path in gallery().iterdir() if path.is_dir()):
        own = read(folder).restricted("gateway.toml")
        grants = any(b"\nallow contains" in content for name, content in own.files.items() if "_test" not in name)
        rules = {one.split(": ")[1][:5] for one in findings(bundle_of(SHIPPED, own))}
        assert rules == ({"GW006"} if grants else set()), folder.name


# What stands elsewhere and would be read by others: package, rules, data, and the file and line that is named.
ELSEWHERE: list[tuple[str, str, dict[str, Any], str]] = [
    ("house.vip", "probe := true", {}, "org/0.rego:1: GW006 package house.vip is read at team/grants.rego:3"),
    ("gateway.main", "x := true", {}, "org/0.rego:1: GW006 package gateway.main is not for a deny-only layer"),
    ("system.authz", "allow := true", {}, "org/0.rego:1: GW006 package system.authz is not for a deny-only layer"),
    ("house.lib.more", "x := true", {}, "org/0.rego:1: GW006 package house.lib.more stands above or below package"),
    ("org.lib", "x := 1", DATA[2], "org/data.json:0: GW006 data.house.vip.probe is read at team/grants.rego:3"),
    ("org.lib", "x := 1", DATA[5], "org/data.json:0: GW006 data.house.lib.blocked stands where a package of another"),
    ("org.lib", "x := 1", DATA[8], "org/data.json:0: GW006 data.gateway.sandbox.accept_missing is not for a deny-only"),
]


@pytest.mark.parametrize(("package", "rules", "data", "words"), ELSEWHERE)
async def test_what_others_read_is_not_set(package: str, rules: str, data: dict[str, Any], words: str) -> None:
    """Packages and data that decisions of other layers depend on are named, with who reads them."""
    rest = others(READERS[0], 0, ships=True, lib=True)
    whole = bundle_of(*rest, layer([(package, [rules])], data))
    said_of = [str(one) for one in (await examine(whole.modules, whole.deny_only)).findings if one.rule == "GW006"]
    assert any(one.startswith(words) for one in said_of), said_of


async def test_another_main_reads_everything() -> None:
    """Beside a package ``gateway.main`` of one's own nothing is certain, so no layer is taken that is to restrict."""
    main = SHIPPED.files["main.rego"] + b"\n# mine\n"
    whole = bundle_of(Layer("house", {"main.rego": main}), layer([("gateway.policies.org", [RESTRICTING["deny"]])], {}))
    (found,) = (await examine(whole.modules, whole.deny_only)).findings
    assert (found.file, found.rule) == ("org/0.rego", "GW006")
    assert "package gateway.policies.org is read at house/main.rego:" in found.message
