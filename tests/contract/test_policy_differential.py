"""The embedded engine held against OPA itself, over all packages that come with the gateway."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from deploy.campaigns.policy_diff import campaign, facts
from deploy.campaigns.policy_diff.differences import Comparison, Difference, Package, packages
from deploy.campaigns.policy_diff.documents import questions, schema
from deploy.campaigns.policy_diff.oracle import Oracle
from deploy.campaigns.policy_diff.starters import SETTINGS
from gateway.adapters.rego import worker
from gateway.adapters.rego.gallery import starters
from gateway.adapters.rego.lists import problems
from gateway.adapters.rego.routing import NOWHERE
from gateway.core.bundle import Module
from tests.oracles import oracle
from tests.rego_demo import demo, saying
from tests.tiers import tiered

__all__ = ["oracle"]

# The policy-diff campaign makes many times as many; what the engines read differently shows in far fewer.
INPUTS = tiered([400], deep=[2000])
HEARD = frozenset({"a.b", "a.c"})
ASK = "package asked\n\nreadable if data.gateway.lib.NAME.sound\n"
# About so many documents are in an example.
EACH = 16
QUICK = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)


@pytest.fixture(scope="module")
async def every() -> Sequence[Package]:
    """All packages: what is read of them is read once."""
    return tuple(await packages())


@pytest.mark.parametrize("inputs", INPUTS)
async def test_engines_agree_on_all_packages(oracle: Oracle, every: Sequence[Package], inputs: int) -> None:
    """Whatever the input: the same effects, reasons, requirements, obligations, faults, and the same sets."""
    counts = Counter[str]()
    for package in every:
        compared = Comparison(package, oracle)
        _compare(compared, 1 + inputs // EACH // len(every))
        counts += compared.counts
    assert counts["inputs"] >= inputs
    assert all(counts[f"effect {effect}"] for effect in ("allow", "deny", "needs_approval"))
    assert counts["recalled"] > 0


def _compare(compared: Comparison, examples: int) -> None:
    data = json.loads(compared.package.bundle.data)

    @settings(QUICK, max_examples=examples)
    @given(facts.varied(data), questions(compared.package.words))
    def compare(data: dict[str, Any], documents: list[bytes]) -> None:
        compared.compare(data, documents)

    compare()


@settings(QUICK, max_examples=30)
@given(facts.gateway, questions(("word",)))
def test_what_is_asked_is_what_the_gateway_makes(shipped: dict[str, Any], documents: list[bytes]) -> None:
    """Every document is of the input's schema, and the data is such as loads."""
    assert problems({"gateway": shipped}) == []
    for document in documents:
        jsonschema_rs.validate(schema(), json.loads(document))


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ('deny contains {"id": "x.y", "msg": "m"} if glob.match("{*erp_*,*}", null, input.tool.fqn)', "effect"),
        ('allow contains {"id": "x.y", "msg": "m", "fact": sprintf("%s", [1])} if true', "reasons"),
        ('require contains {"id": "x.y", "msg": "m", "quorum": count("\U0001f600")} if true', "requirements"),
        ('oblige contains {"id": "x.y", "kind": "timeout", "timeout_s": 0.1 + 0.2} if true', "obligations"),
        (
            'oblige contains {"id": "x.y", "kind": "timeout", "timeout_s": 1, "msg": sprintf("%s", [1])} if true',
            "result",
        ),
    ],
)
def test_a_difference_is_found(oracle: Oracle, rule: str, part: str) -> None:
    """Each part of a decision is compared; the message says with what to see it again."""
    allow = 'allow contains {"id": "x.ok", "msg": "m"} if input.tool.fqn\n\n'
    bundle = demo(f"package gateway.policies.x\n\n{allow}{rule}\n")
    document = json.dumps({"phase": "call", "tool": {"fqn": "crm.pay"}}).encode()
    with pytest.raises(Difference, match=f"(?s)^x: {part} differs\ndata: .*input: .*crm.pay.*embedded: .*opa: "):
        Comparison(Package("x", bundle, NOWHERE, ()), oracle).compare({}, [document])


def test_faults_are_compared(oracle: Oracle) -> None:
    """Where both fail they agree, and it is counted as what it is."""
    compared = Comparison(Package("demo", demo(), NOWHERE, ()), oracle)
    compared.compare({}, [saying("error", zero=0), saying("yes")])
    assert compared.counts["reason engine.error"] == 1
    assert compared.counts["inputs"] == 2


def test_a_campaign_that_met_no_allow_shows_nothing() -> None:
    """Agreement on denials alone is no evidence, nor is it of a reason that was never given."""
    tally = campaign.Tally(Counter({"effect deny": 9, "effect needs_approval": 1, "reason a.b": 1}), ids=HEARD)
    assert tally.hollow() == ["no decision was allow", "no decision said a.c"]


def test_packages_of_the_gallery_are_compared_as_they_are_copied(every: Sequence[Package]) -> None:
    """Each with its settings where its rules read them, with the ids of its reasons, and all of them together."""
    found = {package.name: package for package in every}
    assert set(found) == {"shipped", "gallery", *starters()}
    assert found["shipped"].ids == ()
    for name in starters():
        assert set(json.loads(found[name].bundle.data)["house"]) == {name}
        assert f"{name}.settings" in found[name].ids
    assert set(json.loads(found["gallery"].bundle.data)["house"]) == set(starters()) == set(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_that_are_made_can_be_read(name: str, every: Sequence[Package]) -> None:
    """But for those that are spoilt on purpose, or the rules would never be reached."""
    (package,) = [package for package in every if package.name == name]
    modules = [*package.bundle.modules, Module("ask.rego", ASK.replace("NAME", name))]
    # Read once: of the settings, not of the rules, there are many.
    engine = worker._engine([[one.name, one.text] for one in modules], "{}")[0]

    @settings(QUICK, max_examples=25, deadline=None)
    @given(SETTINGS[name])
    def readable(made: Any) -> None:
        engine.clear_data()
        engine.add_data_json(json.dumps({"house": {name: made}}))
        engine.set_input_json("{}")
        assert engine.eval_rule_as_json("data.asked.readable") == "true", made

    readable()
