"""The gallery: every starter package is sound, tested, covered, routed as intended, and copied under any name."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.rego import testing
from gateway.adapters.rego.gallery import starters
from gateway.adapters.rego.layers import gallery, load, shipped
from gateway.adapters.rego.preflight import examine
from gateway.cli.root import ostiary
from gateway.core.bundle import BundleError, Module, bundled
from gateway.core.decision import Phase
from tests.rego_demo import SETTINGS, decide, serving
from tests.tiers import tiered

NAMES = sorted(starters())
DOCS = Path(__file__).parents[2] / "docs" / "gallery"
# The packages that look at what differs from call to call, and so must have a guard that takes them out.
READERS = {"access", "confidence", "data_guard", "evidence", "infrastructure", "payments", "phases"}
# No text: where a time zone stands, one that is none is a fault, and so refused at load (below).
ODDITIES: tuple[Any, ...] = (None, False, -1, 1.5, [], [None], {}, {"a": 1})
ODD_TEST = """package gateway.tests.odd_settings

said(odd, request) := denials if {
	denials := data.gateway.main.decision.deny with input as request with data.house.NAME as odd
}

test_odd if {
	every odd in data.odds {
		every request in data.requests {
			is_object(said(odd, request))
		}
	}
}
"""
# Calls that the examples are about, as changes of ``call``; packages that are not named here are about every call.
CONCERNED: dict[str, dict[str, Any]] = {
    "access": {"tool": {"server": "iam", "fqn": "iam.grant"}, "args": {"user": "ben", "role": "editor", "days": 3}},
    "confidence": {"tool": {"effect": "write"}, "risk": {"confidence_pct": 40, "score_pct": 60}},
    "data_guard": {"tool": {"labels": ["personal"], "open_world": True}, "run": {"calls": {"hr.find": 1}}},
    "escalation": {"tool": {"labels": ["sox"], "effect": "write", "price": {"micros": 600000, "currency": "EUR"}}},
    "evidence": {"tool": {"fqn": "bank.pay"}, "evidence": [{"call_id": "c", "tool": "vendors.find"}]},
    "infrastructure": {
        "tool": {"fqn": "infra.scale", "effect": "destructive"},
        "args": {"environment": "production", "count": 9, "ticket": "CHG-1"},
    },
    "payments": {"tool": {"fqn": "bank.pay", "effect": "money"}, "run": {"amounts": {"amount.EUR": 300000}}},
    "phases": {"tool": {"fqn": "crm.update", "effect": "write"}, "run": {"calls": {"crm.update": 9}}},
    "team_scope": {
        "tool": {"fqn": "crm.find_x"},
        "agent": {"id": "example-crm-agent"},
        "on_behalf_of": {"groups": ["example-sales"]},
    },
    "verify_only": {"tool": {"effect": "write"}, "agent": {"id": "auditor"}},
}
OPEN = {"agents": {"*": {"allow": ["*"]}}, "users": {"*": {"allow": ["*"]}}}


def ask(*words: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(ostiary, words)


def ids_of(text: str) -> set[str]:
    """Ids of the reasons in a package."""
    return set(re.findall(r'"id": "([^"]+)"', text))


def call(tool: dict[str, Any]) -> bytes:
    """A call of a tool that no example names."""
    facts: dict[str, Any] = {
        "schema": "gateway.input/v1",
        "phase": "call",
        "kind": "tool",
        "args": {},
        "args_digest": "0" * 64,
    }
    facts |= {"time": {"us": 1767225600000000, "rfc3339": "2026-01-01T00:00:00.000000Z"}}
    facts |= {"context": {"env": "test", "region": "eu", "channel": "rest"}}
    facts |= {"principal": {"kind": "agent", "id": "helper"}, "agent": {"id": "helper"}}
    facts |= {"on_behalf_of": {"id": "dora", "groups": []}}
    facts["run"] = {"id": "r", "kind": "implicit", "opened_by": "dora", "calls": {}, "sums": {}, "amounts": {}}
    whole: dict[str, Any] = {
        "server": "any",
        "name": "tool",
        "fqn": "any.tool",
        "effect": "read",
        "connector": "mcp",
        "digest": "d",
    }
    whole |= {"labels": [], "open_world": False, "price": {"micros": 0, "currency": "EUR"}, **tool}
    return json.dumps(facts | {"tool": whole}).encode()


def concerned(name: str) -> dict[str, Any]:
    """A call that the package's example is about."""
    facts: dict[str, Any] = json.loads(call({}))
    for member, more in CONCERNED[name].items():
        facts[member] = {**facts.get(member, {}), **more} if isinstance(more, dict) else more
    return facts


