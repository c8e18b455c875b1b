"""A package inside another's names: without exporting ``allow`` it would allow, so it never gets that far."""

import json

import pytest

from deploy.campaigns.policy_diff.embedded import Embedded
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.preflight import examine
from gateway.adapters.rego.probe import PROBES
from gateway.adapters.rego.routing import NOWHERE
from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.decision import grants

GRANT = 'package gateway.policies.grant\n\nallow contains {"id": "grant.ok", "msg": "ok"} if data.house.lib.fine\n'
LISTS = {"gateway": {"scope": {side: {"probe": {"allow": ["nothing.*"]}} for side in ("agents", "users")}}}
# The library that is asked, and what would answer in its place: each was seen to allow on the embedded engine.
TAKEN = {
    "a built-in": (
        'fine if regex.match("^never$", input.agent.id)',
        "package house.lib.regex\n\nmatch(_, _) := true\n",
    ),
    "a plain built-in": (
        'fine if startswith(input.agent.id, "never")',
        "package house\n\nlib.startswith(_, _) := true\n",
    ),
    "an import": ("import data.house.vip\n\nfine if vip.probe", "package house.lib.vip\n\nprobe := true\n"),
    "a rule": ('fine if vip.probe\n\nvip := {"other": true}', "package house.lib.vip\n\nprobe := true\n"),
    "a rule that is undefined": ("fine if vip\n\nvip if input.args.x", "package house\n\nlib.vip := true\n"),
    "a default": ("fine if vip\n\ndefault vip := false", "package house\n\nlib.vip := true\n"),
}


def allows(bundle: Bundle) -> bool:
    """Whether the engine, asked without any lint, lets the made-up agent call the made-up tool."""
    engine = Embedded(NOWHERE)
    engine.load(bundle)
    result = engine.ask(PROBES[1]).result
    return result is not None and grants(result)


def house(rules: str, *more: str) -> Bundle:
    """The shipped packages, one that grants by a library, the library, and others."""
    texts = [GRANT, f"package house.lib\n\n{rules}\n", *more]
    own = [Module(f"house/{number}.rego", text) for number, text in enumerate(texts)]
    return bundled([*load([shipped()]).modules, *own], {})


@pytest.mark.parametrize("case", TAKEN)
async def test_what_would_answer_in_anothers_place_is_refused(case: str) -> None:
    """The engine would take it and allow; the lint names it by file and line."""
    rules, nested = TAKEN[case]
    assert not allows(house(rules))
    bundle = house(rules, nested)
    assert allows(bundle), "the engine no longer does this: the case shows nothing"
    findings = (await examine(bundle.modules)).findings
    assert {one.rule for one in findings} == {"GW008"}
    assert all("house.lib" in one.message and one.line for one in findings)


async def test_the_shipped_library_is_not_answered_for() -> None:
    """Lists that cover nothing would cover everything."""
    modules = load([shipped()]).modules
    assert not allows(bundled(modules, LISTS))
    bundle = bundled(
        [*modules, Module("evil/x.rego", "package gateway.lib.scope.regex\n\nmatch(_, _) := true\n")], LISTS
    )
    engine = Embedded(NOWHERE)
    engine.load(bundle)
    said = json.loads(engine.ask(PROBES[1]).result or b"{}")
    assert said["allow"]["authz"], "the engine no longer does this: the case shows nothing"
    (finding,) = (await examine(bundle.modules)).findings
    assert (finding.file, finding.line, finding.rule) == ("evil/x.rego", 1, "GW008")
    assert "would take the place of regex in package gateway.lib.scope (shipped/lib/scope.rego)" in finding.message


async def test_packages_that_only_stand_below_one_another_are_fine() -> None:
    """A library below a package that calls it by an import, or does not know its name."""
    rules = "import data.house.lib.text\n\nfine if text.short(input.agent.id)"
    text = "package house.lib.text\n\nshort(x) if x != input.tool.fqn\n"
    bundle = house(rules, text, "package house.lib.other\n\nstartswith(_, _) := true\n")
    assert (await examine(bundle.modules)).findings == []
    assert allows(bundle)