def odd(settings: Any) -> Iterator[Any]:
    """The settings with something else in the place of each value, and without each member."""
    yield from ODDITIES
    members = (
        settings.items() if isinstance(settings, dict) else enumerate(settings) if isinstance(settings, list) else ()
    )
    for key, value in members:
        for other in odd(value):
            yield (
                {**settings, key: other}
                if isinstance(settings, dict)
                else [*settings[:key], other, *settings[key + 1 :]]
            )
        if isinstance(settings, dict):
            yield {name: item for name, item in settings.items() if name != key}


def test_the_gallery_is_sound_tested_and_covered() -> None:
    """No findings, every test is true, and every line is evaluated."""
    assert testing.check(gallery()) == []
    report = testing.test(gallery(), 30.0)
    assert [result for result in report.results if not result.passed] == []
    assert [item.file for item in report.coverage if item.missed] == []
    tested = {re.sub(r"^data\.gateway\.tests\.(\w+)\..*", r"\1", result.rule) for result in report.results}
    assert tested == set(NAMES)


def test_none_of_it_is_in_force_unless_it_is_copied() -> None:
    """The shipped layer leaves the gallery out; as a layer of its own it can be read."""
    assert not any("gallery" in module.name for module in load([shipped()]).modules)
    assert len(load([shipped(), gallery()]).modules) > len(load([shipped()]).modules) + len(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_a_package_has_a_say_only_where_it_is_concerned(name: str) -> None:
    """By its guard: what it reads of arguments, time and past does not make other calls of the bundle differ."""
    routes = (await examine(load([shipped(), gallery() / name]).modules)).routes
    guards = {"data.gateway.policies.limits.limited"}
    guards |= {f"data.gateway.policies.{name}.concerned"} if name in READERS else set()
    assert set(routes.guards) == guards
    everything = (1 << len(routes.guards)) - 1
    assert routes.holds(Phase.CALL, everything)
    assert routes.holds(Phase.LIST, everything)
    own = routes.guards.index(f"data.gateway.policies.{name}.concerned") if name in READERS else None
    assert own is None or not routes.holds(Phase.CALL, everything & ~(1 << own))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_package_says_of_itself(name: str) -> None:
    """METADATA names its data, what it exports and the ids of its reasons, and its page and the list name them, too."""
    text = starters()[name].files[f"{name}.rego"]
    head, _, rules = text.partition(f"\npackage gateway.policies.{name}\n")
    assert f"#   data: data.house.{name}\n" in head
    exports = re.search(r"#   exports: \[(.*)\]", head)
    assert exports is not None
    assert set(exports[1].split(", ")) == set(re.findall(r"^(\w+) contains \{\n\t\"id\"", rules, re.MULTILINE))
    assert ("allow" in exports[1]) == (name == "team_scope")
    assert set(re.findall(rf"#     - ({name}\.\w+)", head)) == ids_of(rules)
    page = (DOCS / f"{name}.md").read_text("utf-8")
    assert [known for known in ids_of(rules) if f"`{known}`" not in page] == []
    assert f"({name}.md)" in (DOCS / "README.md").read_text("utf-8")
    assert f"ostiary policy new {name}" in page


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_its_page_are_its_example(name: str) -> None:
    """What a page shows for the configuration is what is copied as a file."""
    page = (DOCS / f"{name}.md").read_text("utf-8").partition("## Settings")[2]
    (block, *_) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    shown = tomllib.loads(block)["policy"]["data"]["house"]
    assert shown == {name: json.loads(starters()[name].files["data.json"])}


@pytest.mark.parametrize("name", tiered(["access", "team_scope"], deep=NAMES))
async def test_a_copy_under_another_name_works(name: str, tmp_path: Path) -> None:
    """It passes check and its tests, its settings are read, and nothing of it is called as before."""
    folder = tmp_path / "policies"
    done = ask("policy", "new", "ours_7", str(folder), "--from", name)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-2:] == [f"  ostiary policy check {folder}", f"  ostiary policy test {folder}"]
    rules = (folder / "ours_7" / "ours_7.rego").read_text("utf-8")
    assert {known.partition(".")[0] for known in ids_of(rules)} == {"ours_7"}
    whole = "".join(path.read_text("utf-8") for path in folder.rglob("*.rego"))
    assert re.findall(rf"house\.{name}\b|gateway\.\w+\.{name}\b|- {name}\.", whole) == []
    bundle = load([shipped(), folder], {"gateway": {"scope": OPEN}})
    assert (await examine((*bundle.modules, *bundle.tests))).findings == []
    async with serving(bundle, SETTINGS) as engine:
        (decision,) = await decide(engine, call({}))
    assert (decision.effect, [reason.id for reason in decision.reasons][:1]) == ("allow", ["scope.granted"])


@pytest.mark.parametrize("name", NAMES)
async def test_missing_settings_deny_what_the_package_is_about(name: str) -> None:
    """Also where the lists of tools are all that is missing; and the example as it is does not."""
    files = starters()[name].files
    example = json.loads(files["data.json"])
    rules = [Module(f"{name}/{file}", text) for file, text in files.items() if file.endswith(".rego")]
    plain = load([shipped()]).modules
    for house, is_refused in (
        ({}, True),
        ({name: {}}, True),
        ({name: dict.fromkeys(example)}, True),
        ({name: example}, False),
    ):
        bundle = bundled([*plain, *rules], {"gateway": {"scope": OPEN}, "house": house})
        async with serving(bundle, SETTINGS) as engine:
            (decision,) = await decide(engine, json.dumps(concerned(name)).encode())
        assert (f"{name}.settings" in [reason.id for reason in decision.reasons]) is is_refused
        assert decision.effect == "deny" or not is_refused


@pytest.mark.parametrize("name", NAMES)
def test_odd_settings_are_no_fault_of_the_engine(name: str, tmp_path: Path) -> None:
    """Whatever stands in the place of a setting, policy has an answer: with an error in it no call could be decided."""
    ask("policy", "new", name, str(tmp_path))
    place = tmp_path / "house" / name / "data.json"
    settings = list(odd(json.loads(place.read_text("utf-8"))))
    place.unlink()
    odds = {"odds": settings, "requests": [json.loads(call({})), concerned(name)]}
    (tmp_path / "data.json").write_text(json.dumps(odds), "utf-8")
    (tmp_path / "odd_test.rego").write_text(ODD_TEST.replace("NAME", name), "utf-8")
    report = testing.test(tmp_path, 30.0)
    assert report.problems == ()
    (result,) = [result for result in report.results if "odd_settings" in result.rule]
    assert result.passed, result.detail


def test_copies_beside_each_other(tmp_path: Path) -> None:
    """The whole gallery in one folder, one package twice: checked and tested together."""
    folder = str(tmp_path / "policies")
    for name in NAMES:
        assert ask("policy", "new", name, folder).exit_code == 0
    assert ask("policy", "new", "payroll", folder, "--from", "payments").exit_code == 0
    assert ask("policy", "check", folder).exit_code == 0
    report = testing.test(Path(folder), 30.0)
    assert [result for result in report.results if not result.passed] == []
    assert [item.file for item in report.coverage if item.missed] == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """One file that is there already, and none is written."""
    (tmp_path / "house" / "payments").mkdir(parents=True)
    (tmp_path / "house" / "payments" / "data.json").write_text("{}", "utf-8")
    done = ask("policy", "new", "payments", str(tmp_path))
    assert done.exit_code == 2
    assert "data.json exists already; nothing was written" in done.output
    assert not (tmp_path / "payments").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "no package nosuch"),
        (("mine", "--from", "../payments"), "no package ../payments"),
        (("approval", "--from", "payments"), "in force already"),
        (("authz", "--from", "payments"), "in force already"),
        (("my-pay", "--from", "payments"), "small letters"),
        (("../x", "--from", "payments"), "small letters"),
        (("with", "--from", "payments"), "small letters"),
        (("a" * 33, "--from", "payments"), "small letters"),
        ((), "--list"),
    ],
)
def test_names_that_will_not_do(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Exit code 2, the reason, and nothing is written."""
    done = ask("policy", "new", *words, *([str(tmp_path)] if words else []))
    assert done.exit_code == 2
    assert said in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Said with its name, not as a traceback."""
    (tmp_path / "payments").write_text("a file", "utf-8")
    done = ask("policy", "new", "payments", str(tmp_path))
    assert done.exit_code == 2
    assert "payments" in done.output


def test_the_list() -> None:
    """Every package with what it is about, for people and for machines."""
    lines = ask("policy", "new", "--list").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    said = json.loads(ask("policy", "new", "--list", "--json").output)
    assert [one["name"] for one in said["packages"]] == NAMES
    assert all(one["title"] for one in said["packages"])


def test_a_zone_that_does_not_exist_is_refused_at_load(tmp_path: Path) -> None:
    """Not at the first payment: a plain question makes the engine read it when the bundle is checked."""
    ask("policy", "new", "payments", str(tmp_path))
    path = tmp_path / "house" / "payments" / "data.json"
    path.write_text(path.read_text("utf-8").replace("Europe/Zurich", "Europe/Nowhere"), "utf-8")
    (finding,) = testing.check(tmp_path)
    assert "a plain question gives engine.error" in finding.message


def test_settings_and_rules_cannot_be_set_twice(tmp_path: Path) -> None:
    """Settings in the configuration beside those of the copy are refused, never mixed."""
    ask("policy", "new", "verify_only", str(tmp_path))
    with pytest.raises(BundleError, match=r"data\.house\.verify_only\.agents is already set"):
        load([shipped(), tmp_path], {"house": {"verify_only": {"agents": ["x"]}}})
